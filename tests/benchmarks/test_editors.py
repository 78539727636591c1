"""One table of editors: the tables of the benchmarks are made of it, and their controls are those written out here."""

from __future__ import annotations

from functools import partial

import pytest

import promptweave as pw
from promptweave.benchmarks import bench_costs, bench_editors, bench_inversions
from promptweave.benchmarks.drawn_swaps import swap_of
from promptweave.benchmarks.editors import DRAWN, EDITORS, Known
from promptweave.benchmarks.swept import METHODS
from promptweave.core.control import NoEffect
from promptweave.editing.masks import rows
from promptweave.methods import ContrastiveDenoising, DeltaDenoising
from promptweave.world.counterfactuals import counterfactuals

EDIT = Known("a photo of a cat", "a photo of a dog", "cat", "dog", lambda: ((1.0, 0.0),))


def made_by(editor):
    make = editor.make
    while isinstance(make, partial):
        make = make.func
    return make


def test_every_table_is_made_of_the_one():
    makers = {made_by(editor) for editor in EDITORS.values()}
    for table in (*bench_costs.COSTED.values(), bench_editors.EDITORS, bench_inversions.OPTIMISED):
        assert {made_by(editor) for editor in table.values()} <= makers
    for joint, names in DRAWN.items():
        assert all(EDITORS[name].fits(joint) for name in names)
        assert all(editor.fits(joint) for editor in bench_costs.COSTED[joint].values())


def test_controls_of_the_table():
    wanted = {
        "no control": (), "Prompt-to-Prompt": (pw.Replace(joint=0.6, targets=(1,)),),
        "Prompt-to-Prompt, blend": (pw.Replace(joint=0.6, targets=(1,)), pw.LocalBlend(("cat", "dog"), targets=(1,))),
        "shared start": (pw.SharedStart(targets=(1,)),), "MasaCtrl": (pw.MasaCtrl(targets=(1,)),),
        "Plug-and-Play": (pw.PlugAndPlay(targets=(1,)),),
        "pix2pix-zero": (pw.Pix2PixZero((EDIT.source,), (EDIT.target,), targets=(1,)),),
        "SEGA": (pw.SemanticGuidance({"a dog": 4.0, "a cat": -4.0}, targets=(1,)),),
        "DDS": (DeltaDenoising(),), "CDS": (ContrastiveDenoising(),), "Consist": (pw.Consist("cat", targets=(1,)),),
        "DirectEdit": (pw.DirectEdit(targets=(1,)),), "UniEdit": (pw.UniEdit(),), "FlowEdit": (pw.FlowEdit(),),
        "DirectEdit, blend": (pw.DirectEdit(targets=(1,)), pw.LocalBlend("cat", targets=(1,))),
        "KV-Edit, word": (pw.KVEdit(words="cat"),), "KV-Edit, mask": (pw.KVEdit(((1.0, 0.0),)),),
        "inpainting": (pw.Inpaint(((1.0, 0.0),)),), "re-noising": (pw.Inpaint(((1.0, 1.0), (1.0, 1.0))),),
    }  # fmt: skip
    assert {name: editor.controls(EDIT, (1,)) for name, editor in EDITORS.items()} == wanted
    for name in ("pix2pix-zero", "SEGA", "Consist"):
        assert EDITORS[name].prompt(EDIT) == (EDIT.target if name == "Consist" else EDIT.source)
    with pytest.raises(NoEffect, match="no word for what changes"):
        EDITORS["Consist"].controls(Known("a", "b"), (1,))
    pair = swap_of(5000, 0)
    assert pair.known.old in pair.known.source and pair.known.new in pair.known.target and pair.known.mask == pair.mask


def test_controls_of_the_sweeps(tiny):
    pair = next(one for one in counterfactuals("test") if one.kind == "object swap")
    source, target, old = (pair.source,), (pair.target,), pair.old[0].noun
    wanted = {
        ("MasaCtrl", 0.4): pw.MasaCtrl(start=0.4), ("shared start", 0.4): pw.SharedStart(0.4),
        ("Plug-and-Play", 0.4): pw.PlugAndPlay(features=0.4, attention=0.25),
        ("pix2pix-zero", 0.3): pw.Pix2PixZero(source, target, attention_guidance=0.3),
        ("SEGA", 2.0): pw.SemanticGuidance({pair.target: 2.0, pair.source: -2.0}),
        ("DDS", 2.0): DeltaDenoising(rounds=2), ("FlowEdit", 0.5): pw.FlowEdit(strength=0.5),
        ("Consist", 0.4): pw.Consist(old, structure=0.4), ("UniEdit", 0.4): pw.UniEdit(0.4),
        ("UniEdit, omega", 2.0): pw.UniEdit(omega=2.0), ("DirectEdit", 0.4): pw.DirectEdit(0.4),
        ("KV-Edit, word", 0.4): pw.KVEdit(words=old, strength=0.4),
        ("KV-Edit, true mask", 0.4): pw.KVEdit(rows(pair.region), strength=0.4),
        ("inpainting, true mask", 0.4): pw.Inpaint(rows(pair.region), strength=0.4),
        ("re-noising (SDEdit)", 0.4): pw.Inpaint(((1.0, 1.0), (1.0, 1.0)), strength=0.4),
    }  # fmt: skip
    made = {(name, value): METHODS[name].make(tiny, pair, value) for name, value in wanted}
    assert {key: setup.controls for key, setup in made.items()} == {key: (one,) for key, one in wanted.items()}
    own = {"UniEdit", "UniEdit, omega", "DirectEdit"}
    assert all((setup.inversion != "direct") == (name in own) for (name, _), setup in made.items())
    assert METHODS["shared start"].make(tiny, pair, 0.0).controls == ()
