"""What a cluster is: profiles, Slurm's commands, submitit's arrays, and whether they agree."""
