"""The only door to networks: nothing outside this package imports diffusers or transformers."""
