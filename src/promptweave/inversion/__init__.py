"""From a picture back to the noise that a run starts from."""
