"""The commands words, sites, replay and doctor."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import FAILURE, table
from promptweave.core.fields import Option

ON_CPU = Flags(Opening, {"device": "cpu"})
SPEAKING = Flags(Speaking)


@dataclass(frozen=True)
class Pixels:
    """The size of an image."""

    size: Annotated[
        tuple[int, int] | None,
        Option("Pixels, height x width, such as 128 or 128x192. [the model's own]", group="Image"),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Replaying:
    """How an image is regenerated."""

    model: Annotated[str | None, Option("Model to use. [the recipe's]", group="Model", short="m")] = None
    device: Annotated[str, Option("auto, cpu, cuda ...", group="Model", metavar="DEVICE")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Option("Precision of the networks. [float32 on a CPU and embedded, else float16]", group="Model"),
    ] = "auto"
    allow_pickle: Annotated[
        bool, Option("Load pickled weights, which can run code. Only for files that you trust.", group="Model")
    ] = False
    allow_modules: Annotated[
        tuple[str, ...],
        Option(
            "Module of your own controls that may be imported, which runs its code.",
            group="Model",
            flag="--allow-module",
            metavar="NAME",
        ),
    ] = ()


@command(opening=ON_CPU, speaking=SPEAKING)
def words(
    prompt: Annotated[str, Parameter(help="A prompt, or a source.")],
    /,
    *targets: Annotated[str, Parameter(help="Its targets.")],
    opening: Opening,
    speaking: Speaking,
) -> None:
    """Show the tokens and spans of prompts, and how the words of the first align with the others."""
    from dataclasses import asdict

    from promptweave.words import alignment, suggest

    prompts, terminal = (prompt, *targets), speaking.terminal
    if any(not prompt.strip() for prompt in prompts):
        raise ValueError("A prompt is empty. Write at least one word.")
    network = opening.load()
    found = [network.words(prompt) for prompt in prompts]
    for number, one in enumerate(found, 1):
        known = dict(zip(one.places, one.pieces, strict=False))
        rows = [
            (
                w.text,
                f"{w.start}:{w.end}",
                " ".join(map(str, w.tokens)),
                " ".join(known[t] for t in w.tokens if t in known),
            )
            for w in one.words
        ]
        terminal.say(table(f"prompt {number}: {one.prompt}", ("word", "characters", "tokens", "pieces"), rows))
        terminal.say(f"{one.length} of {one.limit} tokens, including start and end.")
        if one.schedule is not None:
            terminal.say(f"The prompt changes from step to step, {one.schedule}; these are its words at the end.")
        if one.truncated:
            terminal.say(f"Truncated: {', '.join(w.text for w in one.truncated)}.")
    tables = [alignment(found[0], other) for other in found[1:]]
    kinds = [suggest(found[0], other) for other in found[1:]]
    for number, (pairs, kind) in enumerate(zip(tables, kinds, strict=True), 2):
        rows = [(pair.kind, pair.source, pair.target) for pair in pairs]
        terminal.say(table(f"prompt 1 -> prompt {number}: {kind}", ("", "source", "target"), rows))
    terminal.give(
        {
            "prompts": [
                {"prompt": o.prompt, "length": o.length, "words": [asdict(w) for w in o.words], "pieces": o.pieces}
                for o in found
            ],
            "alignments": [
                {"edit": kind, "pairs": [asdict(pair) for pair in pairs]}
                for kind, pairs in zip(kinds, tables, strict=True)
            ],
        }
    )


@command(pixels=Flags(Pixels), opening=ON_CPU, speaking=SPEAKING)
def sites(*, pixels: Pixels, opening: Opening, speaking: Speaking) -> None:
    """List the attention layers in execution order, with the shape of their maps for one image with guidance."""
    from promptweave.sampling.loop import latent_grid

    network, terminal = opening.load(), speaking.terminal
    tokens = network.words("a").limit
    found = network.sites(latent_grid(network, pixels.size))
    rows = [
        (
            str(site.kind == "cross"),
            site.place,
            _shape(site, tokens, 2 if network.guided else 1),
            site.name,
            site.path,
        )
        for site in found
    ]
    terminal.say(
        table(
            f"{len(found)} attention layers of {opening.model}", ("is cross", "place", "maps", "name", "module"), rows
        )
    )
    terminal.say("maps: [2 guidance branches x heads, queries, keys]")
    names = ("is_cross", "place", "maps", "name", "module")
    terminal.give([dict(zip(names, row, strict=True)) for row in rows])


def _shape(site: Any, tokens: int, branches: int) -> str:
    """[guidance branches x heads, queries, keys] of a site's map; in joint layers, text is part of both."""
    queries = site.queries + (tokens if site.kind == "joint" else 0)
    return f"[{branches * site.heads}, {queries}, {tokens if site.kind == 'cross' else queries}]"


@command(replaying=Flags(Replaying), speaking=SPEAKING)
def replay(
    picture: Annotated[Path, Parameter(help="A PNG that promptweave saved.")],
    /,
    *,
    replaying: Replaying,
    speaking: Speaking,
) -> None:
    """Regenerate a saved image from its recipe and say whether the pixels match."""
    from promptweave.editing.own_model import trusted
    from promptweave.editing.replay import replay as again
    from promptweave.editing.stored import read_stored
    from promptweave.models.load import load

    terminal = speaking.terminal
    recipe = read_stored(picture, allow_modules=replaying.allow_modules).recipe
    network = load(
        trusted(recipe, replaying.model), device=replaying.device, dtype=replaying.dtype, scheduler=recipe.scheduler,
        allow_pickle=replaying.allow_pickle, chunks=recipe.chunks, prompt_weights=recipe.prompt_weights,
    )  # fmt: skip
    with terminal.progress("replaying", recipe.steps) as advance:
        made = again(picture, model=network, allow_modules=replaying.allow_modules, progress=advance)
    terminal.give(
        {
            "matches": made.matches,
            "largest_difference": made.difference,
            "share": made.share,
            "notes": list(made.notes),
        }  # fmt: skip
    )
    terminal.say(made.said)
    if not made.close:
        sys.exit(FAILURE)


@command(opening=ON_CPU, speaking=SPEAKING)
def doctor(*, opening: Opening, speaking: Speaking) -> None:
    """Show versions, device, the model's files and what would be downloaded."""
    import torch

    from promptweave.editing.recipe import versions
    from promptweave.models.embedded import NAMES, embedded_folder
    from promptweave.models.hub import cached
    from promptweave.models.load import place_of

    terminal, model = speaking.terminal, opening.model
    place_of(model, opening.allow_pickle)
    facts = {"python": platform.python_version(), **versions()}
    facts["device"] = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    )
    folder = embedded_folder(model) if model in NAMES else Path(model).expanduser()
    on_disk = folder.exists()
    files = (
        sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder] if on_disk else []
    )
    listed = {str(path.relative_to(folder) if path != folder else path): path.stat().st_size for path in files}
    facts["model"] = model if on_disk else f"{model} (a hub id)"
    there = "nothing" if on_disk else "nothing: the model is in the local cache" if cached(model) else ""
    facts["download"] = there or f"{model}, on first use: it is not in the local cache"
    if on_disk:
        facts["weights"] = opening.load().fingerprint()
    terminal.give({**facts, "files": listed})
    terminal.say(table("promptweave doctor", ("", ""), list(facts.items())))
    if listed:
        sizes = [(name, f"{size / 1e6:.2f} MB") for name, size in listed.items()]
        terminal.say(table("model files", ("file", "size"), sizes))
