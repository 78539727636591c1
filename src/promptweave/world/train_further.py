"""Initialise a training folder with the weights of a model whose checkpoints are not available."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from promptweave.core.files import replacing_folder
from promptweave.models.embedded import EMBEDDED
from promptweave.models.load import load
from promptweave.world import build
from promptweave.world.build_joint import patch_of
from promptweave.world.train_diffusion import Diffusion
from promptweave.world.train_joint import JointDiffusion
from promptweave.world.training import save_checkpoint


def begin_with(folder: Path, name: str) -> None:
    """Copy the weights of a model into an empty training folder, to train it further.

    `name`: as in `load`, a model with the architecture of `toybox` (for the stage `diffusion`) or of `toybox-dit` (for
    the stage `joint`, with `toybox` as the teacher). Raises FileExistsError if the folder has checkpoints, from which
    training would resume, and ValueError for networks of other shapes.
    """
    for path in (folder / "diffusion.pt", folder / "joint.pt"):
        if path.exists():
            raise FileExistsError(
                f"Another model's weights are copied only into a new training folder, but {path} exists. Give "
                "--folder another name, or leave out --begin-with to resume from that checkpoint."
            )
    pipeline: Any = load(name, device="cpu").pipeline
    with replacing_folder(folder / "tokenizer") as fresh:
        pipeline.tokenizer.save_pretrained(fresh)
    try:
        if hasattr(pipeline, "unet"):
            _lay_diffusion(folder, pipeline)
        else:
            _lay_joint(folder, pipeline)
            _lay_diffusion(folder, load(EMBEDDED, device="cpu").pipeline)
    except (AttributeError, RuntimeError, ValueError) as error:  # it lacks the networks, or they have other shapes
        shutil.rmtree(folder / "tokenizer")
        raise ValueError(
            "Training continues only from networks with the embedded models' shapes. Received "
            f"{name!r}, which does not fit: {str(error).splitlines()[0]} Train without --begin-with."
        ) from error


def _lay_diffusion(folder: Path, pipeline: Any) -> None:
    model, vae = Diffusion(folder), build.build_vae()
    model.text_encoder.load_state_dict(pipeline.text_encoder.state_dict())
    model.unet.load_state_dict(pipeline.unet.state_dict())
    vae.load_state_dict(pipeline.vae.state_dict())
    save_checkpoint(folder / "codes.pt", vae.state_dict())
    weights = model.state_dict()
    save_checkpoint(folder / "diffusion.pt", {"model": weights, "average": weights, "spent": 0.0, "samples": 0})


def _lay_joint(folder: Path, pipeline: Any) -> None:
    patch = patch_of(pipeline.transformer)
    model = JointDiffusion(folder, patch)
    model.first.load_state_dict(pipeline.text_encoder.state_dict())
    model.second.load_state_dict(pipeline.text_encoder_2.state_dict())
    model.transformer.load_state_dict(pipeline.transformer.state_dict())
    weights = model.state_dict()
    kept = {"patch": patch, "model": weights, "average": weights, "spent": 0.0, "samples": 0}
    save_checkpoint(folder / "joint.pt", kept)
