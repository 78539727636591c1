"""What the tests on a GPU go through, on the CPU in two families in half precision, so that it is sound on a GPU."""

from __future__ import annotations

import pytest
import torch
from everything import THINGS, acts, latents
from families import build_sd3
from tiny import build_tiny

from promptweave import load


@pytest.fixture(scope="module", params=[build_tiny, build_sd3], ids=["UNet", "MM-DiT"])
def model(request, tokenizer):
    return load(request.param(tokenizer).to(torch.bfloat16))


@pytest.mark.parametrize("name", THINGS)
def test_each_runs_or_is_refused(model, name):
    if acts(name, model):
        assert all(torch.isfinite(x).all() for x in latents(THINGS[name](model)))
        return
    with pytest.raises(ValueError):
        THINGS[name](model)
