"""Applications: the command line and the benchmarks. Nothing imports them."""
