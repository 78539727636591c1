"""Patterns, rows, sites, steps, controls and maps. Imports torch and jaxtyping only."""
