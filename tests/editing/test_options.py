"""One list of options: what is given is read, or it is an error that says what would read it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from typing import Any, get_type_hints

import numpy as np
import pytest
from families import build_sd3

import promptweave as pw
from promptweave.core.fields import options_of
from promptweave.core.kept import Kept
from promptweave.editing.edit import RecordOptions
from promptweave.editing.options import EditOptions, PromptToPrompt
from promptweave.editing.plan import bind, plan
from promptweave.editing.settings import RunOptions, Settings
from promptweave.editing.usual_strengths import PUBLISHED
from promptweave.editing.values import BadValue, as_json, read_option, read_options, read_value
from promptweave.editing.who_reads import ASKED, FIELDS, KINDS, Unread, asked

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
STEPS = {"steps": 5}
VALUES = {
    "cross": 0.35, "self_attention": (0.1, 0.3), "self_grid": 64, "joint": 0.6, "blocks": None,  # a layer of the model
    "weights": {"dog": 2.5}, "blend": "bike", "subtract": "bike", "threshold": 0.45, "blend_start": 0.25,
    "mask": ((1.0, 0.0), (0.0, 1.0)), "combine": "union", "shared_start": 0.4, "strength": 0.7,
    "source_guidance": 2.5, "target_guidance": 6.5, "structure": 0.45, "reference_compat": True, "two_pass": True,
    "omega": 2.5, "inject": 0.35, "reinitialise": True,
}  # fmt: skip
BY_WORDS = {"cross", "self_attention", "self_grid", "reference_compat", "two_pass"}
EVERYWHERE = {"weights", "blend", "mask", "shared_start"}
BLENDING = {"subtract", "threshold", "blend_start", "reference_compat"}
OWN = {  # kinds that all of these compose with
    "flow": {"strength", "source_guidance", "target_guidance"}, "uniedit": {"strength", "omega", "target_guidance"},
    "directedit": {"inject", "blocks"}, "inpaint": {"strength"}, "dds": set(), "cds": set(),
}  # fmt: skip
ALONE = ("consist", "kvedit")  # whose own words `blend` names, words of the source


def read(kind: str, joint: bool, blend: bool) -> set[str]:
    """What is read, written out by hand."""
    if kind == "consist":
        return {"blend", "structure", "blocks"}
    if kind == "kvedit":
        return {"blend", "mask", "strength", "reinitialise", "blocks"} | ({"threshold"} if blend else set())
    if kind in OWN:
        return EVERYWHERE | OWN[kind] | (BLENDING if blend else set())
    return EVERYWHERE | ({"joint", "blocks"} if joint else BY_WORDS) | (BLENDING if blend else set())


@pytest.fixture(scope="module")
def sd3(tokenizer):
    return pw.load(build_sd3(tokenizer))


@pytest.fixture(params=["UNet", "joint attention"])
def model(request, tiny, sd3):
    return tiny if request.param == "UNet" else sd3


@pytest.mark.parametrize("kind", ["auto", *KINDS])
@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("option", VALUES)
def test_every_pair_of_kind_and_option_is_built_or_refused(model, kind, option, blend):
    """No third outcome: the value stands in a control, or the error names the option and who reads it."""
    joint = any(site.kind == "joint" for site in model.sites((16, 16)))
    value = VALUES[option] or ((next(site.name for site in model.sites((16, 16))),))
    companions = {"blend": "cat" if kind in ALONE else "dog"} if blend or kind == "consist" else {}
    given = {"kind": kind, **companions, option: value}
    if option in read(kind, joint, blend):
        controls = plan(SOURCE, [TARGET], model, given, Settings(**STEPS)).controls
        fields = [FIELDS[type(c)][option] for c in controls if option in FIELDS[type(c)]]
        found = [getattr(c, f) for c in controls for f in fields if option in FIELDS[type(c)]]
        assert value in found
    else:
        with pytest.raises(Unread, match=f"^Nothing reads {option} here: ") as caught:
            plan(SOURCE, [TARGET], model, given, Settings(**STEPS))
        readers = [reader.__name__ for reader, fields in FIELDS.items() if option in fields]
        assert any(name in str(caught.value) for name in readers) and "Leave" in str(caught.value)


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_every_option_beside_own_controls_is_refused(tiny, kind):
    for option, value in {**VALUES, "kind": kind, "blocks": ("a",)}.items():
        with pytest.raises(Unread, match=f"Nothing reads {option} here: controls replace those"):
            pw.edit(SOURCE, TARGET, model=tiny, controls=[pw.Replace()], **STEPS, **{option: value})


def test_given_is_given_even_if_it_is_the_usual_value(tiny, sd3):
    usual = {listed.name: listed.default for listed in options_of(PromptToPrompt)} | PUBLISHED.windows
    for model, option in ((tiny, "joint"), (sd3, "cross"), (tiny, "threshold"), (tiny, "structure")):
        with pytest.raises(Unread, match=option):
            pw.edit(SOURCE, TARGET, model=model, **STEPS, **{option: usual[option]})


def test_a_mask_alone_has_no_threshold_and_nothing_to_be_combined_with(tiny):
    mask = VALUES["mask"]
    for option in ("threshold", "combine"):
        with pytest.raises(Unread, match=f"Nothing reads {option} here: LocalBlend reads it"):
            plan(SOURCE, [TARGET], tiny, {"mask": mask, option: VALUES[option]})
    both = plan(SOURCE, [TARGET], tiny, {"mask": mask, "blend": "dog", "combine": "union"}).controls
    assert both[-1] == pw.LocalBlend("dog", mask=mask, combine="union")


def test_flow_and_consist_need_their_models(tiny):
    for kind, said in (("flow", "velocities of a flow model"), ("consist", "controls joint attention")):
        recipe = plan(SOURCE, [TARGET], tiny, {"kind": kind, "blend": "cat"}, Settings(**STEPS))
        with pytest.raises(ValueError, match=said):
            bind(recipe, tiny)


def test_what_composed_with_flow_still_does(sd3):
    given = {"kind": "flow", "weights": {"dog": 2}, "blend": "dog", "shared_start": 0.4, "strength": 1.0}
    assert [type(c) for c in plan(SOURCE, [TARGET], sd3, given).controls] == [
        pw.FlowEdit, pw.Reweight, pw.SharedStart, pw.LocalBlend
    ]  # fmt: skip


def test_inversion_needs_an_image_that_is_inverted(tiny, sd3):
    picture = np.full((32, 32, 3), 90, np.uint8)
    with pytest.raises(Unread, match="inversion says how an input image"):
        pw.edit(SOURCE, TARGET, model=tiny, inversion="direct", **STEPS)
    with pytest.raises(Unread, match="FlowEdit starts from the image itself"):
        pw.edit(SOURCE, TARGET, model=sd3, kind="flow", image=picture, inversion="ddim", **STEPS)
    recording = pw.record(SOURCE, model=tiny, **STEPS)
    with pytest.raises(Unread, match="the recording has none"):
        pw.edit(recording, TARGET, model=tiny, inversion="direct")
    assert pw.edit(SOURCE, TARGET, model=tiny, image=picture, inversion="ddim", **STEPS).recipe.inversion == "ddim"


def test_the_keywords_are_the_fields():
    """The TypedDicts are for type checkers alone; they say the same as the dataclasses."""
    for keywords, lists in (
        (EditOptions, (PromptToPrompt, Settings)),
        (RunOptions, (Settings,)),
        (RecordOptions, (Kept, Settings)),
    ):
        fields = {listed.name: listed.type for kind in lists for listed in options_of(kind)}
        fields |= {"mask": Any} if "mask" in fields else {}  # also files and arrays, which `edit` reads into rows
        assert get_type_hints(keywords) == fields and not keywords.__required_keys__
    for kind in (PromptToPrompt, Settings, Kept):
        assert [listed.name for listed in options_of(kind)] == [field.name for field in dataclasses.fields(kind)]
        assert all(listed.option.help.endswith((".", "]")) for listed in options_of(kind))


def test_every_option_has_a_reader_with_that_field_and_its_default():
    options = {listed.name: listed for listed in options_of(PromptToPrompt)}
    assert {option for fields in FIELDS.values() for option in fields} == set(options) - {"kind"}
    assert set(FIELDS) == set(ASKED) and set(KINDS.values()) <= set(FIELDS)
    for control, fields in FIELDS.items():
        usual = {field.name: field.default for field in dataclasses.fields(control)}
        for option, field in fields.items():
            assert options[option].default in (None, usual[field]), (control, option)


def test_edit_has_at_most_twelve_parameters():
    assert len(inspect.signature(pw.edit).parameters) <= 12


def test_an_unknown_keyword_is_answered_with_the_nearest(tiny):
    with pytest.raises(TypeError, match="edit has no option 'crss'. Did you mean cross?"):
        pw.edit(SOURCE, TARGET, model=tiny, crss=0.5)
    for call in (pw.generate, pw.record, pw.word_maps, pw.look):
        with pytest.raises(TypeError, match="has no option 'sed'. Did you mean seed?"):
            call(SOURCE, model=tiny, sed=3)
    with pytest.raises(TypeError, match="Did you mean threshold?"):
        pw.sweep(SOURCE, TARGET, model=tiny, treshold=0.2)


def test_settings_as_one_or_one_by_one(tiny):
    together = pw.edit(SOURCE, TARGET, model=tiny, settings=Settings(seed=3, steps=2, negative="snow"))
    assert together.recipe == pw.edit(SOURCE, TARGET, model=tiny, seed=3, steps=2, negative="snow").recipe
    assert (
        together.recipe
        == pw.edit(SOURCE, TARGET, model=tiny, settings=Settings(seed=3, steps=2), negative="snow").recipe
    )
    with pytest.raises(ValueError, match="seed was given twice"):
        pw.edit(SOURCE, TARGET, model=tiny, settings=Settings(seed=3), seed=4, steps=2)
    given = {
        "seed": 4,
        "images": 2,
        "steps": 3,
        "guidance": 2.5,
        "size": (24, 40),
        "negative": "snow",
        "truncate": True,
    }
    recipe = plan(SOURCE, [TARGET], tiny, {}, Settings(**given))
    assert {name: getattr(recipe, name) for name in given} == given
    needs_image = {"fit", "keep_original"}
    assert {*given, *needs_image} == {listed.name for listed in options_of(Settings)}
    with pytest.raises(Unread, match="word_maps shows a single image"):
        pw.word_maps(SOURCE, model=tiny, images=2, steps=2)
    assert pw.word_maps(SOURCE, model=tiny, settings=Settings(steps=2)).prompt == SOURCE


def test_a_recording_of_a_result_has_the_results_settings(tiny):
    made = pw.edit(SOURCE, TARGET, model=tiny, **STEPS)
    for name, value in (("seed", 3), ("steps", 5), ("truncate", True)):
        with pytest.raises(Unread, match=f"Nothing reads {name} here: a result has the settings of its own run"):
            pw.record(made, model=tiny, **{name: value})
    with pytest.raises(Unread, match="row selects a row of a result"):
        pw.record(SOURCE, model=tiny, row=1)


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_asked_is_the_inverse_of_the_controls(sd3, tiny, kind):
    model = sd3 if kind in ("flow", "uniedit", "directedit", *ALONE) else tiny
    some = read(kind, model is sd3, blend=True) - {"blocks", "mask"}
    given = {"kind": kind, **{name: VALUES[name] for name in some}, "blend": "cat"}
    words = [model.words(prompt) for prompt in (SOURCE, TARGET)]
    controls = PromptToPrompt(**given).controls(words, 50)
    found = asked(controls)
    assert {name: found[name] for name in some} == {name: given[name] for name in some}
    assert PromptToPrompt(**found).controls(words, 50) == controls


@pytest.mark.parametrize(
    ("kind", "option", "value", "message"),
    [
        (PromptToPrompt, "kind", "bogus", "kind must be one of auto, replace"),
        (PromptToPrompt, "cross", "0.5", "cross must be a number"),
        (PromptToPrompt, "cross", {"dog": 1.5}, "cross: A window must satisfy"),
        (PromptToPrompt, "cross", (0.1, 0.2, 0.3), "cross must be"),
        (PromptToPrompt, "blend", [1], "blend must be a list"),
        (PromptToPrompt, "weights", {"dog": "2"}, "weights must be a mapping"),
        (PromptToPrompt, "mask", [[1, "a"]], "mask must be a list"),
        (PromptToPrompt, "mask", [[0.5, 2.0]], "mask must be a list .*at most 1"),
        (PromptToPrompt, "threshold", True, "threshold must be a number"),
        (PromptToPrompt, "reference_compat", 1, "reference_compat must be true or false"),
        (Settings, "seed", -1, "seed must be a whole number, at least 0"),
        (Settings, "steps", 3.0, "steps must be a whole number"),
        (Settings, "steps", 1001, "at most 1000"),
        (Settings, "size", [24], "size must be 2 values"),
        (Settings, "size", [0, 24], "size must be 2 values .*at least 1"),
        (Settings, "guidance", float("nan"), "guidance must be a number"),
    ],
)
def test_values_of_a_wrong_type_or_size_name_the_field(kind, option, value, message):
    with pytest.raises(BadValue, match=message):
        read_options(kind, {option: value})


def test_values_are_read_into_what_the_fields_hold():
    given = {"cross": {"dog": [0.1, 0.5], "default": 1}, "blend": ["dog"], "mask": np.eye(2)}
    assert read_options(PromptToPrompt, {**given, "weights": {"dog": np.float32(2)}}) == {
        "cross": {"dog": (0.1, 0.5), "default": 1}, "blend": ("dog",), "mask": ((1.0, 0.0), (0.0, 1.0)),
        "weights": {"dog": 2.0},
    }  # fmt: skip
    assert PromptToPrompt(blend=["dog"]) == PromptToPrompt(blend=("dog",))
    assert read_options(Settings, {"size": [24, 40], "seed": np.int64(3)}) == {"size": (24, 40), "seed": 3}
    assert read_value(pw.Window, [0.1, 0.5]) == pw.Window(0.1, 0.5)
    seed = next(listed for listed in options_of(Settings) if listed.name == "seed")
    assert read_option(seed, None) is None and read_option(seed, 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_have_are_written_as_text_and_read_back(value):
    text = as_json({"sigma": (value, 1.5)})
    assert text == f'{{"sigma": ["{value}", 1.5]}}'
    read = read_value(tuple[float, ...], json.loads(text)["sigma"])
    assert read[1] == 1.5 and (read[0] == value or math.isnan(read[0]) and math.isnan(value))
    with pytest.raises(BadValue, match="guidance"):
        read_options(Settings, {"guidance": str(value)})
