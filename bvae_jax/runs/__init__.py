"""Training, run directories, checkpoints, sweeps."""
