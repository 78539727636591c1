"""DDIM inversion against closed forms, diffusers' inverse scheduler, and its own way forward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler
from families import BUILDERS, build_sd3
from tiny import build_tiny

import promptweave as pw
from promptweave.editing.picture import BadPicture, Picture
from promptweave.inversion.ddim import CannotInvert, invert
from promptweave.inversion.pinned import Pinned
from promptweave.sampling.loop import latent_grid

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
STEPS = 5


def latents(model, seed: int = 0) -> torch.Tensor:
    return 0.7 * pw.noise_for(model, seed).double()


def photo(size: tuple[int, int] = (32, 32), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size[0] // 4, 0).repeat(size[1] // 4, 1)


def predicting(monkeypatch, model, function):
    """Put a closed form in the network's place."""

    def predict(self, z, t, context, tap=None, **options):
        return function(z, float(torch.as_tensor(t).flatten()[0]))

    monkeypatch.setattr(type(model), "predict", predict)


def test_a_constant_prediction_is_inverted_exactly(tiny64, monkeypatch):
    constant = torch.randn(4, 16, 16, dtype=torch.float64)
    predicting(monkeypatch, tiny64, lambda z, t: constant.expand_as(z))
    z = latents(tiny64)
    found = invert(tiny64, z, SOURCE, steps=20)
    again = pw.sample(tiny64, [SOURCE], noise=found.noise, steps=20, guidance=3.0).latents[0]
    torch.testing.assert_close(again, z, rtol=1e-10, atol=1e-10)
    assert len(found.path) == 21 and found.path[-1] is not found.noise
    assert (found.noise - z).abs().max() > 0.1


def test_data_of_unit_variance_are_multiplied_by_cosines(tiny64, monkeypatch):
    """For data N(0, I) the best prediction is sqrt(1 - a_t) x, and a step turns by the difference of two angles, here
    that of the levels and not of the latent: e is that of the level where the step ends."""
    schedule = tiny64.schedule()
    predicting(monkeypatch, tiny64, lambda z, t: (1 - schedule.level(t)) ** 0.5 * z)
    z, steps = latents(tiny64), schedule.steps(20)
    wanted = 1.0
    for step in reversed(steps):
        here, there = schedule.level(step.t_next), schedule.level(step.t)
        e = (1 - there) ** 0.5
        wanted *= math.sqrt(there / here) * (1 - math.sqrt(1 - here) * e) + math.sqrt(1 - there) * e
    torch.testing.assert_close(invert(tiny64, z, SOURCE, steps=20).noise, wanted * z, rtol=1e-6, atol=1e-8)


def test_a_constant_velocity_is_inverted_exactly(tokenizer, monkeypatch):
    model = pw.load(build_sd3(tokenizer))
    constant = torch.randn(model.channels, *(side // model.factor for side in model.default_size))
    predicting(monkeypatch, model, lambda z, t: constant.expand_as(z))
    z = 0.7 * pw.noise_for(model, 0)
    found = invert(model, z, SOURCE, steps=7)
    torch.testing.assert_close(found.noise, z + constant, rtol=1e-5, atol=1e-5)  # sigma goes from 0 to 1
    again = pw.sample(model, [SOURCE], noise=found.noise, steps=7, guidance=3.0).latents[0]
    torch.testing.assert_close(again, z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_way_is_that_of_diffusers_inverse_scheduler(tokenizer, kind):
    pipeline = build_tiny(tokenizer, prediction=kind).to(torch.float64)
    model = pw.load(pipeline)
    z = latents(model)
    path = invert(model, z, SOURCE, steps=10).path
    scheduler = DDIMInverseScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    context = model.encode([SOURCE], [""]).keys
    for t, ours in zip(scheduler.timesteps, reversed(path[:-1]), strict=True):
        with torch.no_grad():
            output = pipeline.unet(z, t, encoder_hidden_states=context).sample
        z = scheduler.step(output, t, z).prev_sample
        torch.testing.assert_close(ours, z, rtol=1e-5, atol=1e-5)  # theirs keeps its table in single precision


@pytest.mark.parametrize("family", BUILDERS)
def test_the_source_is_the_picture_in_every_family(family, tokenizer):
    model = pw.load(BUILDERS[family](tokenizer))
    given = photo(model.default_size)
    joint = any(site.kind == "joint" for site in model.sites(latent_grid(model)))
    window = {"joint": 0.6} if joint else {"self_attention": 0.6}
    options = {"image": given, "steps": STEPS, "guidance": 5.0, **window}
    if model.scheduler not in ("ddim", "flow-euler"):
        with pytest.raises(CannotInvert, match="--scheduler ddim"):
            pw.edit(SOURCE, TARGET, model=model, **options)
        model = pw.load(BUILDERS[family](tokenizer), scheduler="ddim")
    made = pw.edit(SOURCE, TARGET, model=model, **options)
    z = model.to_latent(torch.from_numpy(given.copy())[None].float() / 255)
    assert torch.equal(made.sample.latents[0], z.to(made.sample.latents))
    shown = (model.to_image(z) * 255).round().numpy()[0]
    assert np.abs(made.sample.pictures[0, 0] - shown).max() <= 1
    assert (made.sample.latents[1] - made.sample.latents[0]).abs().max() > 1e-3
    assert made.report["picture"]["inversion"] == "direct"


def test_plain_inversion_makes_the_source_again_and_guidance_leads_it_away(tiny):
    """Each row's error: nothing with the pin, little without guidance, more with it."""
    given, error = photo(), dict[str, float]()
    z = tiny.to_latent(torch.from_numpy(given.copy())[None].float() / 255)
    for inversion, guidance in (("direct", 7.5), ("ddim", 1.0), ("ddim", 7.5)):
        made = pw.edit(SOURCE, TARGET, model=tiny, image=given, inversion=inversion, guidance=guidance, steps=20)
        error[f"{inversion} {guidance}"] = float((made.sample.latents[0] - z).norm() / z.norm())
    assert error["direct 7.5"] == 0
    assert 0 < error["ddim 1.0"] < error["ddim 7.5"]


def test_a_recording_of_a_picture_stands_in_for_it(tiny, tmp_path):
    options = {"blend": ("dog", "cat"), "threshold": 0.8, "weights": {"bike": 2.0}}
    joint = pw.edit(SOURCE, TARGET, model=tiny, image=photo(), steps=STEPS, **options)
    recording = pw.record(SOURCE, model=tiny, image=photo(), steps=STEPS)
    recording = pw.Recording.load(recording.save(tmp_path / "photo.safetensors"))
    again = pw.edit(recording, TARGET, model=tiny, **options)
    assert again.recipe == joint.recipe
    torch.testing.assert_close(again.sample.latents, joint.sample.latents, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="already has its image"):
        pw.edit(recording, TARGET, model=tiny, image=photo())


def test_replayed_from_a_picture_alone_and_edited_again(tiny, tmp_path):
    first = pw.edit(SOURCE, TARGET, model=tiny, image=photo(), steps=STEPS, inversion="regularised")
    first.save(tmp_path / "one")
    assert pw.replay(tmp_path / "one" / "edit.png", model=tiny).matches
    second = pw.edit(pw.record(first, model=tiny, maps=False), "a photo of a dog riding a car", model=tiny)
    assert second.recipe.picture is None and second.recipe.root.picture is not None
    torch.testing.assert_close(second.sample.latents[0], first.sample.latents[1], rtol=1e-4, atol=1e-4)
    second.save(tmp_path / "two")
    assert pw.replay(tmp_path / "two" / "edit.png", model=tiny).difference <= 1
    assert (second.sample.latents[1] - second.sample.latents[0]).abs().max() > 1e-3


def test_the_comparison_begins_with_the_given_picture(tiny):
    bright = np.full((32, 32, 3), 250, np.uint8)
    bright[:16] = (250, 0, 0)
    made = [pw.edit(SOURCE, TARGET, model=tiny, steps=2, **options).comparison() for options in ({"image": bright}, {})]
    assert made[0].width > made[1].width
    shown = np.asarray(made[0])[:, : made[0].width // 3].reshape(-1, 3)
    assert (shown == (250, 0, 0)).all(-1).sum() > 100


def test_flow_edit_needs_no_way_back(tokenizer, monkeypatch):
    model = pw.load(build_sd3(tokenizer))
    calls: list[float] = []
    original = type(model).predict

    def count(self, z, t, *arguments, **options):
        calls.append(float(torch.as_tensor(t).flatten()[0]))
        return original(self, z, t, *arguments, **options)

    monkeypatch.setattr(type(model), "predict", count)
    given = photo(model.default_size)
    made = pw.edit(SOURCE, TARGET, model=model, image=given, steps=6, kind="flow", strength=0.5)
    assert len(calls) == 3
    z = model.to_latent(torch.from_numpy(given.copy())[None].float() / 255)
    torch.testing.assert_close(made.sample.latents[0], z.to(made.sample.latents))
    with pytest.raises(ValueError, match="Use one of the two"):
        controls = [pw.FlowEdit(0.5), pw.Consist("cat")]
        pw.edit(SOURCE, TARGET, model=model, image=given, steps=6, controls=controls)


def test_consist_reads_the_maps_of_the_picture(tokenizer):
    model = pw.load(build_sd3(tokenizer))
    made = pw.edit(SOURCE, TARGET, model=model, image=photo(model.default_size), steps=4, kind="consist", blend="cat")
    assert made.report["picture"]["psnr"] > 0 and 0 < made.report["controls"][0]["edit_area"][0] < 1


@pytest.mark.parametrize(
    "control",
    [
        pw.MasaCtrl(0, 0.5),
        pw.PlugAndPlay(),
        pw.Pix2PixZero("cat", "dog"),
        pw.SemanticGuidance({"a lion": 5}),
        pw.DirectedDiffusion({"cat": (0, 0, 0.5, 0.5)}, prompts=(1,)),
        pw.AttendAndExcite(("cat", "bike"), prompts=(1,)),
        pw.StructuredDiffusion(("a cat", "a bike"), prompts=(1,)),
    ],
    ids=lambda control: type(control).__name__,
)
def test_the_methods_act_on_a_picture(tiny, control):
    target = SOURCE  # which all of these know what to do with
    options = {"model": tiny, "image": photo(), "steps": STEPS}
    made = pw.edit(SOURCE, target, controls=[control], **options)
    other = pw.edit(SOURCE, target, controls=[pw.SharedStart(0.2)], **options)  # the target as good as free
    assert torch.equal(made.sample.latents[0], other.sample.latents[0])
    assert (made.sample.latents[1] - other.sample.latents[1]).abs().max() > 1e-3


def test_in_half_precision_the_path_is_kept_in_single(tokenizer):
    model = pw.load(build_tiny(tokenizer).to(torch.bfloat16))
    made = pw.edit(SOURCE, TARGET, model=model, image=photo(), steps=STEPS)
    assert made.sample.latents.dtype == torch.float32 and made.sample.latents.isfinite().all()


def test_jobs_hold_pictures_of_their_own(tiny, tmp_path):
    from PIL import Image

    from promptweave.editing.jobs import read_jobs, run_jobs

    Image.fromarray(photo()).save(tmp_path / "photo.png")
    lines = f'{{"source": "{SOURCE}", "targets": "{TARGET}", "steps": 3, "image": "{tmp_path / "photo.png"}"}}\n'
    (tmp_path / "jobs.jsonl").write_text(lines + f'{{"source": "{SOURCE}", "targets": "{TARGET}", "steps": 3}}\n')
    folders = run_jobs(read_jobs(tmp_path / "jobs.jsonl", tiny), tiny, tmp_path / "out")
    alone = pw.edit(SOURCE, TARGET, model=tiny, steps=3, image=photo())
    with Image.open(folders[0] / "edit.png") as image:
        assert np.abs(np.asarray(image).astype(int) - np.asarray(alone.edited)).max() <= 1
    assert len({(folder / "source.png").read_bytes() for folder in folders}) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 2}, "images must be 1"),
        ({"inversion": "magic"}, "There are auto, direct, ddim"),
        ({"image": np.zeros((2, 8, 8, 3), np.uint8)}, "is one image, .* Received uint8 \\[2, 8, 8, 3\\]"),
        ({"image": np.full((8, 8, 3), -0.5, np.float32)}, "Received -0.5 to -0.5"),
    ],
)
def test_what_cannot_be(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        pw.edit(SOURCE, TARGET, **{"model": tiny, "image": photo(), "steps": 2, **options})


def test_solvers_that_cannot_go_back(tokenizer):
    with pytest.raises(CannotInvert, match="--scheduler ddim"):
        pw.edit(SOURCE, TARGET, model=pw.load(build_tiny(tokenizer), scheduler="euler"), image=photo(), steps=2)
    with pytest.raises(CannotInvert, match="velocities"):
        model = pw.load(build_sd3(tokenizer))
        pw.edit(SOURCE, TARGET, model=model, image=photo(model.default_size), steps=2, inversion="regularised")


def test_a_path_of_another_run_is_refused(tiny):
    path = invert(tiny, latents(tiny).float(), SOURCE, steps=3).path
    with pytest.raises(ValueError, match="Invert with the run's steps"):
        pw.sample(tiny, [SOURCE, TARGET], noise=path[0], steps=4, controls=[Pinned(path)])


def test_a_picture_is_turned_cropped_and_kept(tmp_path):
    from PIL import Image

    wide = Image.fromarray(photo((32, 64)))
    exif = wide.getexif()
    exif[0x0112] = 6  # the camera lay on its side
    wide.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert Picture.of(tmp_path / "turned.jpg", (64, 32)).pixels().shape == (64, 32, 3)
    exact = Picture.of(photo(), (32, 32))
    assert np.array_equal(exact.pixels(), photo()) and Picture.from_text(exact.as_text()) == exact
    assert Picture.of(exact, (32, 32)) is exact and Picture.of(exact, (16, 16)).pixels().shape == (16, 16, 3)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert Picture.of(clear, (8, 8)).pixels().min() == 255
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(BadPicture, match="PNG, JPEG or WebP"):
        Picture.of(tmp_path / "text.png", (8, 8))
    with pytest.raises(FileNotFoundError, match="There is no image"):
        Picture.of(tmp_path / "nothing.png", (8, 8))
    with pytest.raises(BadPicture):
        Picture.from_text("no base64!")
    with pytest.raises(BadPicture):
        Picture(b"no picture").pixels()
