"""Edits with compiled networks against the same ones as they are; run by the tests of torch.compile."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from families import build_sd3
from tiny import SENTENCES, build_tiny

from promptweave import LocalBlend, Replace, load, noise_for, sample
from promptweave.world.build import build_tokenizer

PROMPTS = ["a photo of a cat riding a bike", "a photo of a dog riding a bike"]


def edited(model, steps: int = 4) -> torch.Tensor:
    controls = [Replace(joint=0.4), LocalBlend("dog")]
    return sample(model, PROMPTS, noise=noise_for(model, 0), steps=steps, guidance=3.0, controls=controls).latents


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(SENTENCES * 3, Path(tempfile.mkdtemp()), 340)
    torch._dynamo.config.recompile_limit = 64  # what diffusers advises for networks of many different layers
    frames = torch._dynamo.utils.counters["frames"]
    for build in (build_tiny, build_sd3):
        plain, model = load(build(tokenizer)), load(build(tokenizer))
        model.network.compile(backend="eager")  # capture as always, without the minutes that a code generator takes
        torch.testing.assert_close(edited(model), edited(plain))
        before = dict(frames)
        assert before["ok"] > 10, before
        torch.testing.assert_close(edited(model, 5), edited(plain, 5))
        assert dict(frames) == before, f"a second edit was compiled anew: {before}, {dict(frames)}"


if __name__ == "__main__":
    main()
