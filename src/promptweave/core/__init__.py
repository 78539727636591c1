"""The core: patterns, sites, steps, rows, controls and maps. Imports torch and jaxtyping only."""
