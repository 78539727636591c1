"""The only door to networks: nothing outside this package imports diffusers or transformers."""

from promptweave.models.quiet import quiet as _quiet

with _quiet():  # advice on optional packages concerns nobody who samples
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion  # noqa: F401
