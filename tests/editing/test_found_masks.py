"""Masks that are found: DiffEdit's equations a second time, and words of a given image."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from families import build_flux, build_flux_fill, build_inpainting

import promptweave as pw
from promptweave.core.control import NoEffect
from promptweave.editing.jobs import read_jobs, run_jobs
from promptweave.editing.plan import recipe_for
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"


def picture() -> np.ndarray:
    values = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(1)).numpy()
    return np.kron((values * 255).astype(np.uint8), np.ones((8, 8, 1), np.uint8))


def recipe(model: Any, source: str = SOURCE, **options: Any) -> Any:
    return recipe_for(model, source, (TARGET,), image=picture(), steps=10, seed=3, **options)


def published(model: Any, source: str, noises: int, strength: float) -> torch.Tensor:
    """diffusers' generate_mask, written out with its guidance and its clamp, in double precision."""
    x = model.to_latent(torch.from_numpy(picture())[None].double() / 255)
    schedule, generator = model.schedule(), torch.Generator().manual_seed(3)
    t = schedule.steps(10)[10 - int(10 * strength)].t
    level, text = schedule.level(t), model.encode([source, TARGET], ["", ""])
    found: list[torch.Tensor] = []
    for _ in range(noises):
        noise = torch.randn(x.shape, generator=generator).double()
        z = level**0.5 * x + (1 - level) ** 0.5 * noise
        uncond, old, new = model.predict(z.expand(3, *z.shape[1:]), t, torch.cat([text.uncond[:1], text.cond]))
        guided = [uncond + 7.5 * (e - uncond) for e in (old, new)]
        found.append((guided[1] - guided[0]).abs())
    d = torch.stack(found).mean((0, 1))
    limit = d.mean() * 3.0
    return (d.clamp(0, limit) / limit > 0.5).double()


@pytest.mark.parametrize(("source", "reference"), [(SOURCE, SOURCE), (TARGET, "")])
def test_diffedit_s_mask_equals_the_published_one(tiny64, source, reference):
    """Guidance scales the difference, so the mask has none; the empty prompt stands for a source with the target's."""
    mask = pw.DiffEditMask(noises=4).find(recipe(tiny64, source), tiny64)
    wanted = published(tiny64, reference, 4, 0.5)
    assert torch.equal(torch.tensor(mask, dtype=torch.float64), wanted) and 0 < wanted.mean() < 1


def test_flow_models_and_words_have_masks_too(tokenizer, tiny):
    model = pw.load(build_flux(tokenizer))
    for network in (model, tiny):
        found = pw.DiffEditMask(noises=2).find(recipe(network), network)
        assert 0 < np.mean(found) < 1 and np.shape(found) == (16, 16)
        few = replace(recipe(network), steps=2)
        words, cat, bike = (
            np.array(pw.WordMask(w, threshold=0.6).find(few, network)) for w in (("cat", "bike"), "cat", "bike")
        )
        assert np.array_equal(words, np.maximum(cat, bike)) and 0 < np.mean(words) < 1


def test_the_mask_of_a_word_is_what_segmentation_calls_it(tiny):
    """The same six passes, multiplied once by self-attention; each word by itself, so that regions may overlap."""
    for word in ("cat", "bike"):
        seen = pw.segment(picture(), [word], model=tiny, prompt=SOURCE, seed=3)
        wanted = (seen.scores[1] > 0.4).numpy()
        found = np.array(pw.WordMask(word).find(recipe(tiny), tiny))
        assert np.array_equal(found, wanted) and 0 < found.mean() < 1
        wide = np.array(pw.WordMask(word, grow=1).find(recipe(tiny), tiny))
        padded = np.pad(found, 1)
        assert np.array_equal(wide, np.max([padded[y : y + 16, x : x + 16] for y in range(3) for x in range(3)], 0))
    along = np.array(pw.WordMask("bike", maps="inversion").find(replace(recipe(tiny), steps=2), tiny))
    assert 0 < along.mean() < 1 and not np.array_equal(along, found)


def test_the_mask_of_a_word_is_near_its_drawn_outline():
    scene = Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5)
    drawn, (outline,) = render(scene)
    model = pw.load("toybox")
    given = recipe_for(model, "a photo of a cat on the grass", ("a photo of a dog on the grass",), image=drawn)
    cells = np.asarray(outline).reshape(16, 8, 16, 8).mean((1, 3)) > 0.5
    found = np.array(pw.WordMask("cat").find(given, model)) > 0
    assert (found & cells).sum() / (found | cells).sum() > 0.75


@pytest.mark.parametrize("build", [build_inpainting, build_flux_fill])
def test_a_network_that_reads_a_mask_finds_words_while_it_keeps_the_image(tokenizer, build):
    model = pw.load(build(tokenizer))
    made = pw.inpaint(picture(), TARGET, source=SOURCE, mask=pw.WordMask("cat"), model=model, steps=1)
    assert 0 < np.mean(made.recipe.controls[0].mask) < 1
    seen = pw.look(SOURCE, image=picture(), model=model, times=(0.5,), noises=1)
    assert torch.isfinite(seen.words.attention).all()


def test_a_found_mask_is_that_of_an_edit_and_of_a_job(tiny, tmp_path):
    given: dict[str, Any] = {"model": tiny, "image": picture(), "steps": 3}
    made = pw.edit(SOURCE, TARGET, mask="diffedit:noises=2,threshold=0.4", **given)
    blend = made.recipe.controls[-1]
    assert isinstance(blend, pw.LocalBlend)
    again = pw.edit(SOURCE, TARGET, mask=pw.DiffEditMask(noises=2, threshold=0.4), kind="inpaint", **given)
    assert again.recipe.controls[0].mask == blend.mask and 0 < np.mean(blend.mask) < 1
    inpainted = pw.inpaint(mask=pw.WordMask("cat"), prompt=TARGET, source=SOURCE, **given)
    assert np.mean(inpainted.recipe.controls[0].mask) > 0
    from PIL import Image

    Image.fromarray(picture()).save(tmp_path / "given.png")
    line = {"source": SOURCE, "targets": [TARGET], "image": "given.png", "kind": "inpaint", "steps": 3}
    (tmp_path / "jobs.jsonl").write_text(json.dumps({**line, "mask": "diffedit:noises=2,threshold=0.4"}))
    (folder,) = run_jobs(read_jobs(tmp_path / "jobs.jsonl", tiny), tiny, tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(folder / "edit.png")), again.sample.pictures[1, 0])


def test_what_is_refused(tiny):
    with pytest.raises(NoEffect, match="predicts the same for both"):
        pw.DiffEditMask(noises=1, clamp=0).find(recipe(tiny), tiny)
    with pytest.raises(NoEffect, match="strength of at least one of the 10 steps"):
        pw.DiffEditMask(strength=0.01).find(recipe(tiny), tiny)
    with pytest.raises(ValueError, match="is that of a given image. Received none. Give image="):
        pw.edit(SOURCE, TARGET, model=tiny, steps=2, mask="diffedit")
    with pytest.raises(ValueError, match="'zebra' is not a word of the prompt"):
        pw.inpaint(picture(), TARGET, mask=pw.WordMask("zebra"), model=tiny, steps=2)
    with pytest.raises(ValueError, match="number of cells to grow by, 0 to 64.*grow=-1"):
        pw.WordMask("cat", grow=-1).find(recipe(tiny), tiny)
    with pytest.raises(ValueError, match="options of a way to find a mask.*Received 'noise=2'"):
        pw.edit(SOURCE, TARGET, model=tiny, steps=2, image=picture(), mask="diffedit:noise=2")
