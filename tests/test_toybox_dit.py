"""The joint-attention model as it ships: a small Stable Diffusion 3 that diffusers reads, and on which edits work."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline

import promptweave as pw
from promptweave.editing.plan import usual
from promptweave.evaluate.metrics import psnr
from promptweave.models.embedded import JOINT, embedded_folder
from promptweave.models.load import load_cached

CAT, LION = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"
RED, BLUE = "a photo of a red car on the grass", "a photo of a blue car on the grass"
SEEDS = range(3)
STEPS = 10


@pytest.fixture(scope="module")
def dit():
    return load_cached(JOINT)


def test_it_is_small_and_safe():
    files = [path for path in embedded_folder(JOINT).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}
    index = json.loads((embedded_folder(JOINT) / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusion3Pipeline" and index["transformer"][1] == "SD3Transformer2DModel"


def test_what_it_is(dit):
    assert dit.scheduler == "flow-euler" and dit.default_size == (128, 128)
    assert dit.t5_length == 0, "no places for the T5 encoder that it has not"
    assert usual(dit, None, None) == (
        28,
        json.loads((embedded_folder(JOINT) / "model_index.json").read_text())["_guidance"],
    )
    assert {site.kind for site in dit.sites((16, 16))} == {"joint"} and len(dit.sites((16, 16))) == 8


def test_diffusers_makes_the_same_picture(dit):
    """The folder is a StableDiffusion3Pipeline with toybox's autoencoder: diffusers' own call gives our picture."""
    vae = AutoencoderKL.from_pretrained(embedded_folder(), subfolder="vae", torch_dtype=torch.float32)
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        embedded_folder(JOINT), vae=vae, text_encoder_3=None, tokenizer_3=None, local_files_only=True,
        torch_dtype=torch.float32,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        CAT, latents=pw.noise_for(dit, 3), num_inference_steps=6, guidance_scale=2, output_type="np",
        max_sequence_length=0, height=128, width=128,
    ).images[0]  # fmt: skip
    ours = np.asarray(pw.generate(CAT, model=dit, seed=3, steps=6, guidance=2).source) / 255
    assert np.abs(made - ours).max() < 0.02  # half a level of the 255 that a picture has, and rounding


def test_edits_keep_more_of_the_source_than_a_new_prompt(dit):
    """Joint injection: more, the longer; with the blend, still more. One run a seed makes all targets."""
    controls = [
        pw.Replace(targets=(2,)), pw.Replace(joint=0.6, targets=(3,)), pw.Replace(targets=(4,)),
        pw.LocalBlend("lion", targets=(4,)),
    ]  # fmt: skip
    found = []
    for seed in SEEDS:
        made = pw.edit(CAT, *[LION] * 4, model=dit, controls=controls, seed=seed, steps=STEPS).sample.pictures[:, 0]
        found.append([psnr(made[0], picture) for picture in made[1:]])
    free, shorter, longer, blended = map(float, np.mean(found, 0))
    assert longer > shorter > free + 0.5 and blended > shorter, (shorter, longer, blended, free)


def test_an_edit_to_the_same_prompt_changes_nothing(dit):
    made = pw.sample(dit, [CAT, CAT], noise=pw.noise_for(dit, 1), steps=5, controls=[pw.Replace()])
    assert np.abs(made.pictures[0].astype(int) - made.pictures[1]).max() <= 1  # one soft-max in another order


def test_consist_keeps_what_it_must(dit):
    """The word's thing changes more than the rest."""
    made = pw.edit(RED, BLUE, model=dit, kind="consist", blend="car", structure=1.0, seed=1, steps=STEPS)
    before, after = (row[0].astype(int) for row in made.sample.pictures)
    changed = np.abs(before - after).mean(-1)
    assert changed[64:112, 32:96].mean() > 2 * changed[:32].mean()


def test_maps_find_what_the_words_name(dit):
    """The car is looked at where the picture has something, the sky is not the car's."""
    attention = pw.word_maps(RED, model=dit, seed=1, steps=STEPS).of("car")
    side = attention.shape[0]
    assert float(attention[side // 2 :].mean()) > float(attention[: side // 4].mean())
