"""Every command has every common option, or a reason why not stands here; those of `bench` measure, with their own."""

from __future__ import annotations

from importlib import import_module

import pytest

from promptweave.apps.cli import COMMANDS
from promptweave.apps.common import SETTINGS, Folder, Given, OneFile, Opening, Speaking
from promptweave.apps.declared import method_commands
from promptweave.core.fields import options_of

MODEL = tuple(option.name for option in options_of(Opening))
IMAGE = tuple(option.name for option in SETTINGS.listed)
COMMON = {
    **dict.fromkeys(MODEL, "Opening"), **dict.fromkeys(IMAGE, "Settings"),
    **{option.name: "Given" for option in options_of(Given)},
    **{option.name: "Speaking" for option in options_of(Speaking)},
    **{option.name: "Folder" for kind in (OneFile, Folder) for option in options_of(kind)},
    "compare": "Comparing",
}  # fmt: skip
NO_IMAGE = "it makes no image"
ONE = "it steers the generation of one image; its plain run always stands beside it"
NOTHING_WRITTEN = ("image", "inversion", "caption", "captioner", "output", "force", "report", "compare")
TRANSLATES = "a flow stands in the place of a diffusion model: it takes one pass, on the CPU, at one size"
RECIPE = "the recipe says it"
NO_PROMPT = ("scheduler", "chunks", "prompt_weights")
# Command (or "methods of one prompt") -> options that it lacks, and why.
REASONS: dict[str, dict[str, str]] = {
    "generate": {
        "image inversion caption captioner": "a given image is edited (edit) or seen (maps), not generated",
        "compare": "there is no control to leave out",
    },
    "edit": {},
    "inpaint": {
        "image inversion": "its first argument is the image, of which nothing has to be inverted",
        "caption captioner": "its prompt says what is to come; the image needs no description",
    },
    "segment": {
        "image": "its first argument is the image",
        "caption captioner report compare": "words are asked for, and nothing is edited",
    },
    "caption": {
        " ".join(name for name in (*IMAGE, *NOTHING_WRITTEN) if name not in ("captioner", "fit")): "it prints text",
    },
    "sweep": {
        "report": "a page is about one run; each cell's PNG carries its recipe",
        "compare": "a cell with closed windows shows the target without control",
    },
    "record": {"report compare": "it makes a source, which no control changes"},
    "invert": {
        "image": "its first argument is the image",
        "report compare": "it makes a source, which no control changes",
    },
    "maps": {"report compare": "it draws maps, and edits nothing but to show a target's"},
    "replay": {
        " ".join((*IMAGE, "scheduler", "chunks", "prompt_weights", "image", "inversion", "caption", "captioner",
                  "compare")): RECIPE,
        "output force report": "it compares pixels, and writes nothing",
    },
    "perceive": {
        " ".join((*IMAGE, *NO_PROMPT)): "it makes one pass at a fixed time, of no prompt",
        "image inversion caption captioner report compare": "its first argument is the image, which is not edited",
    },
    "perceive-train": {
        " ".join((*(name for name in IMAGE if name not in ("seed", "size", "steps")), *NO_PROMPT)): "it makes no image",
        "image inversion caption captioner output force report compare": "it reads a data set, and keeps to --folder",
    },
    "report": {
        " ".join((*MODEL, *IMAGE, *(name for name in NOTHING_WRITTEN if name != "output"))): "it shows a finished run",
    },
    "words": {" ".join((*IMAGE, *NOTHING_WRITTEN)): NO_IMAGE},
    "sites": {
        " ".join(name for name in (*IMAGE, *NOTHING_WRITTEN) if name != "size"): NO_IMAGE,
    },
    "doctor": {" ".join((*IMAGE, *NOTHING_WRITTEN)): NO_IMAGE},
    "app": {
        " ".join(name for name in (*IMAGE, "image", "inversion", "caption", "captioner", "compare", "report")
                 if name not in ("images", "steps")): "the page has fields for them",
        "dtype scheduler allow_pickle chunks prompt_weights": "visitors share the models as they are on the machine",
        "json quiet output force": "it serves until it is stopped",
    },
    "train": {
        " ".join(name for name in (*IMAGE, "image", "inversion", "caption", "captioner", "compare", "report", "force")
                 if name not in ("seed", "steps", "guidance")): NO_IMAGE,
        "output": "--folder is where checkpoints stay",
    },
    "net2net train": {
        " ".join((*(name for name in IMAGE if name != "seed"), *NOTHING_WRITTEN)): NO_IMAGE,
        " ".join(name for name in MODEL if name != "device"): TRANSLATES,
    },
    "net2net sample": {
        "caption captioner": "its conditions are its arguments",
        " ".join((*(name for name in IMAGE if name != "seed"), *MODEL)): TRANSLATES,
        "image inversion": "it samples; exchange takes an image",
        "report compare": "it has a sheet, and no attention to show",
    },
    "net2net exchange": {
        "caption captioner": "its conditions are its arguments",
        " ".join((*(name for name in IMAGE if name != "seed"), *MODEL)): TRANSLATES,
        "inversion": "the flow is its own inverse",
        "report compare": "it has a sheet, and no attention to show",
    },
    "methods of one prompt": {"image inversion caption captioner": ONE, "compare": ONE},
    "methods of a source": {},
}  # fmt: skip


def flags_of(name: str, function: str) -> set[str]:
    module, _, called = function.partition(":")
    found = getattr(import_module(f"promptweave.apps.{module}"), called)
    return {option.name for flags in found.flags.values() for option in flags.listed}


def commands() -> dict[str, tuple[str, str]]:
    """Name -> function and the line of REASONS."""
    own = {name: (function, name) for name, function, *_ in COMMANDS if name not in ("bench", "net2net")}
    own |= {f"net2net {one}": (f"commands_net2net:{one}", f"net2net {one}") for one in ("train", "sample", "exchange")}
    methods = {
        name: (f"method:{name}", "methods of one prompt" if what.prompts == "one" else "methods of a source")
        for name, (what, _) in method_commands().items()
    }
    return own | methods


@pytest.mark.parametrize("name", list(commands()))
def test_a_common_option_is_there_or_has_its_reason(name):
    function, line = commands()[name]
    there = flags_of(name, function)
    missing = set(COMMON) - there
    said = {option for options in REASONS[line] for option in options.split()}
    assert missing <= said, f"{name} lacks {sorted(missing - said)}: add them, or say why not."
    assert not said & there, f"{name} has {sorted(said & there)}: take them out of the list."
    assert all(len(reason) > 8 for reason in REASONS[line].values())


def test_the_list_of_reasons_has_no_other_commands():
    assert set(REASONS) == {line for _, line in commands().values()}
