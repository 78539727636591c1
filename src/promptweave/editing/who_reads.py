"""Which options request which control of an edit, and which control reads which option."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from promptweave.core.control import Control, Run
from promptweave.methods import (
    Consist,
    ContrastiveDenoising,
    DeltaDenoising,
    DirectEdit,
    FlowEdit,
    Inpaint,
    KVEdit,
    LocalBlend,
    Refine,
    Replace,
    Reweight,
    SharedStart,
    UniEdit,
)

KINDS: dict[str, type[Control]] = {
    "replace": Replace, "refine": Refine, "flow": FlowEdit, "consist": Consist, "uniedit": UniEdit,
    "directedit": DirectEdit, "kvedit": KVEdit, "inpaint": Inpaint, "dds": DeltaDenoising,
    "cds": ContrastiveDenoising,
}  # fmt: skip
ALONE = ("consist", "kvedit")  # that find their region themselves, and so read blend and mask
WHOLE = ("flow", "uniedit", "directedit", "dds", "cds", "inpaint")  # in the place of an injection, for all targets

_WINDOWS = {
    name: name for name in ("cross", "self_attention", "self_grid", "joint", "blocks", "reference_compat", "two_pass")
}
FIELDS: dict[type[Control], dict[str, str]] = {  # option -> field of the control that reads it
    Replace: _WINDOWS,
    Refine: _WINDOWS,
    Reweight: {"weights": "weights", "reference_compat": "reference_compat"},
    SharedStart: {"shared_start": "share"},
    LocalBlend: {
        "blend": "words", "subtract": "subtract", "threshold": "threshold", "blend_start": "start", "mask": "mask",
        "combine": "combine", "reference_compat": "reference_compat",
    },
    FlowEdit: {name: name for name in ("strength", "source_guidance", "target_guidance")},
    Consist: {"blend": "words", "structure": "structure", "blocks": "blocks"},
    Inpaint: {name: name for name in ("mask", "strength", "resamplings", "jump")},
    DeltaDenoising: {},
    ContrastiveDenoising: {},
    UniEdit: {"strength": "strength", "omega": "omega", "target_guidance": "guidance"},
    DirectEdit: {"inject": "inject", "blocks": "blocks"},
    KVEdit: {
        "blend": "words", "mask": "mask", "threshold": "threshold", "strength": "strength",
        "reinitialise": "reinitialise", "blocks": "blocks",
    },
}  # fmt: skip
ASKED: dict[type[Control], str] = {  # the options that request each control
    Replace: 'kind "auto" or "replace"',
    Refine: 'kind "auto" or "refine"',
    Reweight: "weights",
    SharedStart: "shared_start",
    LocalBlend: "blend or mask",
    FlowEdit: 'kind "flow"',
    Consist: 'kind "consist"',
    Inpaint: 'kind "inpaint"',
    DeltaDenoising: 'kind "dds"',
    ContrastiveDenoising: 'kind "cds"',
    UniEdit: 'kind "uniedit"',
    DirectEdit: 'kind "directedit"',
    KVEdit: 'kind "kvedit"',
}


class Unread(ValueError):
    """An option was given, but nothing reads it."""


def asked(controls: Sequence[Control]) -> dict[str, Any]:
    """The options that request these controls, as far as there are any; the inverse of `PromptToPrompt.controls`."""
    found: dict[str, Any] = {}
    kinds = [name for control in controls for name, kind in KINDS.items() if type(control) is kind]
    if len(kinds) == 1:
        found["kind"] = kinds[0]
    for control in controls:
        for option, field in FIELDS.get(type(control), {}).items():
            value, known = getattr(control, field), found.get(option)
            if isinstance(value, Mapping) and isinstance(known, Mapping):  # each target has its own words' windows
                found[option] = {**known, **value}
            elif value is not None:
                found.setdefault(option, value)
    return found


def check_read(given: Collection[str], controls: Sequence[Control], run: Run) -> None:
    """Raise Unread for an option that none of the controls reads."""
    for option in given:
        readers = [control for control in controls if option in FIELDS.get(type(control), {})]
        reasons = [control.unread(run).get(FIELDS[type(control)][option]) for control in readers]
        if option == "kind" or None in reasons:
            continue
        if readers:
            raise Unread(
                f"Nothing reads {option} here: {type(readers[0]).__name__} reads it {reasons[0]}. Leave {option} out."
            )
        names = [kind.__name__ for kind, fields in FIELDS.items() if option in fields]
        asking = [ASKED[kind] for kind, fields in FIELDS.items() if option in fields]
        raise Unread(
            f"Nothing reads {option} here: it is an option of {' and '.join(names)} "
            f"({', '.join(dict.fromkeys(asking))}), and this edit has "
            f"{', '.join(type(control).__name__ for control in controls)}. Leave {option} out, or ask for its reader."
        )
