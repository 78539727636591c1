"""The only door to networks: nothing outside this package imports diffusers or transformers."""

from promptweave.models.quiet import quiet as _quiet

with _quiet():  # its advice on optional packages does not concern users
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion  # noqa: F401
