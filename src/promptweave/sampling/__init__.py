"""The sampling loop: forward passes, probes, solvers and recordings."""
