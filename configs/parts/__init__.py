"""Shared parts of experiments: functions that modify a config."""
