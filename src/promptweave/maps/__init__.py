"""What words look at: word maps, self-attention, statistics and the page of a run."""
