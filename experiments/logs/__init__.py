"""Rows and pictures of training: the history of a run and the writers."""
