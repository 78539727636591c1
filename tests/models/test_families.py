"""Every family of pipelines behind one door: plain runs are diffusers' own, sites, words, edits and maps work."""

from __future__ import annotations

import json
from pathlib import Path

import matrix
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from families import BUILDERS

from promptweave import RecordMaps, Replace, Reweight, edit, load, noise_for, sample
from promptweave.apps.cli import main
from promptweave.core.rows import Layout
from promptweave.core.tapping import Tap

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
STEPS = 5


@pytest.fixture(scope="module", params=list(BUILDERS))
def model(request, tokenizer):
    pipeline = BUILDERS[request.param](tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    return load(pipeline)


def joint(model) -> bool:
    return any(site.kind == "joint" for site in model.sites((16, 16)))


def guidance(model) -> float:
    return 3.0 if model.guided or model.defaults[1] != 1.0 else 1.0


def theirs(model, noise: torch.Tensor, prompt: str) -> np.ndarray:
    """The family's own pipeline from the same starting noise."""
    options = {"guidance_scale": guidance(model), "num_inference_steps": STEPS, "output_type": "np"}
    height, width = (side * model.factor for side in noise.shape[-2:])
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(noise.shape, generator=generator)
    assert torch.equal(latents, noise)
    if type(model.pipeline).__name__ == "FluxPipeline":
        from promptweave.models.flux import pack

        latents = pack(latents)
        options["max_sequence_length"] = model.length
    return model.pipeline(
        prompt=prompt, latents=latents, generator=generator, height=height, width=width, **options
    ).images[0]  # fmt: skip


def test_without_controls_the_pipeline_is_diffusers_own(model):
    noise = noise_for(model, 5, 1, model.default_size)
    ours = sample(model, [SOURCE], noise=noise, steps=STEPS, guidance=guidance(model), seed=5).pictures[0, 0]
    assert np.abs(ours / 255 - theirs(model, noise, SOURCE)).max() <= 0.6 / 255 + 2e-3


def test_a_tap_that_changes_nothing_is_bit_identical(model):
    noise = noise_for(model, 1, 1)
    text = model.encode([SOURCE], [""])
    pooled = None if text.pooled is None else text.pooled
    t = 500 if model.scheduler != "flow-euler" else 500.0
    seen = []

    def look(site, rows):
        seen.append((site.name, rows.q.shape[1:3], rows.k.shape[2]))
        pattern = rows["cond"][0].pattern  # looked at, at every layer
        torch.testing.assert_close(pattern.terms[0].kernel.q, rows.q[:1])
        return rows

    with torch.no_grad():
        plain = model.predict(noise, t, text.keys, pooled=pooled, guidance=2.0)
        tapped = model.predict(noise, t, text.keys, Tap.of(Layout(("cond",), 1), look), pooled=pooled, guidance=2.0)
    assert torch.equal(plain, tapped)
    sites = model.sites((noise.shape[-2], noise.shape[-1]))
    tokens = model.words(SOURCE).limit
    wanted = []
    for site in sites:
        text_tokens = tokens if site.kind == "joint" else 0
        keys = tokens if site.kind == "cross" else site.queries + text_tokens
        wanted.append((site.name, (site.heads, site.queries + text_tokens), keys))
    assert seen == wanted


def test_equal_prompts_stay_equal_and_the_source_stays_itself(model):
    noise = noise_for(model, 2, 2)
    settings = {"noise": noise, "steps": STEPS, "guidance": guidance(model)}
    plain = sample(model, [SOURCE], **settings)
    made = sample(model, [SOURCE, SOURCE, TARGET], controls=[Replace(joint=0.6)], **settings)
    torch.testing.assert_close(made.latents[0], plain.latents[0], rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(made.latents[1], made.latents[0], rtol=2e-4, atol=2e-4)
    free = sample(model, [TARGET], **settings).latents[0]
    assert (made.latents[2] - made.latents[0]).abs().max() > 1e-3  # the words differ ...
    assert (made.latents[2] - free).abs().max() > 1e-3  # ... and the control acts


def test_an_edit_with_a_weight_and_a_blend_keeps_the_source_outside(model):
    made = edit(
        SOURCE, TARGET, model=model, steps=STEPS, guidance=guidance(model), weights={"snow": 2.0}, blend="dog",
        threshold=0.95, blend_start=0.0,
    )  # fmt: skip
    latents, area = made.sample.latents, made.report["controls"][-1]["mask_area"]
    same = (latents[0] - latents[1]).abs().amax(1) == 0
    assert 0 < area[1][-1] < 1
    assert same.float().mean() >= 0.9 * (1 - area[1][-1])


def test_weights_and_maps(model):
    noise = noise_for(model, 3, 1)
    settings = {"noise": noise, "steps": STEPS, "guidance": guidance(model)}
    made = sample(model, [SOURCE, SOURCE], controls=[Reweight({"cat": -2.0}), RecordMaps()], **settings)
    assert (made.latents[0] - made.latents[1]).abs().max() > 1e-3
    maps = made.hooks[1].maps.mean(0)[0]
    assert maps.shape == (*made.run.map_grid, model.words(SOURCE).limit)
    total = maps.sum(-1)
    if joint(model):
        assert (total > 0).all() and (total < 1).all()  # the rest of the mass is on the image
    else:
        torch.testing.assert_close(total, torch.ones_like(total))


def test_words_are_found_in_every_encoder(model):
    words = model.words(SOURCE)
    tokens = words.find("cat")
    assert tokens and max(tokens) < words.limit
    if type(model.pipeline).__name__ == "StableDiffusion3Pipeline" and model.pipeline.text_encoder_3 is not None:
        first, second = ([t for t in tokens if (t >= model.clip_length) == late] for late in (False, True))
        assert first and second
        pieces = model.pipeline.tokenizer_3(SOURCE).input_ids
        text = model.pipeline.tokenizer_3.decode([pieces[t - model.clip_length] for t in second])
        assert text.strip() == "cat"


def test_a_saved_folder_loads_as_the_same_family(model, tmp_path):
    model.pipeline.save_pretrained(tmp_path, safe_serialization=True)
    again = load(tmp_path, device="cpu")
    assert type(again) is type(model)
    assert again.fingerprint() == model.fingerprint()
    assert isinstance(again.pipeline, DiffusionPipeline)
    assert again.words(SOURCE).find("cat") == model.words(SOURCE).find("cat")


def test_the_commands_that_look(model, tmp_path, capsys):
    """words, sites and maps of a saved folder."""
    folder = tmp_path / "model"
    model.pipeline.save_pretrained(folder, safe_serialization=True)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--model", str(folder), "--json"])
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return json.loads(out)

    assert run("words", SOURCE, TARGET)["alignments"][0]["edit"] == "replace"
    size = ("--size", str(16 * model.factor))
    sites, tokens = run("sites", *size), model.words("a").limit
    assert len(sites) == len(model.sites((16, 16)))
    heads, queries, keys = json.loads(sites[0]["maps"])
    first = model.sites((16, 16))[0]
    assert heads == first.heads * (2 if model.guided else 1)
    assert (keys - queries, queries - first.queries) == ((0, tokens) if joint(model) else (0, 0))
    picture = tmp_path / "maps.png"
    run("maps", "a lion", "--steps", "2", "-o", str(picture), *size)
    assert picture.is_file()


def test_the_support_matrix_of_the_documentation_is_of_these_tests():
    """Every family has a row, every capability a column, and nothing claims what no test shows."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = [line for line in text.split(matrix.BEGIN)[1].split(matrix.END)[0].splitlines() if line.startswith("| ")]
    assert rows[0].strip("| ").split(" | ") == list(matrix.COLUMNS.values())
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]] == list(BUILDERS)
    assert all(row.count("✓") >= len(matrix.COLUMNS) - 1 and "✗" not in row for row in rows[1:])
