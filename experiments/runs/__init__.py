"""The folder of a run, checkpoints, integrity, the lock and interruption."""
