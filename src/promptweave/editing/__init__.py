"""Edits as people ask for them: options, recipes, results, recordings, sweeps and jobs."""
