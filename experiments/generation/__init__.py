"""Batched sampling over devices: unconditional samples, and several answers per input."""
