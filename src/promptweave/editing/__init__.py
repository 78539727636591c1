"""Edits, from options to files: options, recipes, results, recordings, sweeps and jobs."""
