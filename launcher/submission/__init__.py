"""Carries a plan out: code and job files, intent, hand-over to Slurm or to this machine."""
