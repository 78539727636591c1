"""The few-step model as it ships: small, merged without peft, and good for edits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import promptweave as pw
from promptweave.core.clock import Window
from promptweave.editing.plan import usual
from promptweave.evaluate.metrics import psnr
from promptweave.models import low_rank
from promptweave.models.embedded import FAST, embedded_folder
from promptweave.models.load import load_cached

CAT, LION = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"


@pytest.fixture(scope="module")
def fast():
    return load_cached(FAST)


def test_it_is_small_and_safe():
    files = [path for path in embedded_folder(FAST).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4e6
    assert {path.name for path in files} == {low_rank.FILE, "scheduler_config.json"}


def test_it_asks_for_eight_steps_without_guidance(fast):
    assert usual(fast, None, None) == (8, 1.0) and usual(fast, 4, 2.0) == (4, 2.0)
    assert fast.scheduler == "ddim" and fast.schedule().spacing == "trailing"
    assert [step.t for step in fast.schedule().steps(8)] == [999, 874, 749, 624, 499, 374, 249, 124]
    assert fast.fingerprint() != load_cached("toybox").fingerprint()
    assert (Window.of(0.8).steps(8), Window.of(0.4).steps(8)) == (range(0, 6), range(0, 3))  # the usual windows


def test_peft_is_not_needed(fast, monkeypatch):
    """Where nothing of peft can be imported, and diffusers' own way, which needs it, is shut."""
    for name in {"peft", *(name for name in sys.modules if name.startswith("peft."))}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("diffusers.utils.import_utils._peft_available", False)  # as where it is not installed
    monkeypatch.setattr(StableDiffusionPipeline, "load_lora_weights", None)
    with pytest.raises(ImportError):
        import peft  # noqa: F401
    assert pw.load(FAST).fingerprint() == fast.fingerprint()


def test_diffusers_makes_the_same_picture(fast):
    """`load_lora_weights` of diffusers reads the addition, and its own call makes our picture."""
    pytest.importorskip("peft")
    pipeline = StableDiffusionPipeline.from_pretrained(
        embedded_folder(), local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.load_lora_weights(embedded_folder(FAST))
    pipeline.scheduler = DDIMScheduler.from_pretrained(embedded_folder(FAST))
    pipeline.set_progress_bar_config(disable=True)
    noise = pw.noise_for(fast, 3)
    made = pipeline(CAT, latents=noise, num_inference_steps=8, guidance_scale=1.0, output_type="np").images[0]
    ours = np.asarray(pw.generate(CAT, model=fast, seed=3).source) / 255
    assert np.abs(made - ours).max() < 0.02  # half a level of the 255 that a picture has, and rounding


def test_an_edit_keeps_more_of_the_source_than_a_new_prompt(fast):
    pairs = []
    for seed in range(3):
        result = pw.edit(CAT, LION, model=fast, seed=seed, compare=True)
        source = result.sample.pictures[0, 0]
        pairs.append((psnr(source, result.sample.pictures[1, 0]), psnr(source, result.plain[0, 0])))
        assert result.recipe.steps == 8 and result.recipe.guidance == 1
    edited, free = np.mean(pairs, 0)
    assert edited > free + 1, (edited, free)


def test_an_edit_to_the_same_prompt_changes_nothing(fast):
    made = pw.sample(fast, [CAT, CAT], noise=pw.noise_for(fast, 1), steps=4, guidance=1, controls=[pw.Replace()])
    assert np.abs(made.pictures[0].astype(int) - made.pictures[1]).max() <= 1  # one soft-max in another order
