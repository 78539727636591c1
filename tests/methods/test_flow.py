"""FlowEdit and ConsistEdit: closed forms, identities, and the parts of the picture that must not move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import build_flux, build_sd3

import promptweave as pw
from promptweave.core.control import NoEffect
from promptweave.core.site import Sites
from promptweave.methods.consist_edit import outside
from promptweave.sampling.loop import Job

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
STEPS = 7


@pytest.fixture(scope="module", params=["sd3", "flux"])
def model(request, tokenizer):
    return pw.load(build_sd3(tokenizer) if request.param == "sd3" else build_flux(tokenizer))


def run(model, prompts, controls, noise=None, **options):
    noise = pw.noise_for(model, 1, 2) if noise is None else noise
    settings: dict[str, Any] = {"steps": STEPS, "guidance": 3.0, "seed": 1, **options}
    return pw.sample(model, prompts, noise=noise, controls=controls, **settings)


def test_flow_edit_of_the_same_prompt_and_guidance_returns_the_picture(model):
    made = run(model, [SOURCE, SOURCE], [pw.FlowEdit(source_guidance=3.0, target_guidance=3.0)])
    plain = run(model, [SOURCE], [])
    torch.testing.assert_close(made.latents[1], plain.latents[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.latents[0], plain.latents[0])
    other = run(model, [SOURCE, TARGET], [pw.FlowEdit()])
    torch.testing.assert_close(other.latents[0], plain.latents[0])
    assert (other.latents[1] - plain.latents[0]).abs().max() > 1e-2
    assert other.reports[0] == {"latent_steps": 5 if model.guided else 6}  # 33 of 50 for SD3, 24 of 28 for FLUX


def test_flow_edit_has_the_published_guidance_in_proportion(model):
    """Stable Diffusion 3: 3.5 and 13.5 at 7. FLUX: 1.5 and 5.5 at 3.5."""
    own, published = (7.0, (3.5, 13.5)) if model.guided else (3.5, (1.5, 5.5))

    def bound(control: pw.FlowEdit, guidance: float) -> tuple[float, float]:
        return Job([SOURCE, TARGET], pw.noise_for(model, 1), STEPS, guidance, [control]).bind(model)[1][0].guidance

    assert bound(pw.FlowEdit(), own) == published
    assert bound(pw.FlowEdit(), own / 2) == (published[0] / 2, published[1] / 2)
    assert bound(pw.FlowEdit(target_guidance=4.0), own / 2) == (published[0] / 2, 4.0)
    off = (1, 1) if model.guided else (1.5 / 3.5, 5.5 / 3.5)
    assert bound(pw.FlowEdit(), 1.0) == pytest.approx(off)


def test_flow_edit_acts_with_its_own_guidance_where_the_run_has_none(model):
    """z + (s' - s)(v_t - v_s) written out, each velocity guided by its own number, for a run with guidance 1."""
    control = pw.FlowEdit(1.0, source_guidance=2.0, target_guidance=6.0)
    noise = pw.noise_for(model, 1)
    made = run(model, [SOURCE, TARGET], [control], noise, guidance=1.0)
    picture = run(model, [SOURCE], [], noise, guidance=1.0).latents[0]
    text = model.encode([SOURCE, TARGET], ["", ""])
    draws, z = torch.Generator().manual_seed(1), picture

    def velocity(x, row, t, guidance):
        one = slice(row, row + 1)
        both = [
            model.predict(x, t, context[one], None, pooled=pooled[one], guidance=torch.tensor([guidance]))
            for context, pooled in ((text.uncond, text.uncond_pooled), (text.keys, text.pooled))
        ]
        return both[0] + guidance * (both[1] - both[0]) if model.guided else both[1]

    for step in Job([SOURCE], noise, STEPS).solver(model).steps:
        s, following = step.t / 1000, max(step.t_next, 0) / 1000
        fresh = torch.randn(picture.shape[1:], generator=draws)[None]
        source = (1 - s) * picture + s * fresh
        with torch.no_grad():
            v = velocity(z + source - picture, 1, step.t, 6.0) - velocity(source, 0, step.t, 2.0)
        z = z + (following - s) * v
    torch.testing.assert_close(made.latents[1], z, rtol=1e-3, atol=1e-3)
    other = run(model, [SOURCE, TARGET], [pw.FlowEdit(1.0)], noise, guidance=1.0)
    assert (made.latents[1] - other.latents[1]).abs().max() > 1e-2


def velocity(monkeypatch, model, field):
    """Replace the network's output by a function of latents, level and row."""

    def predict(z, t, context, tap=None, **options):
        return field(z, float(t) / 1000)

    monkeypatch.setattr(model, "predict", predict)


def test_flow_edit_along_a_constant_difference_of_velocities(model, monkeypatch):
    # v is 0 for the source and -c for the target, so z = x + c (levels from the first acting step to 0).
    constant = 0.7

    def field(z, level):
        rows = z.unflatten(0, (-1, 2, 2))  # branches, prompts, images
        out = torch.zeros_like(rows)
        out[:, 1] = -constant
        return out.flatten(0, 2)

    plain = run(model, [SOURCE], [], guidance=1.0).latents[0]
    original = model.predict
    calls = []

    def predict(z, t, context, tap=None, **options):
        calls.append(float(t) / 1000)
        if len(calls) <= STEPS:  # the source alone
            return original(z, t, context, tap, **options)
        return field(z, float(t))

    monkeypatch.setattr(model, "predict", predict)
    made = run(
        model, [SOURCE, TARGET], [pw.FlowEdit(0.6, source_guidance=1.0, target_guidance=1.0)], guidance=1.0
    )  # fmt: skip
    first = calls[STEPS]
    assert len(calls) == STEPS + round(0.6 * STEPS)
    torch.testing.assert_close(made.latents[1], plain + constant * first, rtol=1e-4, atol=1e-4)


def test_flow_edit_that_ends_freely_samples_the_target(model):
    settings = {"source_guidance": 3.0, "target_guidance": 3.0}
    whole = run(model, [SOURCE, TARGET], [pw.FlowEdit(1.0, free=0.4, **settings)])
    bound = run(model, [SOURCE, TARGET], [pw.FlowEdit(1.0, **settings)])
    plain = run(model, [SOURCE], []).latents[0]
    torch.testing.assert_close(whole.latents[0], plain, rtol=1e-5, atol=1e-5)
    assert (whole.latents[1] - bound.latents[1]).abs().max() > 1e-3


def test_flow_edit_with_a_local_blend_keeps_the_outside(model):
    mask = tuple(tuple(float(column < 8) for column in range(16)) for _ in range(16))
    made = run(model, [SOURCE, TARGET], [pw.FlowEdit(), pw.LocalBlend(mask=mask, start=0.0)])
    plain = run(model, [SOURCE], []).latents[0]
    assert torch.equal(made.latents[1, ..., 8:], made.latents[0, ..., 8:])
    torch.testing.assert_close(made.latents[1, ..., 8:], plain[..., 8:])
    assert (made.latents[1, ..., :8] - plain[..., :8]).abs().max() > 1e-2


def test_flow_edit_says_what_it_needs(model, tiny):
    with pytest.raises(ValueError, match="diffusion model"):
        pw.sample(tiny, [SOURCE, TARGET], noise=pw.noise_for(tiny, 0), steps=2, controls=[pw.FlowEdit()])
    with pytest.raises(ValueError, match=r"strength of FlowEdit is a fraction, one number in \[0, 1\]. Received 1.2"):
        run(model, [SOURCE, TARGET], [pw.FlowEdit(1.2)])
    for control in (pw.FlowEdit(source_guidance=float("nan")), pw.FlowEdit(target_guidance=float("inf"))):
        with pytest.raises(ValueError, match="guidance of FlowEdit is a finite number"):
            run(model, [SOURCE, TARGET], [control])
    with pytest.raises(NoEffect, match="strength"):
        run(model, [SOURCE, TARGET], [pw.FlowEdit(0.4, free=0.5)])
    with pytest.raises(NoEffect, match="target"):
        run(model, [SOURCE], [pw.FlowEdit()])


def test_consist_reaches_both_ends(model):
    plain = run(model, [SOURCE], []).latents[0]
    free = run(model, [TARGET], []).latents[0]
    same = run(model, [SOURCE, SOURCE], [pw.Consist("cat", structure=1.0)])
    torch.testing.assert_close(same.latents[1], plain, rtol=1e-3, atol=1e-3)
    # Everything is the object and no step keeps its structure: the target as it would be without control.
    maps = torch.rand(2, 5, 7)
    assert outside(maps, 0.0).sum() == 2  # the lowest token of each image alone
    assert outside(maps, 0.5).mean() == pytest.approx((1 - (scaled(maps) > 0.5).float()).mean())
    made = run(model, [SOURCE, TARGET], [pw.Consist("cat", structure=0.0, threshold=0.0)])
    torch.testing.assert_close(made.latents[0], plain, rtol=1e-3, atol=1e-3)
    assert (made.latents[1] - free).abs().mean() < (plain - free).abs().mean()
    kept = run(model, [SOURCE, TARGET], [pw.Consist("cat", structure=1.0, threshold=0.9)])
    assert (kept.latents[1] - made.latents[1]).abs().max() > 1e-4


@pytest.mark.parametrize("blocks", [None, 2])
def test_the_mask_of_consist_is_of_the_layers_that_it_controls(model, blocks):
    """Of FLUX the single blocks, of Stable Diffusion 3 all, or those that are asked for: mean over layers and steps."""
    names = [site.name for site in model.sites((16, 16)) if site.kind == "joint"]
    default = names if model.guided else [name for name in names if "single" in name]
    assert model.guided or default != names
    layers = tuple(default if blocks is None else names[:blocks])
    noise = pw.noise_for(model, 1, 2)
    recorder = pw.RecordMaps(Sites("joint"), by_site=True)
    seen = run(model, [SOURCE], [recorder], noise).hooks[0].maps
    tokens = list(model.words(SOURCE).find("cat"))
    mean = torch.stack([seen.mean(0, name)[..., tokens].sum(-1) for name in layers]).mean(0)
    wanted = 1 - (scaled(mean) > 0.1).float().flatten(1)
    control = pw.Consist("cat", blocks=None if blocks is None else layers)
    other = pw.Consist("cat", blocks=tuple(names[-1:]))
    for controls in ([control], [control, other]):
        keeping = run(model, [SOURCE, TARGET], controls, noise).hooks[0]
        assert torch.equal(keeping.keep, wanted) and keeping.names == frozenset(layers)
    assert 0 < wanted.mean() < 1


def scaled(maps):
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low)).view_as(maps)


def test_with_everything_kept_the_images_rows_are_the_sources(model):
    """K = 1 everywhere: queries, keys and values of the image's tokens equal the source's at every controlled layer."""
    seen: list[float] = []

    class Look(pw.Control):
        def bind(self, run):
            class Looking(pw.Hooks):
                def attention(self, step, site, rows):
                    if site.kind == "joint" and rows.touched:
                        for name in "qkv":
                            one, two = (getattr(rows["cond"][row], name)[..., site.image, :] for row in (0, 1))
                            seen.append(float((one - two).abs().max()))
                    return rows

            return Looking()

    control = pw.Consist("cat", structure=0.0, threshold=0.0)
    noise = pw.noise_for(model, 1, 1)
    job = Job([SOURCE, TARGET], noise, STEPS, 3.0, [control])
    _, hooks = job.bind(model)
    from promptweave.methods import consist_edit

    original = consist_edit.outside
    consist_edit.outside = lambda maps, threshold: torch.ones(len(maps), maps[0].numel())
    try:
        run(model, [SOURCE, TARGET], [control, Look()], noise=noise)
    finally:
        consist_edit.outside = original
    assert seen and max(seen) < 1e-5


def test_consist_says_what_it_needs(model, tiny):
    with pytest.raises(ValueError, match="has none"):
        pw.sample(tiny, [SOURCE, TARGET], noise=pw.noise_for(tiny, 0), steps=2, controls=[pw.Consist("cat")])
    with pytest.raises(NoEffect, match="word of the source"):
        run(model, [SOURCE, TARGET], [pw.Consist()])
    with pytest.raises(ValueError, match="not a word"):
        run(model, [SOURCE, TARGET], [pw.Consist("horse")])
    with pytest.raises(ValueError, match="blocks of Consist must name joint layers"):
        run(model, [SOURCE, TARGET], [pw.Consist("cat", blocks=("up_cross_0",))])


def test_both_replay_from_their_recipe(model, tmp_path):
    for control in (pw.FlowEdit(), pw.Consist("cat")):
        result = pw.edit(SOURCE, TARGET, model=model, steps=STEPS, guidance=3.0, controls=[control])
        folder = tmp_path / type(control).__name__
        result.save(folder)
        assert pw.replay(folder / "edit.png", model=model).matches


def test_both_from_the_command_line_and_by_name(model, tmp_path, capsys):
    from promptweave.apps.cli import main
    from promptweave.editing.result import read_record

    model.pipeline.save_pretrained(tmp_path / "model", safe_serialization=True)
    for name, options in (("flow", ["--strength", "0.8"]), ("consist", ["--blend", "cat", "--structure", "0.5"])):
        arguments = ["edit", SOURCE, TARGET, "--kind", name, *options, "--steps", str(STEPS), "--guidance", "3"]
        arguments += ["--size", str(16 * model.factor)]  # a saved FLUX pipeline does not keep that it is small
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--model", str(tmp_path / "model"), "-o", str(tmp_path / name), "-q"])
        assert end.value.code == 0, capsys.readouterr().err
        record = read_record(tmp_path / name / "edit.json")
        control = {"flow": "FlowEdit", "consist": "Consist"}[name]
        assert [c["control"] for c in record["recipe"]["controls"]] == [control]
    with pytest.raises(SystemExit) as end:
        main(["edit", SOURCE, TARGET, "--kind", "flow", "--kind", "refine", "--model", str(tmp_path / "model")])
    assert end.value.code == 2 and "--kind takes one value" in capsys.readouterr().err
    settings = {"model": model, "steps": STEPS, "guidance": 3.0}
    by_name = pw.edit(SOURCE, TARGET, kind="flow", **settings)
    assert by_name.recipe == pw.edit(SOURCE, TARGET, controls=[pw.FlowEdit()], **settings).recipe
