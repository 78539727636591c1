"""An option has one name, meaning and default on the command line, in Python and on the page, or its reason is here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from importlib import import_module
from typing import Any, get_args, get_type_hints

import pytest
from test_common_options import commands

import promptweave as pw
from promptweave.apps.cli import build, spelled
from promptweave.apps.commands_bench import bench
from promptweave.apps.declared import method_commands
from promptweave.apps.forms import byte_count, form_of
from promptweave.apps.web.offered import label_of, methods
from promptweave.core.fields import Listed, options_of
from promptweave.editing.found_masks import WordMask

# Command -> what it is in Python. Commands of methods have the class of their control, and `generate` or `edit`.
PYTHON: dict[str, tuple[str, ...]] = {
    "generate": ("generate",), "edit": ("edit", "find"), "record": ("record",), "invert": ("invert",),
    "inpaint": ("inpaint",), "sweep": ("sweep",), "replay": ("replay",), "segment": ("segment",),
    "maps": ("look", "word_maps"), "perceive": ("perceive",), "caption": ("caption",), "report": ("write_run_report",),
    "net2net sample": ("net2net", "translation.translator:Translator.sample"),
    "net2net exchange": ("net2net", "translation.translator:Translator.exchange"),
    "net2net train": ("translation.train_flows:train_flows", "translation.train_flows:FlowTraining"),
    "perceive-train": ("perception.courses:Course", "perception.lessons:Lessons", "perception.courses:run_course"),
    "bench pie": ("benchmark",), "bench edits": ("benchmarks.bench_edits:bench_edits", "benchmarks.bench_edits:Shares"),
    "bench speed": ("benchmarks.bench_speed:bench_speed",),
    "bench targets": ("benchmarks.bench_targets:bench_targets",),
    "bench host": ("benchmarks.bench_host:bench_host",), "bench find": ("benchmarks.bench_find:bench_find",),
    "bench world": ("benchmarks.bench_world:bench_world",), "bench curves": ("benchmarks.bench_curves:bench_curves",),
    "bench inversions": ("benchmarks.bench_inversions:bench_inversions",),
    "bench editors": ("benchmarks.bench_editors:bench_editors",),
    "bench inpainting": ("benchmarks.bench_inpainting:bench_inpainting",),
    "bench perception": ("benchmarks.bench_perception:bench_perception",),
    "bench segments": ("benchmarks.bench_segments:bench_segments",), "bench gpu": ("benchmarks.bench_gpu:bench_gpu",),
    "bench costs": ("benchmarks.bench_costs:bench_costs", "benchmarks.bench_costs:load_for_costs"),
    "bench net2net": ("benchmarks.bench_net2net:bench_net2net", "translation.train_flows:FlowTraining"),
    "bench page": ("benchmarks.bench_page:soak",),
}  # fmt: skip
# Commands without a function of the same purpose.
NO_FUNCTION = {
    "words": "it prints `model.words(prompt)` and `words.alignment`", "sites": "it prints `model.sites(grid)`",
    "doctor": "it prints what is installed", "train": "its recipe has a dataclass for each stage",
    "app": "`apps.web.launch` serves it, and its `Limits` are no options of a run",
}  # fmt: skip
# Options of the command line alone, by name, for all commands: where results go, and how they are told.
TERMINAL = {
    "json": "print", "quiet": "print", "output": "a result is saved by its method", "force": "a result is saved",
    "report": "`maps=True` keeps what `write_report` draws", "caption": "`pw.caption` is called first",
    "captioner": "`pw.caption` is called first", "pictures": "functions return images",
    "rows": "functions return rows",
}  # fmt: skip
# What functions of `bench` have for tests and for commands that share them.
OF_BENCHES = {
    "counts", "pipelines", "seed", "folder", "sweep", "inversions", "changes", "known", "device", "dtype", "seeds",
    "options", "shares", "recipe", "names", "chosen",
}  # fmt: skip
# Parameters that no command has, for all functions.
OBJECTS = {
    "settings": "the same as keywords", "progress": "the bar", "controls": "objects; methods are commands",
    "maps": "--report", "offline": "an environment variable", "config": "an object", "control": "an object",
    "control_scale": "of an object", "image_prompt": "an object", "watch": "objects", "network": "--model",
}  # fmt: skip
# Further exceptions: command, option or parameter -> reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("generate", "compare"): "there is no control to leave out",
    ("edit", "recording"): "in Python it stands in the place of the source prompt",
    ("edit", "target"): "one of its arguments",
    ("edit", "place"): "of the search's own recording",
    ("edit", "budget"): "of the search's own recording",
    ("replay", "path"): "its argument",
    ("edit", "jobs"): "a file; `run_jobs` runs it",
    ("edit", "at_once"): "of --jobs",
    ("edit", "auto"): "`pw.find`",
    ("record", "row"): "of a result, which only Python can hold",
    ("inpaint", "mask"): "FILE, or the way to find it",
    ("sweep", "rows"): "options with several values are the axes",
    ("sweep", "columns"): "options with several values are the axes",
    ("replay", "device"): "the model is loaded first, `model=pw.load(...)`",
    ("replay", "dtype"): "as device",
    ("replay", "allow_pickle"): "as device",
    ("maps", "alone"): "`on_picture=False` of what is drawn",
    ("maps", "words"): "which sheets are drawn",
    ("maps", "animate"): "`every_step=True`, and `save_animation`",
    ("maps", "video"): "as animate",
    ("maps", "every_step"): "--animate, --video or --stats",
    ("maps", "self_grid"): "`self_attention=(8, 16)`",
    ("maps", "self_attention="): "what is drawn of it",
    ("maps", "stats"): "`pw.write_statistics`",
    ("maps", "masks"): "of `pw.statistics`",
    ("maps", "files"): "images are saved",
    ("maps", "blend"): "of `pw.edit`",
    ("bench pie", "drawn"): "data; `drawn_pie_bench` draws them",
    ("bench pie", "ray"): "`benchmark_on_ray`",
    **{
        ("bench pie", name): "each pair has one image, in the model's size"
        for name in ("images", "truncate", "keep_original")
    },
    ("bench inversions", "editors="): "a text",
    ("bench perception", "repeats"): "`seeds=range(repeats)`",
    ("net2net train", "recipe"): "its fields are options",
    ("perceive-train", "course"): "its fields are options",
    ("perceive-train", "lessons"): "its fields are options",
    ("bench perception", "lessons"): "for tests",
    ("net2net train", "stage"): "one name or all, for the tuple of stages",
    ("net2net train", "stages"): "one name or all, for the tuple of stages",
}


def all_commands() -> dict[str, Any]:
    """The functions of all commands."""
    found = {}
    for name, (where, _) in commands().items():
        module, _, called = where.partition(":")
        found[name] = getattr(import_module(f"promptweave.apps.{module}"), called)
    return found | {f"bench {name}": bench[name].default_command for name in bench if not name.startswith("-")}


def arguments(command: str) -> set[str]:
    """The names of its arguments that are no options."""
    function = COMMANDS[command]
    return {one.name for one in inspect.signature(function).parameters.values() if one.name not in function.flags}


COMMANDS = all_commands()


def function_of(name: str) -> Callable[..., Any]:
    module, colon, path = name.rpartition(":")
    found: Any = import_module(f"promptweave.{module}") if colon else pw
    for part in path.split("."):
        found = getattr(found, part)
    return found


def parameters(name: str) -> dict[str, Any]:
    """Parameters -> defaults; those of a `**options` that is a list of options have MISSING."""
    found = {}
    function = function_of(name)
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.VAR_KEYWORD:
            found |= dict.fromkeys(get_type_hints(get_args(get_type_hints(function)[one.name])[0]), MISSING)
        elif one.name != "self" and one.kind is not one.VAR_POSITIONAL:
            found[one.name] = MISSING if one.default is one.empty else one.default
    return found


def several(listed: Listed) -> bool:
    return str(form_of(listed).hint).startswith("list")


def singular(name: str) -> str:
    return name.removesuffix("ies") + "y" if name.endswith("ies") else name.removesuffix("s")


def same(cli: Any, python: Any) -> bool:
    """Whether two defaults are one; what is None or empty on the command line is not passed on."""
    if cli in (None, (), MISSING) or python is MISSING:
        return True
    python = ",".join(python) if isinstance(python, tuple) and isinstance(cli, str) else python
    return byte_count(cli) == python if cli == "2G" else cli == python or str(cli) == str(python)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_flag_is_the_name_of_its_field_or_its_singular(command):
    for flags in COMMANDS[command].flags.values():
        for one in flags.listed:
            if command == "app" and "Limits" in str(flags.kind):
                continue  # --max-steps: those of a run are --steps
            own = {one.spelling} | ({one.spelling[:2] + singular(one.spelling[2:])} if several(one) else set())
            assert one.flag in own or (command, one.flag) in EXCEPTIONS, one.flag


@pytest.mark.parametrize("command", list(PYTHON))
def test_a_command_and_its_function_have_the_same_options(command):
    known = {}
    for name in PYTHON[command]:
        known |= {n: d for n, d in parameters(name).items() if n not in known or known[n] is MISSING}
    known |= {f"mask_{one.name}": one.default for one in options_of(WordMask)} if command == "inpaint" else {}
    known |= {"mask_words": ()} if command == "inpaint" else {}
    groups = COMMANDS[command].flags
    listed = {one.name: one for key, flags in groups.items() if key != "opening" for one in flags.listed}
    missing = [n for n in listed if n not in known and n not in TERMINAL and (command, n) not in EXCEPTIONS]
    assert not missing, f"{command} has options that {PYTHON[command]} lacks: {missing}"
    reached = {*listed, *arguments(command), "model"}
    spare = [n for n, d in known.items() if n not in reached and n not in OBJECTS and (command, n) not in EXCEPTIONS]
    spare = [n for n in spare if not (command.startswith("bench") and n in OF_BENCHES)]
    assert not spare, f"{PYTHON[command]} has parameters that {command} lacks: {spare}"
    different = {
        n: (one.default, known[n]) for n, one in listed.items() if n in known and not same(one.default, known[n])
    }
    different = {n: pair for n, pair in different.items() if (command, f"{n}=") not in EXCEPTIONS}
    assert not different


def test_every_command_is_compared_or_has_its_reason():
    assert set(COMMANDS) == {*PYTHON, *NO_FUNCTION, *method_commands()} | {"bench methods"}
    known = {(command, part) for command in COMMANDS for part in spoken(command)}
    assert not {pair for pair in EXCEPTIONS if (pair[0], pair[1].rstrip("=")) not in known}
    reasons = (*NO_FUNCTION.values(), *EXCEPTIONS.values(), *TERMINAL.values(), *OBJECTS.values())
    assert all(reasons)


def spoken(command: str) -> set[str]:
    """All names that a command or its function has."""
    own = {one.name for flags in COMMANDS[command].flags.values() for one in flags.listed}
    return own.union(*(parameters(name) for name in PYTHON.get(command, ())))


def test_models_are_loaded_alike():
    """Defaults of --model, --device ... are those of `pw.load`."""
    known = parameters("load")
    opening = COMMANDS["generate"].flags["opening"].listed
    assert {one.name: one.default for one in opening} == {one.name: known[one.name] for one in opening}


@pytest.mark.parametrize("command", list(method_commands()))
def test_the_command_of_a_method_has_the_fields_of_its_control(command):
    """`promptweave attend --share 0.4`, `AttendAndExcite(share=0.4)` and the page's field are one option."""
    kind = method_commands()[command][1]
    module, _, name = kind.partition(":")
    own = {one.name: one for one in options_of(getattr(import_module(module), name))}
    shown = {one.name: one for one in COMMANDS[command].flags["own"].listed}
    assert shown == {name: one for name, one in own.items() if name in shown}
    assert set(own) - set(shown) == ({"concepts"} if command == "sega" else set())  # --concept and --away


@pytest.mark.parametrize("method", list(methods()))
def test_a_field_of_the_page_is_the_option_of_the_command(method):
    command = method if method in method_commands() else "edit"
    listed = {one.name: one for flags in COMMANDS[command].flags.values() for one in flags.listed}
    for one in methods()[method].fields:
        assert one.option == listed[one.name].option and one.type == listed[one.name].type, one.name
        assert one.default == listed[one.name].default
        assert label_of(one).lower().replace(" ", "-") == listed[one.name].flag[2:]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["edit", "a", "b", "--weights", "red=2"], ["edit", "a", "b", "--weight", "red=2"]),
        (["attend", "a", "--words=cat"], ["attend", "a", "--word=cat"]),
        (["bench", "world", "--kinds", "x"], ["bench", "world", "--kind", "x"]),
        (["maps", "a", "--masks", "a=b.png", "--self"], ["maps", "a", "--mask", "a=b.png", "--self"]),
        (["words", "--weights"], ["words", "--weights"]),
    ],
)  # fmt: skip
def test_the_name_in_python_is_understood_too(given, read):
    assert spelled(build(), given) == read
