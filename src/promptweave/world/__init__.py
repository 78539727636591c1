"""The synthetic world, the embedded models and their training."""
