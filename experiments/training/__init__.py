"""The training loop, its monitor, and sweeps."""
