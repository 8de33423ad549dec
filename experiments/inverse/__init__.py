"""What a trained model does with the user's own images: `images` reads them, `answers` draws, `sheet` shows the result.

Images inside are float32 (N, H, W, C) in the model's range, [-1, 1] from black to white.
"""
