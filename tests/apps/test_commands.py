"""The commands as they are derived: what their help says, what all of them have, and how little is loaded for that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import promptweave
import promptweave.methods
from promptweave.apps import declared as reading
from promptweave.apps.cli import build, main
from promptweave.apps.common import SETTINGS, Opening, Output
from promptweave.apps.declared import declared, method_commands
from promptweave.apps.flags import Axis, Flags, shown, value_of
from promptweave.apps.forms import form_of
from promptweave.core.control import Control
from promptweave.core.fields import Listed, Option, options_of

CONTROLS = [
    f"{kind.__module__}:{kind.__name__}"
    for kind in vars(promptweave.methods).values()
    if isinstance(kind, type) and issubclass(kind, Control)
]
DECLARED = [*CONTROLS, "promptweave.editing.options:PromptToPrompt", "promptweave.editing.settings:Settings"]


def names_of(app, *before):
    """Every command, with those below it."""
    for name in app:
        if not name.startswith("-"):
            below = list(names_of(app[name], *before, name))
            yield from below or [(*before, name)]


COMMANDS = list(names_of(build()))


def command(*names):
    found = build()
    for name in names:
        found = found[name]
    return found


def help_of(capsys, monkeypatch, *names) -> str:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as end:
        main([*names, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("where", DECLARED)
def test_options_are_read_from_the_source_as_they_are(where):
    module, _, name = where.partition(":")
    kind = getattr(import_module(module), name)
    assert declared(where) == options_of(kind) != ()
    assert where.startswith("promptweave.") and reading._module(module)[0][name].name == name


def test_commands_are_read_from_the_source_as_they_are():
    said = {}
    for where in CONTROLS:
        module, _, name = where.partition(":")
        what = getattr(getattr(import_module(module), name), "command", None)
        if what is not None:
            said[what.name] = (what, where)
    assert method_commands() == said
    assert set(said) >= {"attend", "compose", "masactrl", "place", "pnp", "sega", "translate"}


def test_a_file_with_a_command_in_its_control_is_a_command(tmp_path, monkeypatch):
    """One declaration, in the method's own file, and nothing elsewhere."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "louder.py").write_text(
        "import torch\nLevels = tuple[Number, Number]\nHalf = torch.Tensor\n"
        "class Base:\n    scale: Annotated[Number, Option('How loud.', low=0)] = 2\n    plain: int = 0\n"
        "class Louder(Base):\n    command: ClassVar[Command] = Command('louder', 'Make it loud.', prompts='targets')\n"
        "    scale: Annotated[Number, Option('How very loud.', low=0)] = 3\n"
        "    words: Annotated[tuple[str, ...] | str, Option('Word.', flag='--word', short='w')] = ()\n"
    )
    for cached in (declared, method_commands, reading._module):
        cached.cache_clear()
    monkeypatch.setattr(reading, "ROOT", tmp_path)
    try:
        made = build()["louder"]
        assert made.help == "Make it loud."
        own = made.default_command.flags["own"]
        assert [(one.name, one.default, one.option.help) for one in own.listed] == [
            ("scale", 3, "How very loud."), ("words", (), "Word."),
        ]  # fmt: skip
        assert {"settings", "opening", "output", "given", "comparing"} < set(made.default_command.flags)
    finally:
        for cached in (declared, method_commands, reading._module):
            cached.cache_clear()


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_shows_every_option_once_with_its_default(capsys, monkeypatch, names):
    told = help_of(capsys, monkeypatch, *names)
    assert "ARGS" not in told.splitlines()[0], "the usage names its arguments"
    flags = command(*names).default_command.flags
    listed = [(one, group.optional) for group in flags.values() for one in group.listed]
    assert listed and len({one.flag for one, _ in listed}) == len(listed)
    for one, optional in listed:
        (line,) = [line for line in told.splitlines() if re.match(rf"[│ *]*{one.flag}(\s|$)", line)]
        assert one.option.help in line, line
        default = shown(one, form_of(one))
        assert (f"[default: {default}]" in line) == bool(default), line
        assert ("[required]" in line) == (one.required and one.name not in optional), line
    if names[0] != "bench":
        assert f"Example: promptweave {names[0]} " in told
    assert all(one.option.help.endswith((".", "]")) for one, _ in listed)


@pytest.mark.parametrize("name", [*method_commands(), "edit", "generate", "sweep", "record", "maps"])
def test_every_command_that_makes_images_has_the_common_options(name):
    flags = command(name).default_command.flags
    have = {one.flag for group in flags.values() for one in group.listed}
    assert have >= {one.flag for group in (SETTINGS, Flags(Opening)) for one in group.listed}
    assert have >= {one.flag for one in Flags(Output).listed} - {"--report"}
    assert "--report" in have or name in ("sweep", "record", "maps")


SMALL = {
    "attend": ["--word", "cat"],
    "place": ["--region", "cat=0,0,0.5,1"],
    "compose": ["--phrase", "a cat"],
    "sega": ["--concept", "a hat=4"],
    "translate": ["--source", "cat", "--target", "dog", "--attention-guidance", "0"],
    "masactrl": ["--start", "0"],
    "skip-layer": ["--layer", "2", "--layer", "3", "--window", "1"],
    "mix": ["--word", "cat", "--proxy", "dog", "--proxy", "fox", "--window", "1"],
}


@pytest.mark.parametrize("name", list(method_commands()))
def test_every_method_prints_its_report_and_writes_its_page(tiny_folder, tmp_path, capsys, name):
    what, where = method_commands()[name]
    prompts = ["a photo of a cat riding a bike", *(["a photo of a cat"] if what.prompts == "targets" else [])]
    options = ["--model", str(tiny_folder), "--steps", "2", "--seed", "3", "-o", str(tmp_path / "out"), "--report"]
    with pytest.raises(SystemExit) as end:
        main([name, *prompts, *SMALL.get(name, []), *options])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    assert f"{where.partition(':')[2]}: " in out and f"wrote {tmp_path / 'out' / 'report.html'}" in out
    name = "steered" if what.prompts == "one" else "edit"
    record = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert record["recipe"]["seed"] == 3
    assert [control["control"] for control in record["recipe"]["controls"]] == [where.partition(":")[2]]


def test_help_and_mistakes_do_not_load_torch():
    calls = [
        ["--help"], ["--version"], [], ["edt"], ["bench"], ["edit", "a", "b", "--nope"], ["edit", "a", "--steps", "0"],
        *([*names, "--help"] for names in COMMANDS), *([*names, "--no-such-option"] for names in COMMANDS),
        ["attend", "a", "--share", "2"], ["place"], ["masactrl", "a cat"], ["edit", "a", "b", "--kind", "bogus"],
        ["edit", "a", "b", "--mask", "none.png"], ["train", "--stage", "wrong"],
    ]  # fmt: skip
    code = (
        "import sys\nfrom promptweave.apps.cli import main\n"
        f"for call in {calls!r}:\n"
        "    try: main(call)\n"
        "    except SystemExit as end: assert end.code in (0, 2), (call, end.code)\n"
        "    assert 'torch' not in sys.modules, call\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and 'Unknown command "edt". Did you mean "edit"?' in done.stderr


def test_version_and_module(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == promptweave.__version__ == "0.2.0"
    done = subprocess.run([sys.executable, "-m", "promptweave", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == promptweave.__version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    script = build().generate_completion(prog_name="promptweave", shell=shell)
    assert all(word in script for word in ("translate", "blend-start", "install-completion"))


def listed(kind, flag="--x", **limits):
    return Listed(flag.strip("-"), kind, None, Option("Help.", **limits))


@pytest.mark.parametrize(
    ("where", "name", "given", "value"),
    [
        ("PromptToPrompt", "cross", ["0.8", "dog=0.2:0.6"], {"default": 0.8, "dog": (0.2, 0.6)}),
        ("PromptToPrompt", "cross", ["0.5"], 0.5),
        ("PromptToPrompt", "self_attention", "0.1:0.5", (0.1, 0.5)),
        ("PromptToPrompt", "weights", ["a red=2", "b=-1"], {"a red": 2.0, "b": -1.0}),
        ("PromptToPrompt", "blend", ["dog"], ("dog",)),
        ("Settings", "size", "16x32", (16, 32)),
        ("Settings", "size", "64", (64, 64)),
        ("Settings", "truncate", True, True),
        ("AttendAndExcite", "thresholds", ["0=0.1", "0.5=0.2"], ((0.0, 0.1), (0.5, 0.2))),
        ("AttendAndExcite", "words", ["cat", "car"], ("cat", "car")),
        ("DirectedDiffusion", "regions", ["a dog=0,0,0.5,1"], (("a dog", (0.0, 0.0, 0.5, 1.0)),)),
        ("Pix2PixZero", "source", ["cat"], "cat"),
    ],
)
def test_values_as_people_type_them(where, name, given, value):
    (place,) = [one for one in DECLARED if one.endswith(f":{where}")]
    (option,) = [one for one in declared(place) if one.name == name]
    read = value_of(option, given)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        (listed(int), "1.5", "--x takes a whole number. Received '1.5'."),
        (listed(float), "inf", "--x takes a finite number. Received 'inf'."),
        (listed(float, low=0), "-1", "--x takes a number of at least 0. Received -1."),
        (listed(float, high=2), "3", "--x takes a number of at most 2. Received 3."),
        (listed(int, low=1, high=2), "3", "--x takes a number of at least 1 and at most 2. Received 3."),
        (listed(tuple[int, int]), "wide", "--x takes pixels, such as 512 or 512x768"),
        (listed(tuple[tuple[int | float, int | float], ...]), ["0.5"], "--x takes two numbers, such as 0.2=0.5"),
    ],
)
def test_values_that_are_none(option, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        value_of(option, given)


def test_a_type_without_a_form_says_where_to_give_it_one():
    with pytest.raises(TypeError, match=r"--x has the type set\[int\], which has no form. Give it one in apps.forms"):
        form_of(listed(set[int]))


def test_axes():
    cross, seed = listed(float, "--cross", low=0, high=1), listed(int | None, "--seed", low=0)
    assert value_of(cross, "0,0.25,...,1", axes=True) == Axis((0.0, 0.25, 0.5, 0.75, 1.0))
    assert value_of(seed, "1,2", axes=True) == Axis((1, 2)) and value_of(seed, "3", axes=True) == 3
    with pytest.raises(ValueError, match="takes a number"):
        value_of(cross, "0,1")


def test_a_class_that_cannot_be_read_is_imported(tmp_path, monkeypatch):
    (tmp_path / "computed_options.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Annotated\n"
        "from promptweave.core.fields import Option\nLEVEL = len(Path('x').parts)\n"
        "@dataclass\nclass Odd:\n    x: Annotated[int, Option('Help.')] = LEVEL\n".replace("Path('x').parts", "'abc'")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [one.default for one in declared("computed_options:Odd")] == [3]
    assert Path(sys.modules["computed_options"].__file__ or "").parent == tmp_path


def test_infinity_is_written_where_it_is_the_default() -> None:
    from promptweave.methods import SmoothedEnergyGuidance

    sigma, scale = ({one.name: one for one in options_of(SmoothedEnergyGuidance)}[name] for name in ("sigma", "scale"))
    assert form_of(sigma).read(["inf"], "--sigma") == float("inf") and form_of(sigma).read(["2"], "--sigma") == 2.0
    for listed, text in ((scale, "inf"), (sigma, "nan")):
        with pytest.raises(ValueError, match="takes a finite number"):
            form_of(listed).read([text], listed.flag)


def test_a_file_that_is_not_there_has_its_cure(tmp_path, capsys, monkeypatch):
    """Also where a library says it in the system's words."""
    monkeypatch.chdir(tmp_path)
    for line in (["edit", "--recording", "none.safetensors", "a cat"], ["replay", "none.png"]):
        with pytest.raises(SystemExit) as end:
            main(line)
        said = capsys.readouterr().err
        assert end.value.code == 2 and "none." in said and ("Check the path" in said or "Give" in said), said
