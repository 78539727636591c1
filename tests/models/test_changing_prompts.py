"""Prompts that change from step to step: each step reads exactly the text that it would have alone."""

from __future__ import annotations

import json

import pytest
import torch
from families import build_sdxl
from hypothesis import given
from hypothesis import strategies as st
from tiny import build_tiny

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.core.control import NoEffect
from promptweave.words import suggest
from promptweave.words.changes import at_end, phases
from promptweave.words.emphasis import PromptSyntax

SETTINGS = {"steps": 4, "guidance": 2.0}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a [cat:dog:0.5]!", ["a cat!", "a cat!", "a dog!", "a dog!"]),
        ("a [red :0.25]car", ["a car", "a red car", "a red car", "a red car"]),
        ("a [red ::3]car", ["a red car", "a red car", "a red car", "a car"]),
        ("[cat:dog:1]", ["cat", "dog", "dog", "dog"]),
        ("[cat:dog:1.0]", ["cat"] * 4),
        ("[cat:dog:.6]", ["cat", "cat", "dog", "dog"]),
        ("[cat:dog:0]", ["dog"] * 4),
        ("[cat|dog]", ["cat", "dog", "cat", "dog"]),
        ("[a|b|c]", ["a", "b", "c", "a"]),
        ("[[a|b]:c:2]", ["a", "b", "c", "c"]),
        ("[a:[b:c:3]:1]", ["a", "b", "b", "c"]),
        ("[(a:1.2):[b]: 2 ] (d:1.3)", ["(a:1.2) (d:1.3)"] * 2 + ["[b] (d:1.3)"] * 2),
        ("([a:b:2]:1.5)", ["(a:1.5)"] * 2 + ["(b:1.5)"] * 2),
        (r"[a\:b:c\|d:2]", [r"a\:b"] * 2 + [r"c\|d"] * 2),
        ("[red] [a:b] 16:9 a|b (c|d) [e:f:1", ["[red] [a:b] 16:9 a|b (c|d) [e:f:1"] * 4),
    ],
)
def test_the_text_of_each_step(prompt, expected):
    assert list(phases(prompt, 4)) == expected
    assert len(set(expected)) == 1 or "|" in prompt or at_end(prompt) == expected[-1]


@given(st.text(alphabet=r"ab[]():|0.5\ "), st.integers(1, 5))
def test_any_text_has_a_text_for_each_step(prompt, steps):
    try:
        found = phases(prompt, steps)
    except PromptSyntax as error:
        assert "at most two texts" in str(error)
    else:
        assert len(found) == steps
        assert "[" in prompt or set(found) == {prompt}


class Switch(pw.Control):
    """Reads another prompt from a step on."""

    def __init__(self, model, prompt, negative, since):
        self.text, self.since = model.encode([prompt], [negative]), since

    def bind(self, run):
        return Switching(self)


class Switching(pw.Hooks):
    def __init__(self, control):
        self.control = control

    def condition(self, step, text):
        return text if step.index < self.control.since else self.control.text


@pytest.mark.parametrize("build", [build_tiny, build_sdxl])
@pytest.mark.parametrize("scheduler", ["ddim", "heun"])
def test_a_run_reads_each_text_at_its_steps(tokenizer, build, scheduler):
    model = pw.load(build(tokenizer), prompt_weights=True, scheduler=scheduler)
    noise = pw.noise_for(model, 3)
    made = pw.sample(model, ["a [cat:(squirrel:1.3) lion:0.5] car"], negative="[night:snow:2]", noise=noise, **SETTINGS)
    switch = Switch(model, "a (squirrel:1.3) lion car", "snow", 2)
    again = pw.sample(model, ["a cat car"], negative="night", noise=noise, controls=[switch], **SETTINGS)
    assert torch.equal(made.latents, again.latents)


def test_alternating_texts(tokenizer):
    model = pw.load(build_tiny(tokenizer), prompt_weights=True)
    noise, given = pw.noise_for(model, 0), {}
    made = pw.sample(model, ["a [cat|dog]"], noise=noise, steps=3, guidance=1)

    class Listen(pw.Control):
        def bind(self, run):
            return Listening()

    class Listening(pw.Hooks):
        def condition(self, step, text):
            given[step.index] = text.cond
            return text

    again = pw.sample(model, ["a [cat|dog]"], noise=noise, steps=3, guidance=1, controls=[Listen()])
    assert torch.equal(made.latents, again.latents)
    for step, text in enumerate(("a cat", "a dog", "a cat")):
        assert torch.equal(given[step], model.encode([text], [""]).cond)


def test_edits_maps_and_pictures(tokenizer):
    """Of words whose tokens keep their places: an edit of a prompt that changes, and into one."""
    model = pw.load(build_tiny(tokenizer), prompt_weights=True)
    prompt = "a photo of a [cat:dog:0.5] riding a bike"
    assert model.words(prompt).prompt == "a photo of a dog riding a bike"
    assert suggest(model.words(prompt), model.words("a photo of a dog riding a bike")) == "replace"
    made = pw.edit(prompt, prompt.replace("bike", "car"), model=model, blend="car", **SETTINGS)
    alone = pw.generate(prompt, model=model, **SETTINGS)
    near = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(made.sample.latents[0], alone.sample.latents[0], **near)
    assert dict(pw.word_maps(prompt, model=model, **SETTINGS).words)["dog"]
    given = pw.edit(prompt, "a photo of a dog riding a car", image=alone.source, model=model, **SETTINGS)
    assert (given.sample.latents[0] != given.sample.latents[1]).any()
    recording = pw.record(prompt, model=model, **SETTINGS)
    kept = pw.edit(recording, prompt.replace("bike", "car"), model=model)
    torch.testing.assert_close(kept.sample.latents[0], alone.sample.latents[0], **near)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: pw.generate("a [cat:dog:9]", model=m, **SETTINGS), NoEffect, 'not become "a dog"'),
        (lambda m: pw.generate("a [cat:dog:1.0]", model=m, **SETTINGS), NoEffect, 'not become "a dog"'),
        (lambda m: pw.generate("[a:b:2] [c:d:9]", model=m, **SETTINGS), NoEffect, 'not become "b d"'),
        (lambda m: pw.generate("a", negative="[b:c:9]", model=m, **SETTINGS), NoEffect, 'not become "c"'),
        (lambda m: pw.word_maps("a [cat:red cat:2]", model=m, **SETTINGS), ValueError, '"a cat" and "a red cat" as'),
        (lambda m: pw.edit("a [red :2]cat", "a dog", model=m, **SETTINGS), ValueError, "generate without controls"),
        (
            lambda m: pw.generate("a [cat:dog:2]", model=m, controls=[pw.SemanticGuidance({"[a:b:1]": 5.0})],
                                  **SETTINGS),
            PromptSyntax, r"\[a:b:1\] changes .* only the prompts and the negative",
        ),
        (
            lambda m: pw.generate("a red [cat:dog:2]", model=m, controls=[pw.StructuredDiffusion(("red dog",))],
                                  **SETTINGS),
            PromptSyntax, "no such parts",
        ),
        (lambda m: pw.generate("a [a:b:c:2]", model=m, **SETTINGS), PromptSyntax, "at most two texts"),
        (lambda m: pw.generate("a [cat:" + "red " * 80 + ":2]", model=m, **SETTINGS), ValueError, "Prompt 1 is longer"),
        (lambda m: pw.generate("[" + "red " * 80 + ":a cat:2]", model=m, **SETTINGS), ValueError, "Prompt 1 is longer"),
    ],
)  # fmt: skip
def test_changes_that_cannot_be_read(tokenizer, call, error, message):
    with pytest.raises(error, match=message):
        call(pw.load(build_tiny(tokenizer), prompt_weights=True))


def test_the_command_line(tiny_folder, tmp_path, capsys):
    options = ["--model", str(tiny_folder), "--prompt-weights", "--steps", "2", "-o", str(tmp_path), "--json"]
    with pytest.raises(SystemExit) as end:
        main(["generate", "a [cat:dog:0.5]", *options])
    assert end.value.code == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["spans"][0][1]["word"] == "dog"
    assert pw.replay(tmp_path / "image.png").matches
    with pytest.raises(SystemExit):
        main(["compose", "[a [cat:dog:0.5]] and [a red car]", *options, "-f"])
    assert "Square brackets mark phrases here" in capsys.readouterr().err
