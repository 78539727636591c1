"""Whatever a person can type answers in one line; notebooks show images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import promptweave as pw
from promptweave.core.control import Control
from promptweave.core.fields import changed
from promptweave.core.shown import short
from promptweave.editing.replay import Replay
from promptweave.evaluate.edit_pairs import EditPair
from promptweave.finding.found import Found, Point
from promptweave.finding.verdicts import Verdict
from promptweave.perception.perceive import Perceived

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
LONGEST = 250


@pytest.fixture(scope="module")
def made(tiny) -> dict[str, object]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    mask = tuple((1.0,) * 64 for _ in range(64))
    result = pw.edit(SOURCE, TARGET, model=tiny, steps=2, maps=True, mask=mask, blend="dog", image=image)
    recording = pw.record(SOURCE, model=tiny, steps=2)
    point = Point({"cross": 0.4}, Verdict(0.9, 21.0), 1.0, result)
    seen = pw.look(SOURCE, model=tiny, steps=2, self_attention=True, every_step=True)
    swept = pw.sweep(
        recording, TARGET, model=tiny, rows=("cross", (0, 0.5)), columns=("threshold", (0.2,)), blend="dog"
    )  # fmt: skip
    return {
        "model": tiny, "result": result, "recipe": result.recipe, "sample": result.sample, "recording": recording,
        "track": recording.track, "inverted": result.inverted, "control": result.recipe.controls[-1],
        "maps": pw.edit_maps(result), "look": seen, "words": result.sample.run.words[0], "gallery": seen.every_step,
        "self": seen.self_attention, "word maps": seen.words, "point": point, "sweep": swept,
        "found": Found((point,), (point,), point, "", "maps", "SSIM", 1, 1),
        "invert": pw.invert(SOURCE, image=image, model=tiny, steps=2), "replay": Replay(result, image, 0, ()),
        "segmented": pw.segment(image, ("cat", "dog"), model=tiny), "pair": EditPair("one", "0", SOURCE, TARGET),
        "perceived": Perceived("depth", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4))), "window": pw.Window(0, 1),
        "picture": result.recipe.picture, "settings": pw.Settings(),
        "many": pw.Recipe("word " * 200, ("word " * 200,) * 9, seed=3, images=4),
    }  # fmt: skip


def test_every_answer_is_one_short_line(made):
    for name, value in made.items():
        text = repr(value)
        assert "\n" not in text and len(text) <= LONGEST and "tensor(" not in text and "array(" not in text, (
            name,
            text,
        )
    assert repr(made["result"]) == (
        f"Result('{SOURCE}' -> '{TARGET}', of an image, Replace, LocalBlend, seed 0, 2 steps, tiny)"
    )
    assert repr(made["recording"]).startswith(f"Recording('{SOURCE}', seed 0, 2 steps, tiny, ")
    assert repr(made["model"]) == "UNetModel(tiny, float32, cpu)"
    assert "mask=((1.0, 1.0, 1.0, ... 32)" in repr(made["control"])


def test_controls_say_what_differs_from_their_defaults():
    assert repr(pw.Replace(cross=0.5)) == "Replace(cross=0.5)" and repr(pw.MasaCtrl()) == "MasaCtrl()"

    class Mine(Control):
        def __repr__(self) -> str:
            return "mine"

    assert repr(Mine()) == "mine"


def test_notebooks_get_images(made):
    for name in ("result", "recording", "sweep", "look"):
        page = made[name]._repr_html_()
        assert page.startswith("<figure><img alt=") and "base64," in page and "cat" in page and "<script" not in page
    shown = pw.Recipe("<script>", seed=0)
    assert "<script" not in type(made["result"])._repr_html_(_with(made["result"], shown))


def _with(result: pw.Result, recipe: pw.Recipe) -> pw.Result:
    from dataclasses import replace

    return replace(result, recipe=replace(recipe, targets=(TARGET,)))


def test_short_values():
    assert short(torch.zeros(2, 3)) == "Tensor [2, 3]" and short((1,)) == "(1,)" and short("a" * 99)[-2:] == "…'"
    assert (
        short({str(i): i for i in range(9)}).endswith("... 9}") and changed(pw.Settings(seed=3)) == "Settings(seed=3)"
    )


def test_names_are_the_public_ones():
    names = dir(pw)
    assert {"edit", "Replace", "__version__", "load"} <= set(names)
    assert not [name for name in names if name.startswith("_") and name not in ("__version__", "__doc__")]
    assert not {"editing", "core", "methods"} & set(names)
