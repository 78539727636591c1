"""Every fraction and window of every control is checked before the first step, with a sentence that names it."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
from families import build_sd3

import promptweave as pw
from promptweave import methods
from promptweave.core.control import Control
from promptweave.sampling.loop import Job
from promptweave.sampling.recording import Capture, Kept

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
HALF = ((1.0,) * 8 + (0.0,) * 8,) * 16
PAIRS: list[tuple[Control, tuple[str, ...]]] = [  # a window is a number or a pair
    (pw.Replace(), ("cross", "self_attention", "joint")),
    (pw.Refine(), ("cross", "self_attention", "joint")),
    (pw.Replace(reference_compat=True), ("cross", "self_attention", "joint")),
    (pw.Reweight({"dog": 2}), ("window",)),
    (pw.SharedStart(), ("share",)),
    (pw.PlugAndPlay(block="up_res_0_1"), ("features", "attention")),
    (pw.DirectedDiffusion({"bike": (0, 0, 0.5, 0.5)}), ("share",)),
    (pw.AttendAndExcite("bike"), ("share",)),
    (pw.Pix2PixZero("cat", "dog"), ("window",)),
    (pw.Consist("cat"), ("structure",)),
    (pw.DirectEdit(), ("inject",)),
    (pw.PerturbedAttentionGuidance(), ("window",)),
    (pw.SmoothedEnergyGuidance(), ("window",)),
    (pw.SkipLayerGuidance(layers=(3,)), ("window",)),
    (pw.PromptMixing("dog", "horse", preserve="bike"), ("window", "self_attention")),
]
NUMBERS: list[tuple[Control, tuple[str, ...]]] = [  # a fraction is one number
    (pw.LocalBlend("cat"), ("start", "threshold", "subtract_threshold")),
    (pw.LocalBlend("cat", reference_compat=True), ("start",)),
    (pw.MasaCtrl(), ("start", "layers", "threshold")),
    (pw.PlugAndPlay(block="up_res_0_1"), ("layers",)),
    (pw.SemanticGuidance({"a lion": 4}), ("warmup",)),
    (pw.Consist("cat"), ("threshold",)),
    (pw.FlowEdit(), ("strength", "free")),
    (pw.UniEdit(), ("strength",)),
    (pw.Inpaint(HALF), ("strength",)),
    (pw.KVEdit(HALF), ("strength", "threshold")),
]
JOINT = (pw.Consist, pw.FlowEdit, pw.UniEdit, pw.DirectEdit, pw.KVEdit)  # for networks with joint attention
# They act in all steps.
WITHOUT = {methods.StructuredDiffusion, methods.DeltaDenoising, methods.ContrastiveDenoising}
NEVER: list[Any] = ["0.5", True, -0.1, 1.2, float("nan"), float("inf"), (), (0.5,), (0.1, 0.2, 0.3), (0.6, 0.4),
                    (-0.1, 0.5), (0.2, 1.1), (0.1, "x"), (0.1, True), (0.1, None)]  # fmt: skip
RULE = "is one number or a pair|must satisfy 0 <= start <= end <= 1|is a fraction, one number in"


def cases(controls: list[tuple[Control, tuple[str, ...]]]) -> list[Any]:
    return [pytest.param(control, name, id=f"{type(control).__name__}-{number}-{name}")
            for number, (control, names) in enumerate(controls) for name in names]  # fmt: skip


@pytest.fixture(scope="module")
def joint(tokenizer):
    return pw.load(build_sd3(tokenizer))


def bind(tiny, joint, control: Control, name: str, value: Any) -> None:
    """Bind the control with another value of a field, as an untyped caller may give it."""
    changed = copy.copy(control)
    object.__setattr__(changed, name, value)
    model = joint if isinstance(control, JOINT) else tiny
    prompts = [SOURCE, SOURCE if isinstance(control, pw.Pix2PixZero) else TARGET]
    Job(prompts, pw.noise_for(model, 0), 10, 3.0, [changed]).bind(model)


@pytest.mark.parametrize(("control", "name"), cases(PAIRS))
def test_what_is_no_window(tiny, joint, control, name):
    for value in [None, *NEVER]:
        with pytest.raises(ValueError, match=f"{name} of {type(control).__name__} ({RULE})") as error:
            bind(tiny, joint, control, name, value)
        assert f"Received {value!r}" in str(error.value)
    for value in (0.9, 1, (0.2, 0.9), pw.Window(0.1, 0.9)):
        bind(tiny, joint, control, name, value)


@pytest.mark.parametrize(("control", "name"), cases(NUMBERS))
def test_what_is_no_fraction(tiny, joint, control, name):
    missing = [] if isinstance(control, pw.FlowEdit) and name == "strength" else [None]  # its model family's
    for value in [*missing, *NEVER, (0.2, 0.6), pw.Window(0.2, 0.6)]:
        with pytest.raises(ValueError, match=f"{name} of {type(control).__name__} ({RULE})") as error:
            bind(tiny, joint, control, name, value)
        assert f"Received {value!r}" in str(error.value)
    bind(tiny, joint, control, name, 0.3)


@pytest.mark.parametrize("value", [None, *NEVER])
def test_windows_of_words_and_of_thresholds_and_of_recordings(tiny, joint, value):
    for control, name in ((pw.Replace(), "cross"), (pw.Reweight({"dog": 2}), "window")):
        with pytest.raises(ValueError, match=f"{name} of .* ({RULE})"):
            bind(tiny, joint, control, name, {"default": 0.5, "dog": value})
    for thresholds in ([(value, 0.5)], [(0.5, value)], [(0.5,)], [0.5], [(1.0, 0.5)], [(0.5, 1.0)]):
        with pytest.raises(ValueError, match="thresholds of AttendAndExcite"):
            bind(tiny, joint, pw.AttendAndExcite("bike"), "thresholds", thresholds)
    for name in ("cross", "self_attention", "joint"):
        kept = copy.copy(Kept())
        object.__setattr__(kept, name, value)
        with pytest.raises(ValueError, match=f"{name} of a recording ({RULE})"):
            kept.__post_init__()


def test_a_window_that_the_network_does_not_read_is_checked_too(joint):
    control = copy.copy(pw.Replace())
    for name in ("cross", "self_attention"):
        object.__setattr__(control, name, (0.2, 1.2))
        with pytest.raises(ValueError, match=f"{name} of Replace must satisfy"):
            Job([SOURCE, TARGET], pw.noise_for(joint, 0), 10, 3.0, [control]).bind(joint)
        object.__setattr__(control, name, 0.4)


def test_no_window_is_forgotten():
    """Every method is in the lists, and every field of theirs that holds a fraction or a window."""
    classes = {value for value in vars(methods).values() if isinstance(value, type) and issubclass(value, Control)}
    listed: dict[type, set[str]] = {}
    for control, names in (*PAIRS, *NUMBERS):
        listed.setdefault(type(control), set()).update(names)
    assert classes - WITHOUT == set(listed)
    words = {"cross", "self_attention", "joint", "window", "share", "start", "features", "attention", "layers",
             "warmup", "structure", "free", "threshold", "subtract_threshold", "strength", "inject"}  # fmt: skip
    for kind in classes:
        named = {field.name for field in fields(kind)} & words
        if kind is methods.SemanticGuidance:
            named -= {"attention", "threshold"}  # a switch, and a quantile with a check of its own
        if kind in (methods.DirectedDiffusion, methods.Pix2PixZero):
            named -= {"strength"}  # a factor
        if kind is methods.PromptMixing:
            named -= {"threshold"}  # that of its LocalBlend
        if "layers" in named and kind not in (methods.MasaCtrl, methods.PlugAndPlay):
            named -= {"layers"}  # names or numbers of layers
        assert named <= listed.get(kind, set()), kind.__name__
    assert Capture().kept == Kept()
