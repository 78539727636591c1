"""Inversion: from an image back to the noise that a run starts from."""
