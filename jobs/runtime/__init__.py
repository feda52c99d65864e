"""What every job's process needs: its ranks, signals, logs, prerequisites, and how
Slurm is asked to requeue it."""
