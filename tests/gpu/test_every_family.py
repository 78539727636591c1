"""Every family on a GPU in half precision, with everything that acts; and that nothing in the loop waits for it.

PROMPTWEAVE_GPU_TESTS names another device: cpu runs what does not need a GPU where there is none.
"""

from __future__ import annotations

import os

import pytest
import torch
from everything import SOURCE, STEPS, TARGET, THINGS, acts, latents, settings
from families import BUILDERS

from promptweave import LocalBlend, RecordMaps, Replace, Reweight, load, noise_for, sample

DEVICE = os.environ.get("PROMPTWEAVE_GPU_TESTS", "cuda")
MISSING = DEVICE.startswith("cuda") and not torch.cuda.is_available()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(MISSING, reason="these runs are on a GPU, and torch sees none here"),
]
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
CLOSE = 0.05  # of the norm, at the end of five steps in bfloat16, whose numbers have 8 bits
# Where a threshold, a gradient or the encoded image decides, a rounding may decide otherwise.
FREE = (
    "given image",
    "attend and excite",
    "weight and local blend",
    "flow",
    "consist",
    "pix2pix-zero",
    "masactrl by words",
    "prompt mixing",
)


def on_gpu(family: str, tokenizer, dtype: torch.dtype):
    pipeline = BUILDERS[family](tokenizer)
    pipeline.to(DEVICE, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return load(pipeline)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in BUILDERS])
def models(request, tokenizer):
    """A family in single precision, and by name in both halves."""
    halves = {name: on_gpu(request.param, tokenizer, dtype) for name, dtype in PRECISIONS.items()}
    return on_gpu(request.param, tokenizer, torch.float32), halves


@pytest.mark.parametrize("name", THINGS)
def test_everything_that_acts_is_finite_and_near_single_precision(models, name):
    full, halves = models
    if not acts(name, full):
        with pytest.raises(ValueError):
            THINGS[name](full)
        return
    exact = latents(THINGS[name](full))
    for precision, model in halves.items():
        for half, wanted in zip(latents(THINGS[name](model)), exact, strict=True):
            assert torch.isfinite(half).all(), precision
            away = float((half.float() - wanted.float()).norm() / wanted.float().norm())
            assert name in FREE or away < CLOSE, (precision, away)


@pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="only CUDA tells that its host waits")
@pytest.mark.parametrize("family", ["Stable Diffusion 1.x", "Stable Diffusion XL", "Stable Diffusion 3", "FLUX.1-dev"])
def test_nothing_in_the_loop_waits_for_the_device(family, tokenizer):
    """From the second step on, when what a run keeps is made; noise that a solver draws on the way is the CPU's."""
    model = on_gpu(family, tokenizer, torch.bfloat16)
    controls = [Replace(joint=0.6), Reweight({"snow": 2.0}), LocalBlend("dog", start=0.0), RecordMaps()]
    options = {key: value for key, value in settings(model).items() if key not in ("model", "steps")}

    def watched(step, z):
        torch.cuda.set_sync_debug_mode("error" if 1 <= step.index < 2 * STEPS - 1 else "default")

    try:
        made = sample(
            model, [SOURCE, TARGET], noise=noise_for(model, 0), steps=2 * STEPS, controls=controls, progress=watched,
            **options,
        )  # fmt: skip
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(made.latents).all()
