"""Fragments that experiments are composed of: each changes one section of a config."""
