"""What a report shows, as numbers: runs as their folders tell, replicates beside one
another, verdicts of claims, maps of hidden states."""
