"""The embedded model as it ships: what it is, and that edits on it do what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import promptweave as pw
from promptweave.editing.plan import usual
from promptweave.evaluate.metrics import psnr
from promptweave.models.embedded import embedded_folder
from promptweave.models.load import load_cached

CAT, LION = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"
SEEDS = range(4)
FAST = {"steps": 10}


@pytest.fixture(scope="module")
def toybox():
    return load_cached("toybox")


def test_it_is_small_and_safe():
    files = [path for path in embedded_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 48e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


def test_diffusers_makes_the_same_picture(toybox):
    """The folder is a plain StableDiffusionPipeline: diffusers' own call with our noise gives our picture."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        embedded_folder(), local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        CAT, latents=pw.noise_for(toybox, 3), num_inference_steps=10, guidance_scale=2, output_type="np"
    ).images[0]
    ours = np.asarray(pw.generate(CAT, seed=3, steps=10).source) / 255
    # Measured: 2e-3, half a level of the 255 that a picture has.
    assert np.abs(made - ours).max() < 0.02


def test_it_has_its_own_guidance(toybox):
    """Which edits, their recipes and plain sampling take unless told otherwise."""
    assert usual(toybox, None, None) == (50, 2.0) and usual(toybox, 10, 7.5) == (10, 7.5)
    assert pw.generate(CAT, steps=2).recipe.guidance == 2.0
    noise = pw.noise_for(toybox, 0)
    made = [pw.sample(toybox, [CAT], noise=noise, steps=3, **given).latents for given in ({}, {"guidance": 2.0})]
    assert torch.equal(*made)


def test_words_of_several_pieces(toybox):
    assert len(toybox.words("a squirrel on a skateboard").find("skateboard")) > 1


@pytest.fixture(scope="module")
def kept() -> dict[str, float]:
    """PSNR to the source of the target under several controls, mean over seeds; one run a seed makes them all."""
    ways = {
        "free": (),
        "short": (pw.Replace(0.2, 0.0, targets=(2,)),),
        "usual": (pw.Replace(targets=(3,)),),
        "long": (pw.Replace(1.0, 0.9, targets=(4,)),),
        "blend": (pw.Replace(targets=(5,)), pw.LocalBlend("lion", targets=(5,))),
    }
    controls = [control for way in ways.values() for control in way]
    found = []
    for seed in SEEDS:
        made = pw.edit(CAT, *[LION] * len(ways), controls=controls, seed=seed, **FAST).sample.pictures[:, 0]
        found.append([psnr(made[0], picture) for picture in made[1:]])
    return dict(zip(ways, map(float, np.mean(found, 0)), strict=True))


def test_an_edit_keeps_more_of_the_source_than_a_new_prompt(kept):
    assert kept["usual"] > kept["free"] + 1, kept


def test_stronger_windows_and_local_blend_keep_more(kept):
    assert kept["short"] < kept["usual"] < kept["long"] and kept["blend"] > kept["usual"], kept


def test_local_blend_leaves_the_latent_outside_its_mask(toybox):
    """What the mask does not hold is the source's latent, bit for bit."""
    prompts, noise = [CAT, LION], pw.noise_for(toybox, 1)
    made = pw.sample(toybox, prompts, noise=noise, controls=[pw.Replace(), pw.LocalBlend("lion")], **FAST)
    equal = (made.latents[0] == made.latents[1]).all(1)[0]
    share = made.reports[1]["mask_area"][1][-1]
    assert float(equal.double().mean()) == pytest.approx(1 - share, abs=1e-6) and 0.02 < share < 0.9


def test_weights_move_the_picture_steadily():
    """The farther a word's weight is from 1, the farther the picture is from the source."""
    prompt = "a photo of a house in the snow"
    factors = (-2.0, -0.5, 0.5, 2.0, 4.0)
    controls = [pw.Replace(), *(pw.Reweight({"snow": f}, targets=(i,)) for i, f in enumerate(factors, 1))]
    distances = []
    for seed in SEEDS:
        made = pw.edit(prompt, *[prompt] * len(factors), controls=controls, seed=seed, **FAST).sample.pictures[:, 0]
        distances.append([float(np.abs(made[0].astype(int) - picture).mean()) for picture in made[1:]])
    down2, down1, up0, up2, up4 = np.mean(distances, 0)
    assert down2 > down1 > up0 and up4 > up2


def test_maps_find_what_the_words_name():
    """The attention to things is more concentrated than that to an article."""
    made = pw.word_maps("a photo of a dog next to a house in the snow", **FAST)

    def spread(word: str) -> float:
        share = made.of(word) / made.of(word).sum()
        return float(torch.special.entr(share).sum())

    assert spread("dog") < spread("of") and spread("house") < spread("of")


def test_replay_of_a_saved_run(tmp_path):
    pw.edit(CAT, LION, blend="lion", weights={"lion": 2}, **FAST).save(tmp_path / "run")
    assert pw.replay(tmp_path / "run" / "edit.png").matches
