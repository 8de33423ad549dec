"""Editing with a trained model: strokes, translation and interpolation, and the files that they write."""
