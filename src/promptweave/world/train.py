"""The training of the embedded models, stage by stage; each resumes from its checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from promptweave.core.files import replacing_folder, write_file
from promptweave.models.embedded import EMBEDDED, FAST, JOINT, embedded_folder
from promptweave.world.oracle import ORACLE
from promptweave.world.stages import STAGES
from promptweave.world.train_diffusion import export_latest, train_diffusion
from promptweave.world.train_fast import train_fast
from promptweave.world.train_further import begin_with
from promptweave.world.train_joint import train_joint
from promptweave.world.train_oracle import train_oracle
from promptweave.world.train_vae import train_vae
from promptweave.world.training import Training, Watch

__all__ = ("EXPORTS", "MADE_BY", "STAGES", "Training", "begin_with", "install", "train")

EXPORTS = {EMBEDDED: "pipeline", JOINT: JOINT, FAST: "fast"}  # embedded model -> its folder in a training folder
MADE_BY = {"joint": JOINT, "fast": FAST}  # the other stages make `toybox`


def train(
    folder: Path, recipe: Training, minutes: Mapping[str, float], device: str = "auto", watch: Watch | None = None
) -> None:
    """Run the stages named in `minutes`, each until the total time of its runs reaches them (the oracle: until done).

    `watch` is called after every step with the values for the log: stage, samples, minutes, loss ... Raises ValueError
    for an unknown stage or device.
    """
    unknown = set(minutes) - set(STAGES)
    if unknown:
        raise ValueError(f"Stages are {', '.join(STAGES)}. Received {', '.join(sorted(unknown))}.")
    known = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if device.partition(":")[0] not in ("auto", *known):
        raise ValueError(f"Training runs on auto or {' or '.join(known)} on this machine. Received device {device!r}.")
    place = known[-1] if device == "auto" else device
    for stage, time in minutes.items():
        if stage in ("vae", "decoder"):
            train_vae(folder, recipe, time, place, decoder_only=stage == "decoder", watch=watch)
        elif stage == "diffusion":
            train_diffusion(folder, recipe, time, place, watch=watch)
        elif stage == "joint":
            train_joint(folder, recipe, time, place, watch=watch)
        elif stage == "fast":
            train_fast(folder, recipe, time, place, watch=watch)
        else:
            train_oracle(folder / ORACLE, seed=recipe.seed, watch=watch)
    if "decoder" in minutes:
        export_latest(folder)


def install(folder: Path, stages: Collection[str] = STAGES) -> list[Path]:
    """Copy the results of these stages into the package; with `toybox` also the oracle, if there is one."""
    wanted = list(dict.fromkeys(MADE_BY.get(stage, EMBEDDED) for stage in stages if stage != "oracle"))
    made = [name for name in wanted if (folder / EXPORTS[name]).is_dir()]
    oracle = folder / ORACLE
    judges = oracle.is_file() and ("oracle" in stages or EMBEDDED in made)
    if not made and not judges:
        missing = oracle if not wanted else folder / EXPORTS[wanted[0]]
        raise FileNotFoundError(f"{missing} does not exist yet. Train first: promptweave train --folder {folder}")
    installed = [embedded_folder(name) for name in made]
    for name, target in zip(made, installed, strict=True):
        with replacing_folder(target) as fresh:
            shutil.copytree(folder / EXPORTS[name], fresh, dirs_exist_ok=True)
    if judges:
        target = embedded_folder().parents[1] / "world" / ORACLE
        installed.append(write_file(target, lambda fresh: shutil.copy(oracle, fresh)))
    return installed
