"""What `promptweave bench` runs."""
