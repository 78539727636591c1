"""Every method on the page: the same image as in Python, its fields from its declaration, restored from the file."""

from __future__ import annotations

import re

import numpy as np
import pytest
from everything import joint
from families import build_flux, build_sd3, build_sdxl

import promptweave as pw
from promptweave.apps.declared import method_commands
from promptweave.apps.forms import form_of
from promptweave.apps.web.applying import apply
from promptweave.apps.web.choosing import documentation, page_of
from promptweave.apps.web.history import changed
from promptweave.apps.web.limits import Limits, TooMuch
from promptweave.apps.web.method_form import form_html, forms, read_form
from promptweave.apps.web.offered import EDIT, Missing, UnknownMethod, label_of, methods, offered, text_of
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Form, asked_of
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.uploads import read_upload
from promptweave.editing.masks import with_controls
from promptweave.editing.plan import plan, recipe_for
from promptweave.editing.settings import Settings
from promptweave.editing.who_reads import KINDS

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
STEPS, SEED = 2, 4
MASK = ((0.0,) * 16,) * 8 + ((1.0,) * 16,) * 8
# Method -> its fields as a visitor fills them in, and the control that Python is given.
FIELDS = {
    "attend": ({"words": "cat\nbike", "iterations": "2", "padding": False},
               pw.AttendAndExcite(("cat", "bike"), iterations=2, padding=False)),
    "compose": ({"phrases": "a cat\na bike"}, pw.StructuredDiffusion(("a cat", "a bike"))),
    "pag": ({"scale": "2", "layers": "LAYER"}, lambda layer: pw.PerturbedAttentionGuidance(2, layer)),
    "place": ({"regions": "cat=0,0.25,0.5,1\nbike=0.5,0,1,1", "share": "0:0.7"},
              pw.DirectedDiffusion((("cat", (0, 0.25, 0.5, 1)), ("bike", (0.5, 0, 1, 1))), share=(0, 0.7))),
    "seg": ({"sigma": "2", "layers": "LAYER"}, lambda layer: pw.SmoothedEnergyGuidance(sigma=2, layers=layer)),
    "skip-layer": ({"layers": "1", "window": "0:0.9"}, pw.SkipLayerGuidance(layers=(1,), window=(0, 0.9))),
    "cds": ({"rounds": "1", "patches": "4"}, pw.ContrastiveDenoising(rounds=1, patches=4)),
    "dds": ({"rounds": "1", "rate": "0.5"}, pw.DeltaDenoising(rounds=1, rate=0.5)),
    "masactrl": ({"words": "cat", "start": "0", "threshold": "0.2"},
                 pw.MasaCtrl(start=0, words="cat", threshold=0.2)),
    "pnp": ({"features": "0.9", "attention": "0.2:0.8"}, pw.PlugAndPlay(features=0.9, attention=(0.2, 0.8))),
    "mix": ({"word": "cat", "proxies": "dog\nlion", "window": "0:0.5", "threshold": "0.9"},
            pw.PromptMixing("cat", ("dog", "lion"), window=(0, 0.5), threshold=0.9)),
    "sega": ({"concept": "a dog=4", "away": "snow", "warmup": "0"},
             pw.SemanticGuidance({"a dog": 4, "snow": -5}, warmup=0)),
    "translate": (
        {"source": "cat", "target": "dog", "attention_guidance": "0.2"},
        pw.Pix2PixZero("cat", "dog", attention_guidance=0.2),
    ),
}  # fmt: skip
KINDS_OF = {  # kind -> its fields, and parts of the page that it reads
    "flow": ({"strength": "0.7", "target_guidance": "4"}, {}),
    "consist": ({"structure": "0.5"}, {"blend": ("cat",)}),
    "uniedit": ({"omega": "3"}, {"weights": {"dog": 2}}),
    "directedit": ({"inject": "0:0.5"}, {"blend": ("dog",), "threshold": 0.5}),
    "kvedit": ({"reinitialise": True}, {"mask": MASK}),
    "inpaint": ({"resamplings": "2", "jump": "1"}, {"mask": MASK}),
}


@pytest.fixture(scope="module", params=["tiny", "sd3"])
def model(request, tokenizer):
    return request.getfixturevalue("tiny") if request.param == "tiny" else pw.load(build_sd3(tokenizer))


def usual(model):
    return {"model": model, "steps": STEPS, "seed": SEED}


def filled(name, model):
    """The fields of a method, with names of layers of the network, and the control for Python."""
    fields, control = FIELDS[name]
    layer = next(site.name for site in model.sites((16, 16)) if site.kind in ("self", "joint"))
    fields = {name: layer if value == "LAYER" else value for name, value in fields.items()}
    return fields, control(layer) if callable(control) else control


def in_python(name, model, *, run):
    """What Python makes of a method: images, or without `run` the recipe alone."""
    settings = Settings(steps=STEPS, seed=SEED)
    if name in KINDS_OF:
        fields, parts = KINDS_OF[name]
        targets, options = (TARGET,), {"kind": name, **methods()[name].read(fields), **parts}
    else:
        what, control = method_commands()[name][0], filled(name, model)[1]
        targets = {"one": (), "targets": (TARGET,), "same": (SOURCE,), "repeated": (SOURCE, SOURCE)}[what.prompts]
        options = {"controls": [control]}
    if run and not targets:
        return pw.generate(SOURCE, model=model, settings=settings, **options).sample.pictures[:, 0]
    if run:
        return pw.edit(SOURCE, *targets, model=model, settings=settings, **options).sample.pictures[:, 0]
    if not targets:
        return with_controls(recipe_for(model, SOURCE, (), settings), options["controls"], model)
    controls = options.pop("controls", None)
    return plan(SOURCE, targets, model, options, settings, controls=controls)


def test_every_method_of_the_page_makes_the_image_of_python_and_comes_back_from_its_file(model, tmp_path):
    """All have Python's recipe and Python's pixels."""
    session = Session(Studio([model]))
    base = session.generate(SOURCE, SEED, STEPS)
    names = [one.name for one in offered(model)]
    assert len(names) == (12 if joint(model) else 15)
    for name in names[1:]:
        session.go(base.number)
        if name in KINDS_OF:
            fields, parts = KINDS_OF[name]
            node = session.edit(Form(TARGET, method=name, more=methods()[name].read(fields), **parts))
        else:
            fields = filled(name, model)[0]
            node = apply(session, name, TARGET, fields)
        assert node.recipe == in_python(name, model, run=False) and node.parent == base.number, name
        assert (node.pixels != base.pixels).any() and name in changed(node), name
        method, texts = asked_of(node.recipe, node.row)
        if method in KINDS_OF:
            assert methods()[name].read(texts) == methods()[name].read(fields)
        else:
            assert methods()[name].asked(model, SOURCE, texts)[2] == node.recipe.controls[0]
        upload = read_upload(session.save(tmp_path)[0])
        assert upload.recipe == node.recipe and asked_of(upload.recipe, node.row) == (name, texts)
        images = in_python(name, model, run=True)
        source, images = (base.pixels, images) if len(images) == 1 else (images[0], images[1:])
        nodes = [session.tree.nodes[node.number + i] for i in range(len(images))]
        assert all(np.array_equal(one.pixels, image) for one, image in zip(nodes, images, strict=True)), name
        if name in ("attend", "mix"):
            other = Session(session.studio)
            again, said = other.open(session.save(tmp_path)[0], "", 0, 1)
            assert "match" in said and asked_of(again.recipe, again.row) == (name, texts), (name, said)
            assert again.parent is not None and np.array_equal(other.before().pixels, source), (
                name
            )  # of the same passes


def test_what_fits_each_family(tiny, tokenizer):
    flux, guided = pw.load(build_flux(tokenizer)), {name for name, one in methods().items() if "guided" in one.requires}
    assert guided == {"sega"} and not methods()["sega"].fits(flux) and methods()["sega"].fits(tiny)
    for model in (flux, pw.load(build_sdxl(tokenizer))):
        unfit = [
            name for name, one in methods().items() if not one.fits(model) and name in FIELDS and name not in guided
        ]
        assert bool(unfit) == joint(model)
        for name in unfit:
            with pytest.raises(ValueError):  # the method says so itself
                in_python(name, model, run=True)


def test_a_steered_image_is_edited_further(tiny):
    session = Session(Studio([tiny]))
    session.generate(SOURCE, SEED, 2)
    steered = apply(session, "attend", "", {"words": "cat", "iterations": "1"})
    assert session.distance()["changed_pixels"] > 0
    session.further()
    node = session.edit(Form(TARGET))
    assert node.recipe.base == steered.recipe and node.recipe.base_row == 0 and session.before() is steered
    with pytest.raises(ValueError, match="steers an image while it is made from its prompt"):
        apply(session, "place", "", {"regions": "cat=0,0,0.5,1"})


def test_the_list_is_that_of_the_commands_and_kinds(tiny):
    names = set(methods())
    assert names == {EDIT, *method_commands(), *(kind for kind in KINDS if kind not in ("replace", "refine"))}
    for name, method in methods().items():
        html = forms()[name]
        assert html == form_html(method)
        for listed in method.fields:
            assert f'data-field="{listed.name}"' in html and label_of(listed) in html
            usual = method.usual[listed.name]
            if not listed.required and not isinstance(usual, bool | None) and usual != ():
                (read,) = method.read({listed.name: text_of(usual)}).values() or [usual]
                assert read == usual  # what is shown as the default is the default
        assert method.about.endswith(".") and page_of(method) is not None
        assert "](../" not in documentation(name) and "![" not in documentation(name)


def test_a_command_of_a_method_is_on_the_page_without_a_line_there(monkeypatch, tiny):
    from promptweave.core.fields import Command

    monkeypatch.setattr(
        pw.SharedStart, "command", Command("begin", "Share the start.", prompts="targets"), raising=False
    )
    known = {**method_commands(), "begin": (pw.SharedStart.command, "promptweave.methods.shared_start:SharedStart")}
    monkeypatch.setattr("promptweave.apps.web.offered.method_commands", lambda: known)
    methods.cache_clear()
    try:
        assert [label_of(one) for one in methods()["begin"].fields] == ["Shared start"] and "begin" in [
            o.name for o in offered(tiny)
        ]
        session = Session(Studio([tiny]))
        session.generate(SOURCE, SEED, STEPS)
        node = apply(session, "begin", TARGET, {"share": "0.5"})
        assert node.recipe.controls == (pw.SharedStart(0.5),) and asked_of(node.recipe, 1) == (
            "begin",
            {"share": "0.5"},
        )
    finally:
        methods.cache_clear()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("place", {}, "place needs a value for Region: box of a word"),
        ("place", {"regions": "cat=0,0"}, "Region takes word=left,top,right,bottom"),
        ("place", {"regions": "cat=0,0,1,1", "weaken": "7"}, "Weaken takes a number of at least 0 and at most 1."),
        ("attend", {"words": "horse"}, "'horse' is not a word"),
        ("attend", {"share": "half"}, "Share takes a number. Received 'half'"),
        ("attend", {"padding": "yes"}, "Padding is true or false"),
        ("sega", {}, "Give Concept TEXT or Away TEXT"),
        ("masactrl", {"masks": "a.png"}, "masactrl has the options"),
        ("mix", {"word": "cat"}, "mix needs a value for Proxy"),
        ("flow", {}, "For this model there are edit, inpaint, cds"),
        ("inpaint", {}, "inpaint is a kind of edit"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_field_is_a_sentence_and_changes_nothing(tiny, name, fields, message):
    session = Session(Studio([tiny]))
    session.generate(SOURCE, 0, 2)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        apply(session, name, TARGET, fields)
    assert "--" not in str(error.value) and len(session.tree.nodes) == 1
    assert isinstance(error.value, UnknownMethod) == (name == "flow")
    assert isinstance(error.value, Missing) == ("needs a value" in message)


def test_a_method_keeps_to_the_limits_before_any_work(tiny):
    session = Session(Studio([tiny], limits=Limits(images=2)))
    session.generate(SOURCE, 0, 2)
    tiny.predict = lambda *given, **named: pytest.fail("the network ran")
    try:
        for name, fields, message in (
            ("attend", {"words": "cat", "iterations": "1000000"}, "at most 100 for iterations"),
            ("dds", {"rounds": "500"}, "at most 100 for rounds"),
            ("mix", {"word": "cat", "proxies": "dog\nlion"}, "at most 2 for images at once"),
            ("sega", {"concept": "a" * 2000}, "at most 1000 for characters"),
            ("compose", {"phrases": "\n".join("a cat" for _ in range(100))}, "at most 64 for parts of phrases"),
        ):
            with pytest.raises(TooMuch, match=message):
                apply(session, name, TARGET, fields)
    finally:
        del tiny.predict
    assert apply(session, "cds", TARGET, {"rounds": "1", "patches": "256"}) or True


@pytest.mark.parametrize(
    "sent", [None, "edit", {"method": "edit"}, {"method": 1, "values": {}}, {"method": "edit", "values": {"a": [1]}}]
)
def test_a_form_that_no_browser_sends_is_refused(sent):
    with pytest.raises(ValueError, match="Reload the page"):
        read_form(sent)


def test_the_options_of_an_edit_that_had_no_field_reach_the_controls(tiny):
    session = Session(Studio([tiny]))
    session.generate(SOURCE, 0, 4)
    more = methods()[EDIT].read({"shared_start": "0.5", "blend_start": "0", "two_pass": True, "self_grid": "4"})
    node = session.edit(Form(TARGET, blend=("dog",), more=more))
    assert Form.of(node.recipe).more == more and asked_of(node.recipe, 1)[1]["two_pass"] is True
    assert {form_of(one).metavar for one in methods()[EDIT].fields} >= {"INTEGER", "NUMBER", ""}
