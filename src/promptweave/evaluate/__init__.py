"""Measures: images in, numbers out. Nothing here knows how the images were made."""
