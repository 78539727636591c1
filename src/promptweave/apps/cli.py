"""The command line: `promptweave --help`. A command's module is imported when the command is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

try:
    from cyclopts import App, Group
except ImportError as missing:  # pragma: no cover - an environment without the extra
    raise SystemExit(
        "The command line needs the extra 'apps'. Install it with: pip install 'promptweave[apps]'"
    ) from missing

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # suppress the libraries' import-time advice
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

from promptweave import __version__
from promptweave.apps.declared import method_commands
from promptweave.apps.failures import explain, speak
from promptweave.apps.telling import started

EDITS, METHODS, VIEWS, TOOLS, OPTIONS = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Make and edit", "Further methods", "Look", "Models and figures", "Options"))
)
# Name, function, group, help, and the arguments of an example.
COMMANDS = (
    ("generate", "commands_edit:generate", EDITS, "Generate an image from a prompt.", '"a photo of a cat on a bike"'),
    ("edit", "commands_edit:edit", EDITS,
     "Edit an image by changing its prompt: only what the changed words name changes.",
     '"a cat wearing a hat" "a lion wearing a hat" --blend lion'),
    ("record", "commands_many:record", EDITS,
     "Generate an image and record its attention: `edit --recording FILE TARGET` then takes half the work.",
     '"a photo of a cat on a bike" -o cat.safetensors'),
    ("invert", "commands_invert:invert", EDITS,
     "Invert an image once: `edit --recording FILE TARGET` and sweeps then start from it.",
     'photo.jpg "a photo of a cat" --inversion negative-prompt'),
    ("inpaint", "commands_inpaint:inpaint", EDITS,
     "Regenerate what a mask covers in an image, and keep the rest.",
     'photo.jpg "a girl with red hair" --mask mask.png'),
    ("sweep", "commands_many:sweep", EDITS,
     "Edit with all combinations of two settings, from one recording: a labelled grid and single images.",
     '"a photo of a cat" "a photo of a dog" --cross 0,0.2,...,1 --self-attention 0,0.5,1'),
    ("replay", "commands_look:replay", EDITS,
     "Regenerate a saved image from its recipe and say whether the pixels match.", "out/edit/edit.png"),
    ("app", "commands_page:page", EDITS, "Start the web page: see the attention of each word, and edit.",
     "--port 8000"),
    ("maps", "commands_maps:maps", VIEWS,
     "Draw attention maps: one heat map per word; by step, layer and head; source beside target.",
     '"a dog next to a house" --steps-shown 0,10,25 --animate'),
    ("perceive", "commands_perceive:perceive", VIEWS,
     "Segment an image, find what a phrase refers to, or estimate depth (VPD).",
     'photo.jpg --task refer --phrase "the red car"'),
    ("segment", "commands_segment:segment", VIEWS,
     "Find where words are in an image: labels, an overlay, and a mask for each word.",
     "photo.jpg --words cat,bike"),
    ("caption", "commands_invert:caption", VIEWS,
     "Say what an image shows, as the source prompt of its edits; by a model that is on this machine.",
     "photo.jpg --captioner blip-image-captioning-base"),
    ("words", "commands_look:words", VIEWS,
     "Show the tokens and spans of prompts, and how the words of the first align with the others.",
     '"a photo of a cat" "a photo of a black cat"'),
    ("sites", "commands_look:sites", VIEWS,
     "List the attention layers in execution order, with the shape of their maps for one image with guidance.",
     "--model toybox-dit"),
    ("net2net", "commands_net2net:net2net", METHODS,
     "Translate between frozen networks with a conditional invertible network: text to image, photo to sketch.", ""),
    ("doctor", "commands_look:doctor", TOOLS,
     "Show versions, device, the model's files and what would be downloaded.", "--model toybox-fast"),
    ("train", "commands_train:train", TOOLS,
     "Train the embedded models, resuming from checkpoints; or score a model by the oracle.",
     "--stage vae --vae-minutes 5"),
    ("perceive-train", "commands_perceive:perceive_train", TOOLS,
     "Train a head for segmentation, referring segmentation or depth on the features of a model.",
     "segment --data ADEChallengeData2016 --model stable-diffusion-v1-5 --through 80000 --steps 0"),
    ("bench", "commands_bench:bench", TOOLS, "Measure edits and speed.", ""),
    ("report", "bench_field:report", TOOLS,
     "Write the page of a benchmark: table, curves, the best and worst edits, filters; one file that opens anywhere.",
     "out/pie"),
)  # fmt: skip
# Usage of commands with optional arguments.
ARGUMENTS = {
    "edit": "[SOURCE] [TARGETS...]", "maps": "PROMPT [TARGET]", "words": "PROMPT [TARGETS...]", "record": "[PROMPT]",
    "invert": "IMAGE [PROMPT]", "sweep": "[SOURCE] TARGET",
}  # fmt: skip
OF_METHODS = {"targets": "[SOURCE] TARGETS...", "same": "[PROMPT]", "repeated": "[PROMPT]"}  # by `Command.prompts`


def build() -> App:
    """The command line."""
    app = App(
        name="promptweave", version=__version__, help_format="plaintext", result_action="return_value",
        suppress_keyboard_interrupt=False,
        help="See and steer the attention of text-to-image diffusion models.",
    )  # fmt: skip
    methods = [
        (name, f"method:{name}", METHODS, what.help, what.example) for name, (what, _) in method_commands().items()
    ]
    arguments = {
        **{name: OF_METHODS[what.prompts] for name, (what, _) in method_commands().items() if what.prompts != "one"},
        **ARGUMENTS,
    }
    for place, (name, function, group, help, example) in enumerate((*COMMANDS, *methods)):
        more = {"help_epilogue": f"Example: promptweave {name} {example}"} if example else {}
        more |= {"usage": f"Usage: promptweave {name} [OPTIONS] {arguments[name]}"} if name in arguments else {}
        app.command(f"promptweave.apps.{function}", name=name, help=help, group=group, sort_key=place, **more)
    app.register_install_completion_command(group=OPTIONS)
    for flag in ("--help", "--version"):
        app[flag].group = OPTIONS
    return app


def spelled(app: App, tokens: Sequence[str]) -> list[str]:
    """The arguments, with options that are spelled as in Python, such as --weights, as the command has them."""
    command = app.parse_commands(list(tokens))[1][-1].default_command
    listed = [one for flags in getattr(command, "flags", {}).values() for one in flags.listed]
    flags = {one.flag for one in listed}
    known = {one.spelling: one.flag for one in listed if one.spelling not in flags}
    parts = [token.partition("=") if token.startswith("--") else (token, "", "") for token in tokens]
    return ["".join((known.get(name, name), *rest)) for name, *rest in parts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors become one message and an exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    speak()
    started(tokens)
    try:
        app = build()
        app(spelled(app, tokens), print_error=False, exit_on_error=False)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(explain(error))
    sys.exit(0)


if __name__ == "__main__":
    main()
