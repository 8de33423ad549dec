"""The pure training step, optimizers, and moving averages of the weights."""
