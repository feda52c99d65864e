"""What every job's process needs: its ranks, signals, logs, prerequisites, and how it
goes on after an end."""
