"""The one door to diffusers and transformers. No other room imports them, but for builders of networks."""

from promptweave.models.quiet import quiet as _quiet

with _quiet():  # its advice on optional packages does not concern users
    import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion  # noqa: F401
