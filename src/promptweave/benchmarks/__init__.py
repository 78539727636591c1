"""The benchmarks of `promptweave bench`."""
