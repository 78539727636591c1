"""Attention maps: word maps, self-attention, statistics and the HTML report of a run."""
