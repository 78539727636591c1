"""Metrics: images in, numbers out, however the images were made."""
