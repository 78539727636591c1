"""Views of runs: what is recorded equals what was computed, and looking changes nothing."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from families import BUILDERS
from PIL import Image

import promptweave as pw
from promptweave.editing.record import TooLarge
from promptweave.editing.recorders import columns, named
from promptweave.maps.edit_maps import edit_maps
from promptweave.maps.look import look
from promptweave.maps.self_attention import SelfMaps
from promptweave.maps.statistics import covering, statistics, write_statistics
from promptweave.models.load import load
from promptweave.view.aggregate import enlarged
from promptweave.view.animate import save_animation
from promptweave.view.names import map_name

PROMPT = "a photo of a cat riding a bike, in the snow"
SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a red bike"


@pytest.fixture(scope="module")
def seen(tiny):
    return look(
        PROMPT,
        model=tiny,
        steps=4,
        steps_shown=(0, 2, 50),
        layers=("all",),
        heads=True,
        self_attention=True,
        special=True,
    )  # fmt: skip


def test_maps_of_all_tokens_sum_to_one_at_each_pixel(tiny):
    for grid in (None, 8, 16, "all"):
        maps = pw.word_maps(PROMPT, model=tiny, steps=2, grid=grid)
        torch.testing.assert_close(maps.attention.sum(-1).mean(), torch.tensor(1.0), atol=0.01, rtol=0)
        if grid != "all":  # enlarging cuts off the undershoot, which adds a little
            torch.testing.assert_close(maps.attention.sum(-1), torch.ones(maps.attention.shape[:2]))
    shares = maps.renormalised()
    total = sum(shares.of(word) for word, _ in shares.words)
    torch.testing.assert_close(total, torch.ones_like(total))
    with pytest.raises(ValueError, match="have the grids 16x16, 8x8. Received 5"):
        pw.word_maps(PROMPT, model=tiny, steps=2, grid=5)


def test_a_gallery_has_every_step_layer_and_head_and_they_average_to_the_whole(tiny, seen):
    gallery = seen.gallery
    assert gallery.steps.keys() == {0, 2, 50} and gallery.steps[50][0] == 3
    assert gallery.notes == ("Step 50 is past the end; step 3 is shown instead.",)
    sites = [site for site in tiny.sites((16, 16)) if site.kind == "cross"]
    assert set(gallery.maps) == {(step, s.name, h) for step in (0, 2, 50) for s in sites for h in range(s.heads)}
    where = [site for site in sites if site.grid == tiny.map_grid((16, 16))]
    heads = [torch.stack([gallery.of("cat", 2, s.name, h) for h in range(s.heads)]).mean(0) for s in where]
    torch.testing.assert_close(torch.stack(heads).mean(0), seen.by_step.of("cat", 2))
    every = look(PROMPT, model=tiny, steps=4, every_step=True)
    mean = torch.stack([every.every_step.of("bike", step) for step in range(4)]).mean(0)
    torch.testing.assert_close(mean, every.words.of("bike"))
    torch.testing.assert_close(mean, pw.word_maps(PROMPT, model=tiny, steps=4).of("bike"))


def test_self_attention_of_a_run(seen):
    found = seen.self_attention
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(found.attention.shape[:2]))
    flat = found.components(6).flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.of_pixel(31, 0), found.attention[0, -1].reshape(found.attention.shape[:2]))
    with pytest.raises(ValueError, match="pixels 0 to 31 by 0 to 31"):
        found.of_pixel(32, 0)


def test_sheets_files_and_animations(seen, tmp_path):
    assert seen.by_step.sheet().width > 10 * 192
    assert seen.gallery.sheet("cat").width > seen.by_step.sheet("cat", on_picture=True).width
    with pytest.raises(ValueError, match="Choose one of <start>, a, photo"):
        seen.gallery.sheet()
    with pytest.raises(ValueError, match="'cow' has no map"):
        seen.gallery.sheet("cow")
    with pytest.raises(ValueError, match="There is no map time_step_1_8x8"):
        seen.by_step.of("cat", 1, "8x8")
    files = seen.by_step.save(tmp_path / "files", side=32)
    assert len(files) == 3 * len(seen.by_step.words)
    assert files[4].name == f"{map_name(0, seen.by_step.places[0][0])}_4_a-2.png"
    with Image.open(files[4]) as image:
        assert image.size == (32, 32)
    for kind in ("gif", "webp"):
        with Image.open(save_animation(seen.by_step.frames(), tmp_path / f"a.{kind}")) as image:
            assert image.n_frames == 3
    with pytest.raises(ValueError, match=r"a \.gif, \.webp or \.mp4 file"):
        save_animation(seen.by_step.frames(), tmp_path / "a.avi")
    assert seen.self_attention.component_sheet(3).height and seen.self_attention.pixel_sheet((3, 4)).height


def test_statistics_as_csv_and_json(seen, tmp_path):
    square = np.zeros((32, 32), bool)
    square[:16, :16] = True
    rows = statistics(seen.by_step, masks={"cat": square})
    assert len(rows) == 3 * len(seen.by_step.every)
    cat = next(row for row in rows if row.word == "cat")
    values = seen.by_step.of("cat", 0)
    p = (values / values.sum()).double()
    assert cat.entropy == pytest.approx(float(-(p * p.log()).sum()))
    assert cat.evenness == pytest.approx(cat.entropy / np.log(values.numel()))
    assert cat.share == pytest.approx(float(values.mean()))
    hot = enlarged(values[..., None].float(), (32, 32))[..., 0].numpy()
    hot = hot > 0.5 * hot.max()
    assert cat.iou == pytest.approx((hot & square).sum() / (hot | square).sum()) and 0 < cat.iou < 1
    assert next(row for row in rows if row.word == "<start>").iou is None
    again = json.loads(write_statistics(rows, tmp_path / "s.json").read_text())
    assert again[0]["word"] == "<start>" and len(again) == len(rows)
    with write_statistics(rows, tmp_path / "s.csv").open() as file:
        table = list(csv.DictReader(file))
    assert float(table[5]["share"]) == pytest.approx(rows[5].share) and table[0]["iou"] == ""
    with pytest.raises(ValueError, match=".csv or .json"):
        write_statistics(rows, tmp_path / "s.txt")
    with pytest.raises(ValueError, match="'cow' has no map"):
        statistics(seen.by_step, masks={"cow": square})
    half = torch.zeros(4, 4)
    half[:2] = 1
    assert covering(half, np.kron(half.numpy() > 0, np.ones((8, 8), bool))) == 1


def test_what_would_be_too_large_is_refused_before_the_run(tiny):
    def never(*_: object) -> None:
        raise AssertionError("the run has begun")

    with pytest.raises(TooLarge, match=r"budget of 0.0 MB. These need 0.3 MB"):
        look(PROMPT, model=tiny, steps=4, layers=("all",), heads=True, budget=1000, progress=never)
    with pytest.raises(ValueError, match="Names: down_cross_0_res_16"):
        look(PROMPT, model=tiny, steps=4, layers=("sideways",))


def test_the_estimate_is_what_is_kept(tiny, seen):
    from promptweave.core.record_maps import RecordMaps
    from promptweave.core.site import Sites
    from promptweave.editing.edit import run
    from promptweave.editing.plan import recipe_for
    from promptweave.editing.recorders import bound

    recipe = recipe_for(tiny, PROMPT, steps=3)
    for recorder in (
        RecordMaps(Sites("cross"), by_site=True, by_step=True, steps=(0, 2)),
        RecordMaps(Sites("cross"), by_site=True, by_head=True, columns=((0, 3, 4),)),
        RecordMaps(Sites("self"), by_step=True),
        RecordMaps(),
    ):
        hook = run(recipe, tiny, watch=[recorder]).watched[0]
        kept = sum(x.numel() * x.element_size() for x in hook.maps.sums.values())
        assert recorder.estimate(bound(recipe, tiny)) == kept
    with pytest.raises(ValueError, match="by_head without by_site"):
        run(recipe, tiny, watch=[RecordMaps(by_head=True)])
    with pytest.raises(ValueError, match="0 to 2, those of the run. Received 3"):
        run(recipe, tiny, watch=[RecordMaps(steps=(3,))])


@pytest.mark.parametrize("blend", [(), ("dog",)])
def test_watching_an_edit_changes_no_bit(tiny, blend):
    made = [pw.edit(SOURCE, TARGET, model=tiny, steps=3, blend=blend, maps=maps) for maps in (False, True)]
    assert torch.equal(made[0].sample.latents, made[1].sample.latents)
    assert made[0].report == made[1].report and made[0].recipe == made[1].recipe
    with pytest.raises(ValueError, match="Edit with maps=True"):
        edit_maps(made[0])


def test_source_beside_target(tiny):
    views = edit_maps(pw.edit(SOURCE, TARGET, model=tiny, steps=4, blend="dog", maps=True))
    kinds = [(pair.kind, pair.source, pair.target) for pair in views.pairs()]
    assert ("swapped", "cat", "dog") in kinds and ("added", None, "red") in kinds
    added = views.pairs()[kinds.index(("added", None, "red"))]
    assert not views.before(added).any() and torch.equal(views.difference(added), views.after(added))
    sheets = views.sheet(), views.sheet(own=True)
    assert sheets[0].width > 8 * 192 and sheets[0].height == sheets[1].height
    assert all(np.asarray(sheet)[: 2 * 192].std() > 20 for sheet in sheets), "pictures and maps are drawn"
    kept = views.pairs()[kinds.index(("kept", "riding", "riding"))]
    assert not torch.equal(views.after(kept), views.after(kept, own=True)), "an injected map is not the target's own"
    assert sheets[0].tobytes() != sheets[1].tobytes()
    assert views.alignment_picture().width > 200 and views.mask_sheet().height > 192
    masks = views.masks
    assert [step for _, step in masks] == [0, 1, 2, 3] and masks[1, 3].shape == (16, 16)
    areas = views.result.report["controls"][-1]["mask_area"][1]
    assert [float(mask.float().mean()) for mask in masks.values()] == pytest.approx(areas)


def test_the_mask_is_where_the_latents_differ(tiny):
    steps: list[torch.Tensor] = []
    made = pw.edit(
        SOURCE, "a photo of a dog riding a bike", model=tiny, steps=4, blend="dog", maps=True, blend_start=0,
        progress=lambda _, z: steps.append(z.clone()),
    )  # fmt: skip
    views = edit_maps(made)
    for (_, step), mask in views.masks.items():
        assert torch.equal((steps[step][1] != steps[step][0]).any(1)[0], mask)


def test_an_edit_that_injects_everything_has_no_difference(tiny):
    controls = [pw.Replace(cross=1.0, self_attention=1.0)]
    views = edit_maps(pw.edit(SOURCE, SOURCE.replace("cat", "dog"), model=tiny, steps=3, controls=controls, maps=True))
    for pair in views.pairs():
        torch.testing.assert_close(views.difference(pair), torch.zeros_like(views.before(pair)), atol=1e-6, rtol=0)
    assert any(views.difference(pair, own=True).abs().max() > 1e-4 for pair in views.pairs())
    with pytest.raises(ValueError, match="Edit with blend"):
        views.mask_sheet()


@pytest.mark.parametrize("family", ["Stable Diffusion XL", "Stable Diffusion 3", "FLUX.1-dev", "Latent diffusion (KL)"])
def test_every_family(tokenizer, family):
    model = load(BUILDERS[family](tokenizer))
    found = look(SOURCE, model=model, steps=2, layers=("all",), steps_shown=(0, 9), self_attention=True, special=True)
    words = model.words(SOURCE)
    assert [name for name, _ in found.words.words if name[0] != "<"] == [n for n, _ in named(words)]
    assert isinstance(found.self_attention, SelfMaps) and found.gallery.sheet("cat").width > 192
    assert found.self_attention.components(3).shape[0] == 3
    flat = found.words.attention[..., list(columns(words))].sum(-1)
    assert (flat > 0).all() and (flat < 1 + 1e-5).all()
    shares = found.words.renormalised()
    total = torch.stack([shares.of(name) for name, _ in shares.words]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))
    window = {"joint": 0.5} if any(site.kind == "joint" for site in model.sites((16, 16))) else {}
    views = edit_maps(pw.edit(SOURCE, TARGET, model=model, steps=2, maps=True, **window))
    assert views.sheet().width > 192 and len(views.maps) == 2
    joint = [site for site in model.sites((16, 16)) if site.kind == "joint"]
    if joint:  # the pixels' attention to pixels and to text is all there is
        text = look(SOURCE, model=model, steps=2).words.attention.sum(-1)
        pixels = found.self_attention.attention.sum(-1)
        assert (text + pixels < 1 + 1e-4).all() and (pixels > 0).all()


def test_views_of_an_edit_of_a_recording_are_those_of_the_edit(tiny):
    recording = pw.record(SOURCE, model=tiny, steps=4)
    views = [edit_maps(pw.edit(source, TARGET, model=tiny, steps=4, maps=True)) for source in (recording, SOURCE)]
    for one, other in zip(views[0].maps, views[1].maps, strict=True):
        torch.testing.assert_close(one.attention, other.attention, atol=1e-5, rtol=1e-3)


def test_views_of_a_flow_edit(tokenizer):
    model = load(BUILDERS["Stable Diffusion 3"](tokenizer))
    views = edit_maps(pw.edit(SOURCE, TARGET, model=model, steps=4, kind="flow", maps=True))
    assert views.sheet(words=("dog",)).width > 2 * 192
    with pytest.raises(ValueError, match="None of the words"):
        views.sheet(words=("cow",))
