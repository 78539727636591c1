"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help="toybox, toybox-fast, toybox-dit, a folder, .safetensors or a hub id.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda ...")]
Seed = Annotated[int, typer.Option("--seed", "-s", help="Seed of the starting noise.")]
Images = Annotated[int, typer.Option("--images", help="Pictures per prompt, from seed, seed + 1, ...")]
SeedOrNone = Annotated[int | None, typer.Option("--seed", "-s", help="Seed of the starting noise. [0]")]
ImagesOrNone = Annotated[int | None, typer.Option("--images", help="Pictures per prompt, from seed, seed + 1, ... [1]")]
NegativeOrNone = Annotated[str | None, typer.Option("--negative", help="What guidance leads away from.")]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Sampling steps. [what suits the model: 50 for toybox, 8 for toybox-fast]")
]
Guidance = Annotated[
    float | None,
    typer.Option("--guidance", help="Strength of guidance; 1 switches it off. [what suits the model: 2 for toybox]"),
]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="ddim, euler, dpm++, heun ... [the model's own]")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Read weights that can run code. Trust them first.")]
Size = Annotated[str | None, typer.Option("--size", help="Pixels, height x width, such as 128 or 128x192.")]
Negative = Annotated[str, typer.Option("--negative", help="What guidance leads away from.")]
Truncate = Annotated[bool, typer.Option("--truncate", help="Let prompts be longer than the model reads.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier run in the output folder.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Place = Annotated[str, typer.Option("--place", help="Where recordings are kept: cpu, device or disk.")]
Budget = Annotated[str | None, typer.Option("--budget", help="Largest recording, such as 500M or 2G.")]
Blend = Annotated[list[str] | None, typer.Option("--blend", help="Word in whose region alone the picture may change.")]
Subtract = Annotated[list[str] | None, typer.Option("--subtract", help="Word whose region must not change.")]
Chunks = Annotated[int, typer.Option("--chunks", help="Read prompts of so many times the model's length.")]
Report = Annotated[bool, typer.Option("--report", help="Also write report.html, a page of it all.")]
PromptWeights = Annotated[bool, typer.Option("--prompt-weights", help="Read (word:1.3) and [word] as weights.")]
Given = Annotated[
    Path | None, typer.Option("--image", help="Edit this picture, which the source prompt describes, not a made one.")
]
Inversion = Annotated[
    str | None, typer.Option("--inversion", help="How --image becomes noise: direct, ddim or regularised. [direct]")
]
