"""Sites of which it is known which rows they read compute what the controls, called at every site, would."""

from __future__ import annotations

import pytest
import torch

from promptweave import (
    LocalBlend,
    MasaCtrl,
    PerturbedAttentionGuidance,
    PlugAndPlay,
    RecordMaps,
    Refine,
    Replace,
    Reweight,
    SkipLayerGuidance,
    noise_for,
    record,
    sample,
)
from promptweave.core.control import Hooks
from promptweave.core.pattern import Pattern
from promptweave.core.routes import Gather, Piece, Route, beside
from promptweave.core.rows import Layout, Rows
from promptweave.sampling import passes

SOURCE = "a photo of a cat riding a bike"
TARGETS = ("a photo of a dog riding a bike", "a photo of a red cat riding a bike")
WINDOWS = {"cross": (0.2, 0.8), "self_attention": 0.6}
CONTROLS = {
    "plain": (),
    "swap": (Replace(targets=(1,), **WINDOWS),),
    "refine": (Refine(targets=(2,), **WINDOWS), Reweight({"bike": 2.0})),
    "word by word": (Replace(targets=(1,), cross={"dog": 0.4, "default": 0.8}),),
    "compat": (Replace(targets=(1,), reference_compat=True),),
    "blend": (
        Replace(targets=(1,)), Refine(targets=(2,)), LocalBlend("bike", start=0.0), RecordMaps(columns=((5,),) * 3),
    ),
    "appearance": (MasaCtrl(start=0.2, targets=(1,)), MasaCtrl(start=0.2, words="bike", targets=(2,))),
    "layout": (RecordMaps(columns=((5,),) * 3), PlugAndPlay()),
    "guidance": (
        Replace(targets=(1,), **WINDOWS), Refine(targets=(2,), **WINDOWS), SkipLayerGuidance(layers=(1,), window=1.0),
        PerturbedAttentionGuidance(layers="down_self_0", window=0.6),
    ),
}  # fmt: skip


@pytest.fixture
def called(monkeypatch):
    """Switches on that controls are called at every site of every step."""

    def on() -> None:
        monkeypatch.setattr(passes.Pass, "_plans", lambda *_: None)

    return on


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_known_edit_is_the_edit(name, guidance, tiny64, called):
    prompts = [SOURCE, *TARGETS]
    noise = noise_for(tiny64, 0, 2).double()
    wanted = {"noise": noise, "steps": 5, "guidance": guidance, "controls": CONTROLS[name]}
    known = sample(tiny64, prompts, **wanted)
    called()
    one_by_one = sample(tiny64, prompts, **wanted)
    torch.testing.assert_close(known.latents, one_by_one.latents, rtol=0, atol=1e-12)
    assert torch.equal(known.latents[0], one_by_one.latents[0]), "the source, bit for bit"
    assert known.reports == one_by_one.reports


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_a_known_edit_of_a_recording_is_the_edit(guidance, tiny, called):
    windows = {"cross": 0.6, "self_attention": 0.6}
    track = record(SOURCE, model=tiny, steps=4, guidance=guidance, **windows).track
    run = {"noise": noise_for(tiny, 0), "steps": 4, "guidance": guidance, "source": track}
    run["controls"] = [Replace(targets=(1,), **windows), Refine(targets=(2,), **windows)]
    known = sample(tiny, [SOURCE, *TARGETS], **run)
    called()
    torch.testing.assert_close(known.latents, sample(tiny, [SOURCE, *TARGETS], **run).latents, rtol=0, atol=1e-5)


def test_controls_are_called_once_for_steps_that_are_alike(tiny, monkeypatch):
    seen = []
    hooks = type(Replace().bind(bound(tiny)))
    attention = hooks.attention
    monkeypatch.setattr(hooks, "attention", lambda self, *args: seen.append(args[0].index) or attention(self, *args))
    controls = [Replace(cross=0.5, self_attention=0.5)]
    sample(tiny, [SOURCE, TARGETS[0]], noise=noise_for(tiny, 0), steps=8, guidance=3.0, controls=controls)
    every, shared = (
        len(tiny.sites((16, 16))),
        1,
    )  # the layer whose input has equal rows gathers none; at last it is idle
    assert [seen.count(step) for step in range(8)] == [every, shared, shared, shared, every, 0, 0, 0]


def bound(model):
    from promptweave.sampling.loop import Job

    return Job([SOURCE, TARGETS[0]], noise_for(model, 0), 8, 3.0).bind(model)[0]


class Doubled(Hooks):
    """An edit without a state: it may do another thing in each step."""

    def attention(self, step, site, rows):
        row = rows["cond"][1]
        return rows.put("cond", 1, v=row.v * (1 + step.index))


def test_every_method_says_what_decides_about_its_attention():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    editing = {
        kind
        for kind in below(Hooks)
        if kind.__module__.startswith("promptweave.methods") and kind.attention is not Hooks.attention
    }
    assert len(editing) >= 10
    assert not {kind for kind in editing if kind.state is Hooks.state}


def test_a_control_that_says_nothing_is_called_everywhere(tiny, called):
    from promptweave.core.control import Control

    class Doubling(Control):
        def bind(self, run):
            return Doubled()

    controls = [Replace(), Doubling()]
    run = {"noise": noise_for(tiny, 0), "steps": 3, "guidance": 3.0, "controls": controls}
    made = sample(tiny, [SOURCE, TARGETS[0]], **run).latents
    called()
    assert torch.equal(made, sample(tiny, [SOURCE, TARGETS[0]], **run).latents)


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYOUT = Layout(("uncond", "cond"), 3, 2)


def rows_of(seed=0):
    q, k, v = (drawn(LAYOUT.size, 2, tokens, 4, seed=seed + i) for i, tokens in enumerate((5, 7, 7)))
    return Rows(q, k, v, LAYOUT)


def test_a_route_computes_what_the_rows_do():
    tokens, weights = drawn(7, 7, seed=8), drawn(7, seed=9)

    def change(rows):
        source = rows["cond"][0].pattern
        rows = rows.put("cond", 1, pattern=source @ tokens + rows["cond"][1].pattern * weights)
        return rows.put("cond", 2, pattern=source @ tokens + rows["cond"][2].pattern * weights)

    route = Route.of(change(rows_of()))
    assert route.q.pieces == (Piece(0, 8), Piece(6, 8), Piece(6, 12))
    assert route.sums == ((slice(8, 12), slice(12, 16)),), "the second terms of both targets at once"
    other = rows_of(seed=20)
    outputs = torch.nn.functional.scaled_dot_product_attention(
        route.q(other.q), route.k(other.k), route.values(other.v)
    )  # fmt: skip
    torch.testing.assert_close(route.summed(outputs), change(other).evaluate(), rtol=0, atol=1e-12)


def test_routes_beside_each_other_compute_what_their_parts_do():
    """Rows of further predictions stand before those of the run."""
    tokens, weights = drawn(7, 7, seed=8), drawn(7, seed=9)

    def first(rows):
        pattern = rows["cond"][0].pattern @ tokens + rows["cond"][2].pattern * weights
        return rows.put("cond", 2, pattern=pattern)

    def second(rows):
        return rows.put("cond", 1, k=rows["cond"][0].k, v=rows["cond"][0].v)

    size = LAYOUT.size
    edits = [first, None, second, first]
    known = [None if edit is None else Route.of(edit(rows_of())) for edit in edits]
    parts = [rows_of(seed) for seed in (20, 30, 40, 50)]
    q, k, v = (torch.cat([getattr(rows, name) for rows in parts]) for name in "qkv")
    wanted = [
        torch.nn.functional.scaled_dot_product_attention(rows.q, rows.k, rows.v) if edit is None
        else edit(rows).evaluate() for edit, rows in zip(edits, parts, strict=True)
    ]  # fmt: skip
    route = beside([(one, size) for one in known])
    outputs = torch.nn.functional.scaled_dot_product_attention(route.q(q), route.k(k), route.values(v))
    torch.testing.assert_close(route.summed(outputs), torch.cat(wanted), rtol=0, atol=1e-12)


def test_what_is_new_has_no_route():
    rows = rows_of()
    row = rows["cond"][1]
    assert Route.of(rows.put("cond", 1, pattern=row.pattern.gated(torch.ones(5)))) is None
    assert Route.of(rows.put("cond", 1, q=2 * row.q)) is None
    assert Route.of(rows.put("cond", 1, v=2 * row.v)) is None
    assert Route.of(rows.put("cond", 1, pattern=Pattern.of(row.q, row.k, torch.zeros(7)))) is None
    assert Route.of(rows.put("cond", 1, k=rows["cond"][0].k)).k.pieces == (Piece(0, 8), Piece(6, 8), Piece(10, 12))


def test_rows_are_gathered_with_those_of_a_recording():
    x, kept = drawn(4, 3, seed=0), drawn(2, 3, seed=1)
    gather = Gather((Piece(2, 3), Piece(0, 2, prompt=0), Piece(3, 4)), 4)
    wanted = torch.cat([x[2:3], kept, x[3:4]])
    assert torch.equal(gather(x, [kept]), wanted) and gather.prompts == (0,)
    assert gather.needed == slice(2, 4) and torch.equal(gather.narrowed(x[gather.needed], [kept]), wanted)
    assert Gather((Piece(0, 4),), 4).whole and Gather((Piece(0, 2, prompt=0),), 0)(None, [kept]) is kept
