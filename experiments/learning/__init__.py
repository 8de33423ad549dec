"""The pure training step, optimizers, and averages of the weights."""
