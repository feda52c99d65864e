"""How long zsg takes, against what does the same."""
