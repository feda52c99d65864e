"""Says how jobs stand: states, progress, signs of life, logs, causes."""
