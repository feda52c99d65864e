"""The train job: batches, loss, loop, checkpoints, snapshots, states."""
