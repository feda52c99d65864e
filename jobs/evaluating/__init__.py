"""The evaluate job: leases, one loaded model whose weights change, answers, scores."""
