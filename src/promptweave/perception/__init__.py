"""A diffusion model as a feature extractor for vision: segmentation, referring segmentation and depth."""
