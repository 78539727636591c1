"""Noise schedules, single steps and the sampling loop."""
