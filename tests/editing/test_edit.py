"""edit(), what it gives back, what it writes, and replay."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import promptweave as pw
from promptweave.editing.recipe import BrokenRecipe, Recipe, control_as_dict, control_from_dict
from promptweave.editing.result import read_record

SOURCE = "a photo of a cat riding a bike"
SWAP = "a photo of a dog riding a bike"
PHRASE = "a photo of a black cat riding a bike at night"
FAST = {"steps": 3, "guidance": 3.0}


def test_kind_follows_from_the_prompts(tiny):
    """A swap gets Replace, a phrase Refine, both in one run each its own."""
    result = pw.edit(SOURCE, SWAP, PHRASE, model=tiny, **FAST)
    assert [(type(c).__name__, c.targets) for c in result.recipe.controls] == [("Replace", (1,)), ("Refine", (2,))]
    assert [type(c) for c in pw.edit(SOURCE, SWAP, model=tiny, **FAST).recipe.controls] == [pw.Replace]
    assert [type(c) for c in pw.edit(SOURCE, SWAP, model=tiny, kind="refine", **FAST).recipe.controls] == [pw.Refine]


def test_targets_together_are_targets_alone(tiny):
    together = pw.edit(SOURCE, SWAP, PHRASE, model=tiny, **FAST).sample.latents
    for row, target in enumerate((SWAP, PHRASE), 1):
        alone = pw.edit(SOURCE, target, model=tiny, **FAST).sample.latents
        # Measured: 2e-6; the batches are of other sizes, the sums in another order.
        assert float((together[row] - alone[1]).norm() / alone[1].norm()) < 2e-5


def test_images_are_seeds(tiny):
    """Image i of a run is the run of seed + i."""
    both = pw.edit(SOURCE, SWAP, model=tiny, images=2, seed=5, **FAST)
    second = pw.edit(SOURCE, SWAP, model=tiny, seed=6, **FAST)
    assert both.sample.pictures.shape == (2, 2, 32, 32, 3)
    assert np.abs(both.sample.pictures[:, 1].astype(int) - second.sample.pictures[:, 0]).max() <= 1
    assert not np.array_equal(both.sample.pictures[:, 0], both.sample.pictures[:, 1])


def test_weights_alone_edit_the_source(tiny):
    result = pw.edit(SOURCE, weights={"bike": 4.0}, model=tiny, **FAST)
    assert result.recipe.prompts == (SOURCE, SOURCE)
    assert not np.array_equal(result.sample.pictures[0], result.sample.pictures[1])


def test_compare_adds_the_target_without_control(tiny):
    result = pw.edit(SOURCE, SWAP, model=tiny, compare=True, **FAST)
    free = pw.generate(SWAP, model=tiny, **FAST)
    assert result.plain is not None and np.abs(result.plain[0, 0].astype(int) - np.asarray(free.source)).max() <= 1
    assert result.report["distance_uncontrolled"][0][0] != result.report["distance"][0][0]
    narrow = pw.edit(SOURCE, SWAP, model=tiny, **FAST).comparison()
    assert result.comparison().width > narrow.width


def test_report(tiny):
    made = pw.edit(
        SOURCE, SWAP, model=tiny, blend="dog", threshold=0.9, steps=5, cross=0.6, self_attention=0.4, maps=True
    )
    report, masks = made.report, pw.edit_maps(made).masks
    replace, blend = report["controls"]
    assert (replace["cross_steps"], replace["self_steps"]) == (3, 2)
    assert replace["cross_sites"] == report["sites"]["cross"] == 7
    assert blend["latent_steps"] == 4 and len(blend["mask_area"][1]) == 4
    assert blend["mask_area"][1] == pytest.approx([float(mask.float().mean()) for mask in masks.values()])
    assert 0 < min(blend["mask_area"][1]) and max(blend["mask_area"][1]) < 1
    swapped = [pair for pair in report["alignment"][0] if pair["kind"] != "kept"]
    assert [(pair["source"], pair["target"]) for pair in swapped] == [("cat", "dog")]
    assert report["distance"][0][0]["psnr"] < 60


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((SOURCE,), {}, "needs a target prompt, or weights"),
        ((SOURCE, SOURCE), {}, "has the source.s words"),
        ((SOURCE, SWAP), {"cross": 0, "self_attention": 0}, "needs a cross or a self window"),
        ((SOURCE,), {"weights": {"cat": 1.0}}, "a factor other than 1"),
        ((SOURCE,), {"weights": {"dog": 2.0}}, "dog"),
        ((SOURCE, SWAP), {"blend": "horse"}, "horse"),
        ((SOURCE, SWAP), {"cross": 1.2}, "0 <= start <= end <= 1"),
        ((SOURCE, SWAP), {"cross": float("nan")}, "fractions of the steps.. Received nan"),
        ((SOURCE, SWAP), {"guidance": float("nan")}, "finite"),
        ((SOURCE, SWAP), {"steps": 0}, "steps"),
        ((SOURCE, SWAP), {"steps": -3}, "steps"),
        ((SOURCE, SWAP), {"size": (31, 32)}, "multiples of 2"),
        ((SOURCE, SWAP), {"images": 0}, "images"),
        ((SOURCE, SWAP), {"seed": -1}, "seed"),
        (("", SWAP), {}, "empty"),
        ((SOURCE, " "), {}, "empty"),
        ((SOURCE, SWAP), {"threshold": 1.5, "blend": "dog"}, "threshold"),
    ],
)
def test_bad_input_is_one_clear_error(tiny, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        pw.edit(*arguments, model=tiny, **{**FAST, **options})


def test_words_beyond_the_models_length(tiny):
    """A word that the model does not read cannot be edited; the words it reads can."""
    filler = " ".join(["snow"] * 90)
    with pytest.raises(ValueError, match="Prompt 1 is longer than the 77 tokens"):
        pw.edit(f"a cat {filler}", f"a dog {filler}", model=tiny, **FAST)
    with pytest.raises(ValueError, match="read"):
        pw.edit(f"a cat {filler} bike", weights={"bike": 2.0}, truncate=True, model=tiny, **FAST)
    result = pw.edit(f"a cat {filler}", f"a dog {filler}", truncate=True, model=tiny, **FAST)
    assert not np.array_equal(result.sample.pictures[0], result.sample.pictures[1])


def test_a_drawn_mask_alone(tiny):
    """Inside the mask the edit, outside the source: in the latent exactly."""
    mask = [[float(x < 8) for x in range(16)]] * 16
    result = pw.edit(SOURCE, SWAP, model=tiny, mask=mask, blend_start=0.0, **FAST)
    source, edited = result.sample.latents[:, 0]
    assert (source[..., 8:] == edited[..., 8:]).all()
    assert not (source[..., :8] == edited[..., :8]).any()


def test_save_writes_everything_or_nothing(tiny, tmp_path, monkeypatch):
    result = pw.edit(SOURCE, SWAP, PHRASE, model=tiny, images=2, **FAST)
    names = {path.name for path in result.save(tmp_path / "a")}
    stems = {"source", "edit", "edit-2"}
    assert names == {f"{s}{t}.png" for s in stems for t in ("", "-seed-1")} | {"comparison.png", "edit.json"}
    with pytest.raises(FileExistsError, match="--force"):
        result.save(tmp_path / "a")
    pw.edit(SOURCE, SWAP, model=tiny, **FAST).save(tmp_path / "a", force=True)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "source.png",
        "edit.png",
        "comparison.png",
        "edit.json",
    }

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(json, "dumps", broken)
    with pytest.raises(OSError, match="disk full"):
        result.save(tmp_path / "b")
    assert not list((tmp_path / "b").iterdir()), "nothing half-written may stay behind"


def test_record_tells_everything(tiny_folder, tmp_path):
    result = pw.edit(SOURCE, SWAP, model=str(tiny_folder), blend="dog", weights={"dog": 2.0}, **FAST)
    result.save(tmp_path / "run")
    record = read_record(tmp_path / "run" / "edit.png")
    assert record["picture"] == {"prompt": 1, "image": 0}
    assert Recipe.from_dict(record["recipe"]) == result.recipe
    assert record["model"]["hash"] == pw.load(tiny_folder).fingerprint()
    assert {"torch", "diffusers", "promptweave"} <= set(record["versions"])
    assert {"word": "dog", "tokens": [5]} in record["spans"][1]
    assert read_record(tmp_path / "run" / "edit.json")["recipe"] == record["recipe"]


def test_controls_survive_json():
    controls = (
        pw.Replace({"dog": (0.1, 0.5), "default": 0.8}, (0.0, 0.3), 64, (1,), True),
        pw.Refine(0.7, pw.Window(0.1, 0.6)),
        pw.Reweight({"dog": -2}),
        pw.LocalBlend(("dog", "cat"), "bike", 0.4, mask=((0.0, 1.0), (1.0, 0.0)), combine="union"),
        pw.SharedStart(0.3),
    )
    for control in controls:
        again = control_from_dict(json.loads(json.dumps(control_as_dict(control))))
        assert control_as_dict(again) == control_as_dict(control) and type(again) is type(control)


@pytest.mark.parametrize("name", ["source.png", "edit.png", "edit-2-seed-4.png"])
def test_replay_is_pixel_equal(tiny_folder, tmp_path, name):
    options = {"cross": {"default": 0.8, "dog": 0.3}, "blend": "dog", "subtract": "bike", "seed": 3, "images": 2}
    pw.edit(SOURCE, SWAP, PHRASE.replace("cat", "dog"), model=str(tiny_folder), **options, **FAST).save(tmp_path / "r")
    replayed = pw.replay(tmp_path / "r" / name)
    assert replayed.matches and replayed.difference == 0 and not replayed.notes


def test_replay_notices_changes(tiny, tiny_folder, tmp_path):
    pw.edit(SOURCE, SWAP, model=str(tiny_folder), **FAST).save(tmp_path / "run")
    path = tmp_path / "run" / "edit.png"
    with Image.open(path) as image:
        info = image.info["promptweave"]
    from PIL.PngImagePlugin import PngInfo

    changed = json.loads(info)
    changed["recipe"]["seed"] += 1
    changed["versions"]["torch"] = "0.1"
    text = PngInfo()
    text.add_itxt("promptweave", json.dumps(changed))
    Image.open(path).save(tmp_path / "changed.png", pnginfo=text)
    replayed = pw.replay(tmp_path / "changed.png")
    assert not replayed.matches and any("torch was 0.1" in note for note in replayed.notes)
    Image.new("RGB", (8, 8)).save(tmp_path / "foreign.png")
    with pytest.raises(BrokenRecipe, match="carries no recipe"):
        pw.replay(tmp_path / "foreign.png")
    with pytest.raises(BrokenRecipe, match="no image to compare"):
        pw.replay(tmp_path / "run" / "edit.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BrokenRecipe, match="not JSON"):
        pw.replay(tmp_path / "broken.json")
    with pytest.raises(FileNotFoundError, match="no file"):
        pw.replay(tmp_path / "none.png")


def test_notebook_shows_a_picture(tiny):
    html = pw.edit(SOURCE, SWAP, model=tiny, **FAST)._repr_html_()
    assert html.startswith("<figure><img alt=") and "data:image/png;base64," in html


def test_word_maps(tiny):
    made = pw.word_maps("a cat next to a cat", model=tiny, steps=2, special=True)
    assert [word for word, _ in made.words] == ["<start>", "a", "cat", "next", "to", "a#2", "cat#2", "<end>"]
    assert made.attention.shape == (16, 16, 77)
    assert abs(float(made.attention.sum(-1).mean()) - 1) < 1e-4, "the maps of all tokens sum to one"
    assert not np.array_equal(made.of("cat"), made.of("cat#2"))
    strip = made.strip()
    assert 7 * 190 < strip.width < 8 * 210 and strip.height > 2 * 190, "nine tiles, seven in a row"
    assert made.strip(columns=9).height < strip.height
    with pytest.raises(ValueError, match="has no map"):
        made.of("dog")
