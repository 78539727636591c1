"""Offload to main memory and torch.compile leave what controls do as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import build_flux, build_sd3, build_sdxl
from tiny import build_tiny

from promptweave import LocalBlend, Replace, load, noise_for, sample

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of both runs that are compared
BUILDERS = {"sd": build_tiny, "sdxl": build_sdxl, "sd3": build_sd3, "flux": build_flux}


def edited(model) -> torch.Tensor:
    controls = [Replace(joint=0.4), LocalBlend("dog")]
    return sample(
        model, [SOURCE, TARGET], noise=noise_for(model, 0), steps=4, guidance=3.0, controls=controls
    ).latents.cpu()  # fmt: skip


@pytest.mark.parametrize("family", BUILDERS)
def test_model_offload(family, tokenizer):
    pipeline = BUILDERS[family](tokenizer)
    plain = load(BUILDERS[family](tokenizer).to(DEVICE))
    pipeline.enable_model_cpu_offload(device=DEVICE)
    model = load(pipeline)
    torch.testing.assert_close(edited(model), edited(plain), rtol=1e-3, atol=1e-3)
    assert model.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("family", BUILDERS)
def test_the_fingerprint_reads_weights_that_sequential_offload_took_away(family, tokenizer):
    pipeline = BUILDERS[family](tokenizer)
    pipeline.enable_sequential_cpu_offload(device="cpu")
    assert any(parameter.is_meta for parameter in load(pipeline).network.parameters())
    assert load(pipeline).fingerprint() == load(BUILDERS[family](tokenizer)).fingerprint()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="accelerate offloads layer by layer only from a GPU")
@pytest.mark.parametrize("family", BUILDERS)
def test_sequential_offload(family, tokenizer):
    pipeline = BUILDERS[family](tokenizer)
    pipeline.enable_sequential_cpu_offload()
    plain = load(BUILDERS[family](tokenizer).to(DEVICE))
    torch.testing.assert_close(edited(load(pipeline)), edited(plain), rtol=1e-3, atol=1e-3)


def test_a_compiled_network_is_steered_like_another():
    """In a process of its own: the type checks that the other tests run under are not made to be compiled."""
    script = Path(__file__).parents[1] / "compiled.py"
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
