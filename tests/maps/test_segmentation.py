"""Images that exist: looking at them, and which of their pixels belong to which word."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import BUILDERS
from PIL import Image

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.core.record_maps import refined
from promptweave.editing.fitting import Fitting
from promptweave.editing.masks import Frame
from promptweave.editing.who_reads import Unread
from promptweave.evaluate.metrics import iou
from promptweave.maps.look import look
from promptweave.maps.segment_parts import colours, enlarged_labels, mask_names
from promptweave.maps.segmentation import compared
from promptweave.models.load import load
from promptweave.words.tokens import WordNotFound
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing

PROMPT = "a photo of a cat riding a bike"
CAT_ON_BIKE = Scene(
    "grass", "photo", "riding", (Thing("bike", 0.5, 0.93, 0.66, "red"), Thing("cat", 0.5, 0.57, 0.48)), 7
)


@pytest.fixture(scope="module")
def noise_picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_a_drawn_image_is_taken_apart():
    drawn, (bike, cat) = render(CAT_ON_BIKE, 300)
    found = pw.segment(Image.fromarray(drawn), ("cat", "bike"), model="toybox-fast", times=(0.5,), noises=1)
    assert found.labels.shape == (300, 300) and found.labels.dtype == np.uint8
    assert iou(found.mask("cat"), cat) > 0.7 and iou(found.mask("bike"), bike) > 0.45
    assert iou(found.labels == 0, ~(bike | cat)) > 0.85
    rough = enlarged_labels(compared(found.maps, found.seen, found.how, 2, refine=0), found.picture.fitting)
    assert iou(rough == 1, cat) < iou(found.mask("cat"), cat)


@pytest.mark.parametrize("family", ["LCM", "Stable Diffusion XL", "Stable Diffusion 3.5 medium", "FLUX.1-dev"])
def test_every_family(tokenizer, noise_picture, family):
    model = load(BUILDERS[family](tokenizer))
    options = {"model": model, "image": noise_picture, "size": "auto", "times": (0.2, 0.6), "noises": 1}
    seen = look(PROMPT, self_attention=True, layers=("all",), every_step=True, **options)
    assert seen.words.picture.size == (seen.result.recipe.size[1], seen.result.recipe.size[0])
    steps = [seen.every_step.of("cat", n) for n in (0, 1)]
    torch.testing.assert_close(torch.stack(steps).mean(0), seen.words.of("cat"), atol=1e-6, rtol=1e-4)
    assert [time for _, time in seen.every_step.steps.values()] == [600, 200]
    assert [seen.gallery.label(n) for n in (0, 1)] == ["time 600", "time 200"] and seen.gallery.sheet("cat").width > 100
    if family == "LCM":
        again, other = (pw.word_maps(PROMPT, seed=seed, **options).of("bike") for seed in (0, 1))
        torch.testing.assert_close(again, seen.words.of("bike"))
        assert not torch.equal(again, other)
    made = pw.segment(noise_picture, ("cat", "red bike"), model=model, prompt=PROMPT.replace("bike", "red bike"),
                      times=(0.5,), noises=1)  # fmt: skip
    assert made.labels.shape == (40, 60) and made.scores.shape[0] == 3


def test_along_an_inversion_as_before(tiny, noise_picture):
    seen = look(PROMPT, image=noise_picture, inversion="ddim", steps=2, model=tiny)
    assert seen.result.inverted is not None and seen.words.of("cat").shape == (16, 16)
    made = pw.segment(noise_picture, ("cat",), model=tiny, inversion="ddim", steps=2)
    assert made.seen.result.inverted is not None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"times": (0.3,)}, "times"), ({"noises": 2}, "noises"), ({"image": 1, "steps": 3}, "steps"),
        ({"image": 1, "guidance": 3.0}, "guidance"), ({"image": 1, "negative": "blur"}, "negative"),
        ({"image": 1, "times": (0.3,), "inversion": "ddim"}, "inversion"),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_refused(tiny, noise_picture, options, named):
    given = {**options, "image": noise_picture} if "image" in options else options
    with pytest.raises(Unread, match=named):
        look(PROMPT, model=tiny, **given)


def test_refinement_is_a_product_with_the_rows_of_self_attention():
    generator = torch.Generator().manual_seed(0)
    attention, maps = torch.rand(3, 5, 15, generator=generator), torch.rand(3, 5, 2, generator=generator)
    square = attention.reshape(15, 15)
    square = square / square.sum(1, keepdim=True)
    want = (torch.linalg.matrix_power(square, 3) @ maps.reshape(15, 2)).reshape(3, 5, 2)
    torch.testing.assert_close(refined(maps, attention, 3), want)
    torch.testing.assert_close(refined(maps, attention, 0), maps)


def test_labels_in_the_pixels_of_the_given_image():
    scores = torch.zeros(2, 4, 4)
    scores[0], scores[1, :, 2:] = 0.5, 1.0
    assert np.array_equal(enlarged_labels(scores, Fitting((8, 8), (16, 16))), np.repeat([[0] * 4 + [1] * 4], 8, 0))
    cropped = enlarged_labels(scores, Fitting((8, 12), (16, 16)))
    assert not cropped[:, :6].any() and cropped[:, 6:10].all() and not cropped[:, 10:].any()
    padded = enlarged_labels(scores, Fitting((4, 8), (16, 16), "pad"))
    assert padded.shape == (4, 8) and padded[:, 4:].all() and not padded[:, :4].any()
    stretched = enlarged_labels(scores, Fitting((6, 20), (16, 16), "stretch"))
    assert stretched[:, 10:].all() and not stretched[:, :10].any()


def test_files_from_the_command_line(tmp_path, capsys, monkeypatch):
    drawn = render(CAT_ON_BIKE, 200)[0][20:]
    Image.fromarray(drawn).save(tmp_path / "photo.png")
    folder = tmp_path / "out"
    words = ("--words", "cat,red bike", "--model", "toybox-fast", "--times", "0.5", "--noises", "1")
    run = ["segment", str(tmp_path / "photo.png"), *words, "--background", "grass", "-o", str(folder)]
    with pytest.raises(SystemExit) as end:
        main(run)
    assert end.value.code == 0 and "red bike:" in capsys.readouterr().out
    record = json.loads((folder / "segments.json").read_text())
    assert record["prompt"] == "a photo of a cat and a red bike, grass" and record["picture"]["times"] == [0.5]
    with Image.open(folder / "labels.png") as labels:
        numbers = np.asarray(labels)
        assert labels.mode == "P" and labels.size == (200, 180) and labels.getpalette()[3:6] == list(colours(2)[1])
    for one in record["words"]:
        mask = np.asarray(Image.open(folder / one["mask"]))
        assert np.array_equal(mask > 0, numbers == one["label"]) and set(np.unique(mask)) <= {0, 255}
        assert one["fraction"] == pytest.approx((mask > 0).mean(), abs=1e-6)
    with pytest.raises(SystemExit) as end:
        main(run)
    assert end.value.code == 2 and "already holds a segmentation" in capsys.readouterr().err
    frame = Frame((120, 136), (15, 17), Fitting((180, 200), (120, 136)))
    assert np.any(frame.mask(pw.read_mask(folder / "mask-cat.png"))), "a mask is one that edits take"


def test_maps_of_an_image_from_the_command_line(tmp_path, capsys):
    Image.fromarray(render(CAT_ON_BIKE)[0]).save(tmp_path / "photo.png")
    run = ["maps", PROMPT, "--image", str(tmp_path / "photo.png"), "--times", "0.5,0.3", "--noises", "1"]
    with pytest.raises(SystemExit) as end:
        main(
            [*run, "--model", "toybox-dit", "--concepts", "cat,bike,grass", "-o", str(tmp_path / "maps.png"), "--quiet"]
        )
    assert end.value.code == 0 and (tmp_path / "maps-concepts.png").is_file()
    with pytest.raises(SystemExit) as end:
        main(["maps", PROMPT, "a dog", "--times", "0.3", "-o", str(tmp_path / "x.png")])
    assert end.value.code == 2 and "--times works with a single prompt" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["maps", PROMPT, "--concept-space", "cross", "-o", str(tmp_path / "x.png")])
    assert end.value.code == 2 and "needs --concepts" in capsys.readouterr().err


def test_bad_words(tiny, noise_picture):
    for words in ((), ("cat", "CAT"), ("",), ("cat", "snow")):
        with pytest.raises(ValueError, match="different words or phrases"):
            pw.segment(noise_picture, words, model=tiny, background=("snow",))
    with pytest.raises(WordNotFound, match="dog"):
        pw.segment(noise_picture, ("dog",), model=tiny, prompt=PROMPT)
    with pytest.raises(Unread, match="concept_space"):
        pw.segment(noise_picture, ("cat",), model=tiny, concept_space="cross")
    with pytest.raises(ValueError, match="refine"):
        pw.segment(noise_picture, ("cat",), model=tiny, refine=99)
    made = pw.segment(noise_picture, ("cat",), model=tiny, times=(0.2,), noises=1)
    with pytest.raises(ValueError, match="'dog' was not segmented"):
        made.mask("dog")
    assert list(mask_names(("a/b", "a b", "A_b"))) == ["mask-a-b.png", "mask-a-b-2.png", "mask-A_b.png"]
