"""Structured Diffusion Guidance: linearity, identities, equality with the written-out form, phrases."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
import torch
from families import build_flux, build_sdxl
from references import attention
from tiny import build_tiny

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.benchmarks.measure_compose import judge
from promptweave.core.control import NoEffect
from promptweave.core.rows import Layout, Rows
from promptweave.editing.recipe import control_as_dict, control_from_dict
from promptweave.methods.structured_diffusion import aligned
from promptweave.sampling.loop import Job, sample_jobs
from promptweave.words.phrases import NoParser, bracketed, noun_phrases, parser
from promptweave.world.oracle import Sight
from promptweave.world.scene import two_colours

PROMPT = "a black cat next to a red car"
OTHER = "a photo of a dog riding a blue car on a beach"
PHRASES = ("a black cat", "a red car")
STEPS = 4
VARIANTS = pytest.mark.parametrize("variant", ["values", "keys"])


def run(model, prompts, controls, noise=None, **options):
    noise = pw.noise_for(model, 1, 2) if noise is None else noise
    return pw.sample(model, prompts, noise=noise, controls=controls, **{"steps": STEPS, "guidance": 3.0, **options})


class Seen(pw.Control):
    """Keeps what each cross-attention layer of the conditional half computes."""

    def bind(self, run):
        return SeenHooks()


class SeenHooks(pw.Hooks):
    def __init__(self):
        self.rows = {}

    def attention(self, step, site, rows):
        if site.kind == "cross" and step.index == 0:
            self.rows[site.name] = (rows["cond"][0], rows.evaluate(), rows.project)
        return rows


@VARIANTS
def test_layers_compute_what_is_written_out(tiny64, noise64, variant):
    control = pw.StructuredDiffusion(PHRASES, variant)
    made = run(tiny64, [PROMPT], [control, Seen()], noise64, steps=1)
    words, whole = tiny64.words(PROMPT), tiny64.encode([PROMPT], [""]).keys[0]
    contexts = [whole]
    overwritten = whole.clone()
    for phrase in PHRASES:
        own, places = tiny64.encode([phrase], [""]).keys[0], words.find(phrase)
        changed = whole.clone()
        for number, place in enumerate(places):
            changed[place] = own[1 + number]
            overwritten[place] = own[1 + number]
        contexts.append(changed)
    assert len(made.hooks[1].rows) == 7
    layers = {site.name: tiny64.unet.get_submodule(site.path) for site in made.run.sites}
    for name, (row, outputs, _) in made.hooks[1].rows.items():
        layer = layers[name]

        def heads(x, layer=layer):
            return x.unflatten(-1, (layer.heads, -1)).transpose(0, 1)

        if variant == "values":
            parts = [attention(row.q[0], heads(layer.to_k(whole))) @ heads(layer.to_v(c)) for c in contexts]
        else:
            parts = [attention(row.q[0], heads(layer.to_k(c))) @ heads(layer.to_v(overwritten)) for c in contexts]
        torch.testing.assert_close(outputs[1], torch.stack(parts).mean(0), rtol=1e-9, atol=1e-9)


def test_averaged_values_are_one_attention_with_the_mean_encoding(tiny64, noise64):
    made = run(tiny64, [PROMPT], [pw.StructuredDiffusion(PHRASES), Seen()], noise64, steps=1)
    assert all(row.edited is None for row, *_ in made.hooks[1].rows.values())


@VARIANTS
def test_no_phrase_is_plain(tiny, variant):
    plain = run(tiny, [PROMPT], [])
    made = run(tiny, [PROMPT], [pw.StructuredDiffusion((), variant)])
    assert made.latents.equal(plain.latents) and made.reports[0] == {"phrases": {}}


@VARIANTS
def test_phrases_that_read_as_in_the_prompt_are_plain(tiny64, noise64, variant, monkeypatch):
    # The encoder is causal, so a phrase that begins the prompt reads alone as it does in it: c_1 = c_0.
    plain = run(tiny64, [PROMPT], [], noise64)
    made = run(tiny64, [PROMPT], [pw.StructuredDiffusion(("a black cat",), variant)], noise64)
    torch.testing.assert_close(made.latents, plain.latents, rtol=1e-9, atol=1e-9)
    other = run(tiny64, [PROMPT], [pw.StructuredDiffusion(PHRASES, variant)], noise64)
    assert (other.latents - plain.latents).abs().max() > 1e-4


def test_aligned_keeps_the_rest():
    whole, phrase = torch.arange(12.0).view(6, 2), -torch.arange(12.0).view(6, 2)
    made = aligned(whole, phrase, (2, 3))
    assert made[[2, 3]].equal(phrase[[1, 2]]) and made[[0, 1, 4, 5]].equal(whole[[0, 1, 4, 5]])
    assert whole.equal(torch.arange(12.0).view(6, 2)), "c_0 is not written into"


def test_inner_phrases_are_over_outer_ones(tiny64):
    control = pw.StructuredDiffusion(("next to a red car", "a red car"), "keys")
    bound, (hooks,) = Job([PROMPT], torch.zeros(1, 4, 16, 16), STEPS, controls=[control]).bind(tiny64)
    text = hooks.condition(pw.Step(0, STEPS, 900, 800), tiny64.encode([PROMPT], [""]))
    places, inner = tiny64.words(PROMPT).find("a red car"), tiny64.encode(["a red car"], [""]).keys[0]
    torch.testing.assert_close(text.values[0, list(places)], inner[1 : 1 + len(places)])
    assert text.keys is not text.values and hooks.keys[0].shape == (2, 77, 24)
    assert bound.encode(["a red car"]).keys.equal(inner[None])


@VARIANTS
def test_rows_and_images_are_steered_one_by_one(tiny, variant):
    control = pw.StructuredDiffusion(PHRASES, variant, prompts=(1,))
    both = run(tiny, [PROMPT, PROMPT, OTHER], [control])
    plain = run(tiny, [PROMPT, OTHER], [])
    torch.testing.assert_close(both.latents[[0, 2]], plain.latents, rtol=1e-4, atol=1e-4)
    assert (both.latents[1] - plain.latents[0]).abs().max() > 1e-4
    alone = run(tiny, [PROMPT], [pw.StructuredDiffusion(PHRASES, variant)], pw.noise_for(tiny, 1, 2)[1:])
    torch.testing.assert_close(alone.latents[0, 0], both.latents[1, 1], rtol=1e-4, atol=1e-4)
    assert both.reports[0] == {"phrases": {"1": list(PHRASES)}}


def test_runs_in_shared_passes_are_as_if_alone(tiny):
    noise = pw.noise_for(tiny, 1)
    jobs = [
        Job([PROMPT], noise, STEPS, 3.0, [pw.StructuredDiffusion(PHRASES)]),
        Job([OTHER], noise, STEPS, 3.0),
        Job([PROMPT], noise, STEPS, 3.0, [pw.StructuredDiffusion(PHRASES, "keys"), pw.RecordMaps()]),
    ]
    for together, job in zip(sample_jobs(tiny, jobs), jobs, strict=True):
        alone = sample_jobs(tiny, [job])[0]
        torch.testing.assert_close(together.latents, alone.latents, rtol=1e-4, atol=1e-4)
    maps = alone.hooks[1].maps.mean(0)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), rtol=1e-4, atol=1e-4)


def test_only_cross_attention_makes_keys_of_a_text():
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="cross-attention"):
        Rows(x, x, x, Layout(("cond",), 1)).keys_of(torch.zeros(1, 5, 6))


@VARIANTS
@pytest.mark.parametrize("kind", ["bfloat16", "sdxl"])
def test_other_networks(tokenizer, kind, variant):
    model = pw.load(build_sdxl(tokenizer) if kind == "sdxl" else build_tiny(tokenizer).to(torch.bfloat16))
    plain, steered = (run(model, [PROMPT], c) for c in ([], [pw.StructuredDiffusion(PHRASES, variant)]))
    assert torch.isfinite(steered.latents).all()
    assert (plain.latents - steered.latents).abs().max() > 1e-4


def test_with_other_controls(tiny):
    control = pw.StructuredDiffusion(PHRASES, "keys")
    placed = pw.DirectedDiffusion({"cat": (0, 0, 0.5, 1)})
    made = run(tiny, [PROMPT], [control, placed, pw.RecordMaps()])
    again = run(tiny, [PROMPT], [control, placed])
    assert made.latents.equal(again.latents)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (pw.StructuredDiffusion(("a red bike",)), "not a word"),
        (pw.StructuredDiffusion(((5, 400),)), "span must satisfy"),
        (pw.StructuredDiffusion((PROMPT,)), "the whole prompt"),
        (pw.StructuredDiffusion(PHRASES, prompts=(2,)), "rows 0 to 0"),
    ],
)
def test_bad_parameters(tiny, control, message):
    with pytest.raises(ValueError, match=message):
        run(tiny, [PROMPT], [control])


def test_a_wrong_variant_and_no_effect(tiny):
    with pytest.raises(NoEffect):
        run(tiny, [PROMPT], [pw.StructuredDiffusion((PROMPT,))])
    with pytest.raises(ValueError, match="variant"):
        pw.StructuredDiffusion(PHRASES, "both").bind(Job([PROMPT], pw.noise_for(tiny, 0), 2).bind(tiny)[0])


def test_joint_attention_is_refused(tokenizer):
    with pytest.raises(ValueError, match="joint"):
        run(pw.load(build_flux(tokenizer)), [PROMPT], [pw.StructuredDiffusion(PHRASES)])


@pytest.mark.parametrize("phrases", [None, PHRASES, ((0, 11), (20, 29))])
def test_recipe_round_trip(phrases):
    control = pw.StructuredDiffusion(phrases, "keys")
    assert control_from_dict(json.loads(json.dumps(control_as_dict(control)))) == control


def test_brackets():
    assert bracketed("[a [red] car] and [a bike]") == ("a red car and a bike", ((0, 9), (2, 5), (14, 20)))
    assert bracketed("a cat") == ("a cat", ())
    for wrong in ("[a cat", "a cat]", "[] cat", "][a"):
        with pytest.raises(ValueError, match="Received"):
            bracketed(wrong)


def phrases_of(prompt: str) -> list[str]:
    return [prompt[a:b] for a, b in noun_phrases(prompt)]


def test_noun_phrases():
    pytest.importorskip("spacy")
    assert phrases_of("a red car and a blue bike") == ["a red car and a blue bike", "a red car", "a blue bike"]
    assert phrases_of("a dog wearing a red hat sits on a bench.") == [
        "a dog wearing a red hat", "a dog", "a red hat", "a bench",
    ]  # fmt: skip
    assert phrases_of("dogs") == []


def test_phrases_are_found_in_each_prompt(tiny):
    pytest.importorskip("spacy")
    made = run(tiny, [PROMPT, OTHER], [pw.StructuredDiffusion()], steps=1)
    assert "a red car" in made.reports[0]["phrases"]["0"] and "a blue car" in made.reports[0]["phrases"]["1"]
    assert PROMPT not in made.reports[0]["phrases"]["0"]


def test_without_a_parser(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    parser.cache_clear()
    with pytest.raises(NoParser, match="promptweave\\[nlp\\]"):
        noun_phrases("a red car")
    parser.cache_clear()


def test_compose(tiny_folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(
            ["compose", "[a black cat] [next to [a red car]]", "--model", str(tiny_folder), "--steps", "2",
             "--variant", "keys", "-o", str(tmp_path / "run")]
        )  # fmt: skip
    out = capsys.readouterr().out
    assert "└── next to a red car\n    └── a red car" in out
    assert "keys of the prompt and of 3 separately encoded phrases" in out
    pictures = ("steered.png", "plain.png", "comparison.png")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*pictures, "steered.json"}
    for name in pictures:
        assert pw.replay(tmp_path / "run" / name, model=pw.load(str(tiny_folder))).matches
    for prompt, message in (("[a cat", "Every bracket must be closed"), ("dogs", "Put brackets around it")):
        with pytest.raises(SystemExit):
            main(["compose", prompt, "--model", str(tiny_folder), "-o", str(tmp_path / "bad")])
        assert message in capsys.readouterr().err


def test_measure_judges_colours():
    scene = two_colours(random.Random(1))
    first, second = scene.things
    things, regions = {first.noun: 0.9, second.noun: 0.8}, dict[str, np.ndarray]()
    right = Sight(things, "snow", "photo", regions, {first.noun: first.colour, second.noun: second.colour})
    crossed = Sight(things, "snow", "photo", regions, {first.noun: second.colour, second.noun: second.colour})
    assert judge([scene, scene], [right, crossed]) == (0.5, 0.75, 0.25)
