"""From options to results: edits, recipes, recordings, sweeps and jobs."""
