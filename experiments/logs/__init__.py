"""Logging of training: the history of a run and its writers."""
