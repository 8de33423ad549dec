"""Run folders: paths, checkpoints, checksums, the lock and graceful shutdown."""
