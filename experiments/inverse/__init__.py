"""Inverse problems: tasks, modalities, posterior methods, and the commands `restore`, `reconstruct` and `rank`.

Images are float32 (N, H, W, C) in the model's range, [-1, 1] from black to white.
"""
