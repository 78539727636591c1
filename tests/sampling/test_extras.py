"""Further predictions in the run's own forward pass: each equals a pass of its own, and disturbs nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from families import BUILDERS
from tiny import build_tiny
from torch import Tensor

from promptweave import (
    Control,
    Hooks,
    LocalBlend,
    RecordMaps,
    Replace,
    SemanticGuidance,
    Sites,
    edit,
    load,
    noise_for,
    record,
    sample,
)
from promptweave.core.control import Extra, Predictions, Run
from promptweave.core.pattern import Pattern
from promptweave.core.rows import Layout, NotRecorded, Rows
from promptweave.core.tapping import Tap
from promptweave.sampling.loop import Job, sample_jobs
from promptweave.sampling.steps import guide

SOURCE, TARGET, OTHER = "a photo of a cat riding a bike", "a photo of a dog riding a bike", "a lion wearing a crown"
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@dataclass(frozen=True)
class Ask(Control):
    """Asks for extra predictions and keeps what it gets, with the network's inputs."""

    make: Callable[[Run], Mapping[str, Extra]] | None = None
    watch: bool = False

    def bind(self, run: Run) -> Hooks:
        return _Ask({} if self.make is None else self.make(run), self.watch)


@dataclass
class _Ask(Hooks):
    wanted: Mapping[str, Extra]
    watch: bool
    made: list[Predictions] = field(default_factory=list)
    beside: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)

    def extras(self, step):
        return self.wanted

    def attention(self, step, site, rows):
        if self.watch:
            self.beside += [(name, other["cond"][1].q, rows["cond"][1].q) for name, other in rows.beside.items()]
        return rows

    def prediction(self, step, made):
        self.made.append(made)
        return made.guided


def self_identity(site: Any, rows: Rows) -> Rows:
    if site.kind == "self":
        for prompt in range(rows.layout.first, rows.layout.prompts):
            rows = rows.put("cond", prompt, pattern=Pattern.identity(rows["cond"][prompt].q))
    return rows


def run(model, *controls, steps=2, guidance=3.0, prompts=(SOURCE, TARGET), **options):
    noise = noise_for(model, 0, 2).to(model.dtype)
    return sample(model, prompts, noise=noise, steps=steps, guidance=guidance, controls=controls, **options)


def asked(model, make, *before, **options) -> _Ask:
    made = run(model, *before, Ask(make), **options).hooks[-1]
    assert isinstance(made, _Ask)
    return made


def alone(model, text, step_index=0, tap=None, **options) -> Tensor:
    """A conditional pass of its own, on the noise that every prompt begins with."""
    noise = noise_for(model, 0, 2).to(model.dtype)
    context = text.cond.repeat_interleave(2, 0)
    t = Job((SOURCE,), noise, 2).solver(model).steps[step_index].t
    return model.predict(noise.repeat(len(text.cond), 1, 1, 1), t, context, tap, **options).unflatten(0, (-1, 2))


def test_another_text_an_edit_and_other_latents_equal_passes_of_their_own(tiny64):
    noise = noise_for(tiny64, 5, 2).double().expand(2, -1, -1, -1, -1)

    def make(run):
        concept = run.encode([OTHER])
        return {
            "concept": Extra(concept, controlled=False),
            "perturbed": Extra(edit=self_identity),
            "elsewhere": Extra(latents=noise),
            "same": Extra(),
        }

    first = asked(tiny64, make).made[0]
    both = tiny64.encode([SOURCE, TARGET], ["", ""])
    torch.testing.assert_close(first.cond, alone(tiny64, both), **CLOSE)
    torch.testing.assert_close(first.extra["same"], first.cond, **CLOSE)
    concept = alone(tiny64, tiny64.encode([OTHER], [""])).expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(first.extra["concept"], concept, **CLOSE)
    tap = Tap.of(Layout(("cond",), 2, 2), self_identity)
    torch.testing.assert_close(first.extra["perturbed"], alone(tiny64, both, tap=tap), **CLOSE)
    t = Job((SOURCE,), noise[0], 2).solver(tiny64).steps[0].t
    moved = tiny64.predict(noise.flatten(0, 1), t, both.cond.repeat_interleave(2, 0)).unflatten(0, (2, 2))
    torch.testing.assert_close(first.extra["elsewhere"], moved, **CLOSE)
    for name in ("concept", "perturbed", "elsewhere"):
        assert (first.extra[name] - first.cond).abs().max() > 1e-3
    torch.testing.assert_close(first.guided, guide(first.uncond, first.cond, 3.0), **CLOSE)


def test_controls_act_on_a_controlled_prediction_alone(tiny64):
    def make(run):
        return {"under": Extra(), "free": Extra(controlled=False)}

    edited = asked(tiny64, make, Replace(1.0, 1.0)).made[1]
    torch.testing.assert_close(edited.extra["under"], edited.cond, **CLOSE)
    torch.testing.assert_close(edited.extra["free"][0], edited.cond[0], **CLOSE)  # the source, which nobody edits
    assert (edited.extra["free"][1] - edited.cond[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", BUILDERS)
def test_asking_changes_nothing_that_is_not_used(family, tokenizer):
    """In every family: the run, what recorders saw and what a blend did stay as without extra predictions."""
    model = load(BUILDERS[family](tokenizer))
    controls = [Replace(), LocalBlend("dog", start=0), RecordMaps()]
    if any(site.kind == "joint" for site in model.sites((16, 16))):
        controls[0] = Replace(joint=0.5)
    plain = run(model, *controls)
    more = run(model, *controls, Ask(lambda run: {"a": Extra(), "b": Extra(edit=self_identity, sites=run.map_sites)}))
    torch.testing.assert_close(more.latents, plain.latents, rtol=1e-4, atol=1e-4)
    counted, wanted = more.hooks[2].maps, plain.hooks[2].maps
    assert counted.counts == wanted.counts
    for key in wanted.sums:
        torch.testing.assert_close(counted.sums[key], wanted.sums[key], rtol=1e-3, atol=1e-4)
    assert more.reports[1]["latent_steps"] == plain.reports[1]["latent_steps"]


def test_one_network_call_for_everything(tiny, monkeypatch):
    calls: list[int] = []
    predict = type(tiny).predict

    def counting(self, z, *rest, **options):
        calls.append(len(z))
        return predict(self, z, *rest, **options)

    monkeypatch.setattr(type(tiny), "predict", counting)
    run(tiny, SemanticGuidance({OTHER: 4, "a red car": 2}, warmup=0), steps=3)
    assert calls == [16] * 3  # two halves and two concepts of two prompts and two images


def test_a_control_reads_what_stands_beside_it(tiny64):
    hooks = run(tiny64, Replace(1.0, 1.0), Ask(lambda run: {"own": Extra(controlled=False)}, watch=True)).hooks[-1]
    sites = len(tiny64.sites((16, 16)))
    assert {name for name, _, _ in hooks.beside} == {"own"} and len(hooks.beside) == 2 * sites
    torch.testing.assert_close(hooks.beside[0][1], hooks.beside[0][2], **CLOSE)  # before anything was edited
    assert (hooks.beside[-1][1] - hooks.beside[-1][2]).abs().max() > 1e-3


def test_maps_of_an_extra_prediction_are_those_of_a_run(tiny64):
    other = "a photo of a lion riding a bike"

    def make(run):
        return {"other": Extra(run.encode([other]), controlled=False, sites=Sites("cross"))}

    made = asked(tiny64, make, steps=1).made[0].maps["other"]
    wanted = run(tiny64, RecordMaps(Sites("cross")), steps=1, prompts=(other,)).hooks[0].maps
    for prompt in (0, 1):
        for _, where, _ in wanted.keys(0):
            torch.testing.assert_close(made.mean(prompt, where), wanted.mean(0, where), rtol=1e-6, atol=1e-8)


def test_two_controls_may_use_the_same_name(tiny64):
    def asking(text):
        return Ask(lambda run: {"concept": Extra(run.encode([text]), controlled=False)})

    one, two = (asked(tiny64, asking(text).make).made[0].extra["concept"] for text in (OTHER, "a red car"))
    hooks = run(tiny64, asking(OTHER), asking("a red car")).hooks
    torch.testing.assert_close(hooks[0].made[0].extra["concept"], one, **CLOSE)
    torch.testing.assert_close(hooks[1].made[0].extra["concept"], two, **CLOSE)


def test_runs_in_one_pass_are_as_if_alone(tiny64):
    noise = noise_for(tiny64, 0, 1).double()
    guided = SemanticGuidance({OTHER: 4}, warmup=0)
    jobs = [Job((SOURCE, TARGET), noise, 3, 3.0, (Replace(),)), Job((SOURCE,), noise, 3, 3.0, (guided,))]
    for job, together in zip(jobs, sample_jobs(tiny64, jobs), strict=True):
        torch.testing.assert_close(sample_jobs(tiny64, [job])[0].latents, together.latents, **CLOSE)


def test_a_recording_has_no_further_predictions_of_its_source(tiny):
    recording = record(SOURCE, model=tiny, steps=2)
    free = edit(recording, TARGET, model=tiny, controls=[Replace(), Ask(lambda run: {"a": Extra(controlled=False)})])
    assert len(free.sample.hooks[1].made) == 2
    with pytest.raises(NotRecorded, match="further predictions"):
        edit(recording, TARGET, model=tiny, controls=[Replace(), Ask(lambda run: {"a": Extra()})])


def test_a_text_cannot_be_half_changed_by_accident(tiny):
    text = tiny.encode([SOURCE], [""])
    other = text.with_cond(text.cond * 2)
    assert other.keys is other.values and other.only_values is None
    split = text.with_keys(text.cond * 2)
    assert torch.equal(split.values, text.cond) and torch.equal(split.keys, text.cond * 2)
    assert torch.equal(text.with_values(text.cond * 3).keys, text.cond)
    assert split.with_cond(text.cond).values is text.cond  # both, whatever was split before


# ---- semantic guidance under solvers of several evaluations, against its equations


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "dpm++-single", "pndm", "euler"])
def test_semantic_guidance_follows_its_equations_at_every_evaluation(tokenizer, scheduler, monkeypatch):
    """g = sum of strength * M (e_c - e_u); e <- e_guided + g + s m; m <- beta m + (1 - beta) (g + s m), once a step."""
    model = load(build_tiny(tokenizer).to(torch.float64), scheduler=scheduler)
    strength, share, s, beta = 4.0, 0.8, 0.3, 0.6
    control = SemanticGuidance({OTHER: strength}, warmup=1 / 3, threshold=share, momentum=s, beta=beta)
    inputs: list[tuple[Tensor, Any]] = []
    predict = type(model).predict

    def logged(self, z, t, *rest, **options):
        inputs.append((z[-1:], t))
        return predict(self, z, t, *rest, **options)

    monkeypatch.setattr(type(model), "predict", logged)
    noise = noise_for(model, 0).double()
    made = sample(
        model, [SOURCE], noise=noise, steps=6, guidance=3.0, controls=[Ask(), control, Ask()],
    )  # fmt: skip
    monkeypatch.undo()
    before, after = made.hooks[0].made, made.hooks[2].made
    assert len(before) == len(after) == len(inputs) >= 6
    concept = model.encode([OTHER], [""]).cond
    m, step, acted = torch.zeros(1, 1, 4, 16, 16, dtype=torch.float64), -1, 0
    for (z, t), old, new in zip(inputs, before, after, strict=True):
        step += new.call == 0
        move = strength * (model.predict(z, t, concept)[None] - old.uncond)
        edge = move.abs().flatten(-2).quantile(share, -1)[..., None, None]
        g = torch.where(move.abs() >= edge, move, 0)
        if new.call == 0:
            m_here, m = m, beta * m + (1 - beta) * (g + s * m)
        wanted = old.guided + (g + s * m_here if step >= 2 else 0)
        torch.testing.assert_close(new.guided, wanted, rtol=1e-6, atol=1e-7)
        acted += step >= 2
    assert step == 5 and acted >= 4
    calls = {"heun": 11, "pndm": 7}.get(scheduler, 6)
    assert len(inputs) == calls


def test_predictions_are_replaced_one_by_one(tiny64):
    @dataclass(frozen=True)
    class Add(Control):
        amount: float = 1.0

        def bind(self, run: Run) -> Hooks:
            return _Add(self.amount)

    class _Add(Hooks):
        def __init__(self, amount):
            self.amount = amount

        def prediction(self, step, made):
            return made.guided + self.amount

    hooks = run(tiny64, Ask(), Add(1.0), Add(2.0), Ask(), steps=1).hooks
    torch.testing.assert_close(hooks[-1].made[0].guided, hooks[0].made[0].guided + 3.0, **CLOSE)


@pytest.mark.parametrize("family", [name for name in BUILDERS if name != "lcm"])
def test_a_skipped_block_passes_its_input_on(family, tokenizer):
    """Against the network without the block, for the extra prediction alone; the run's own is what it was."""
    model = load(BUILDERS[family](tokenizer))
    sites = model.sites((16, 16))
    middle = sites[len(sites) // 2]
    skip = Sites(names=(middle.name,))
    prompts, steps = (SOURCE,), 2
    made = asked(model, lambda run: {"without": Extra(skip=skip, controlled=False)}, prompts=prompts, steps=steps)
    network = model.network if hasattr(model, "network") else getattr(model, "unet", None)
    block = network.get_submodule(middle.path.rpartition(".")[0])
    forward, returned = block.forward, type(block).__name__

    def through(hidden_states, *args, **kwargs):
        text = kwargs.get("encoder_hidden_states", args[0] if args else None)
        return hidden_states if returned == "BasicTransformerBlock" else (text, hidden_states)

    plain = asked(model, lambda run: {}, prompts=prompts, steps=steps).made[0].cond
    block.forward = through
    try:
        wanted = asked(model, lambda run: {}, prompts=prompts, steps=steps).made[0].cond
    finally:
        block.forward = forward
    torch.testing.assert_close(made.made[0].cond, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.made[0].extra["without"], wanted, rtol=1e-4, atol=1e-5)
    assert (wanted - plain).abs().max() > 1e-4
    assert not block._forward_hooks
