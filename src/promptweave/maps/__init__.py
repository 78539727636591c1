"""Word maps, self-attention, statistics and the page of a run."""
