"""The recipe of the embedded model, stage by stage; each goes on from its own checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from promptweave.models.embedded import embedded_folder
from promptweave.world.train_diffusion import export_latest, train_diffusion
from promptweave.world.train_oracle import train_oracle
from promptweave.world.train_vae import train_vae
from promptweave.world.training import Recipe, Watch

STAGES = ("vae", "diffusion", "decoder", "oracle")


def train(
    folder: Path, recipe: Recipe, minutes: Mapping[str, float], device: str = "auto", watch: Watch | None = None
) -> None:
    """Run the stages named in `minutes`, each for so long in all its runs together (the oracle takes what it needs).

    `watch` is called after every step with what the log gets: stage, samples, minutes, loss ...
    """
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for stage, time in minutes.items():
        if stage in ("vae", "decoder"):
            train_vae(folder, recipe, time, place, decoder_only=stage == "decoder", watch=watch)
        elif stage == "diffusion":
            train_diffusion(folder, recipe, time, place, watch=watch)
        else:
            train_oracle(folder / "oracle.safetensors", seed=recipe.seed, watch=watch)
    if "decoder" in minutes:
        export_latest(folder)


def install(folder: Path) -> Path:
    """Copy the trained pipeline, and the oracle if there is one, into the package."""
    pipeline, target = folder / "pipeline", embedded_folder()
    if not pipeline.is_dir():
        raise FileNotFoundError(f"{pipeline} does not exist yet. Train first: promptweave train --folder {folder}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pipeline, target)
    oracle = folder / "oracle.safetensors"
    if oracle.is_file():
        shutil.copy(oracle, target.parents[1] / "evaluate" / oracle.name)
    return target
