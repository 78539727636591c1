"""The stages of training, in the order in which they run."""

STAGES = ("vae", "diffusion", "decoder", "oracle", "joint", "fast")
