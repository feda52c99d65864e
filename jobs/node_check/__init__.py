"""What a cluster's nodes are asked to show by zsg doctor --on-node: one module a question."""
