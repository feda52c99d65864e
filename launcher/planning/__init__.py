"""Decides before anything is submitted: what to do, what it takes, whether it fits."""
