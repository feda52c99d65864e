"""The prepare job: pools, embeddings, orders, the tiny base; each made once and kept by content."""
