"""The memory of null-text inversion, counted without running it, against what a real pass keeps."""

from __future__ import annotations

import pytest
import torch
from families import build_sd3

import promptweave as pw
from promptweave.inversion import Direct, NullText


def kept_by(network, call) -> int:
    """Bytes of the storages that autograd saves, but for the weights; every storage counts once."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        call()
    return sum(storage.nbytes() for storage in kept.values())


def call_of(model):
    text = model.encode(["a cat"], [""]).uncond.detach().requires_grad_()
    z = torch.randn(1, 4, 16, 24)
    return lambda: model.predict(z, 501, text)


def test_what_is_kept_is_what_was_counted(tiny):
    estimate = tiny.gradient_memory((16, 24))
    assert estimate.kept == kept_by(tiny.unet, call_of(tiny))
    assert estimate == NullText().memory(tiny, (32, 48))
    assert estimate.weights == sum(
        p.numel() * 4 for part in (tiny.unet, tiny.pipeline.text_encoder, tiny.pipeline.vae) for p in part.parameters()
    )


def test_with_checkpointing_the_inputs_of_parts_and_the_largest_part(tiny, monkeypatch):
    """A part recomputed by itself keeps its inside; the parts' inputs stay. Counted here part by part, really."""
    estimate, inputs, insides = tiny.gradient_memory((16, 24)), dict[int, torch.UntypedStorage](), list[int]()

    def part(function, *given):
        outer = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in given if isinstance(x, torch.Tensor)}
        inputs.update(outer)
        found: list = []
        inside = kept_by(tiny.unet, lambda: found.append(function(*given)))
        insides.append(inside)
        return found[0]

    tiny.unet.enable_gradient_checkpointing(gradient_checkpointing_func=part)
    try:
        outside = kept_by(tiny.unet, call_of(tiny))
    finally:
        tiny.unet.disable_gradient_checkpointing()
    held = sum(storage.nbytes() for storage in inputs.values())
    assert max(held, outside) < estimate.checkpointed <= held + outside + max(insides)
    assert estimate.checkpointed < 0.5 * estimate.kept


def test_the_true_shapes_of_stable_diffusion_xl_fit_24_gb():
    """Half precision, 1024 x 1024, without allocating: SDXL's UNet has 2.567 billion parameters."""
    from promptweave.benchmarks.random_pipelines import random_sdxl

    with torch.device("meta"):
        model = pw.load(random_sdxl())
        model.unet.half()
        estimate = model.gradient_memory((128, 128))
    assert sum(p.numel() for p in model.unet.parameters()) == 2_567_463_684
    assert 2 * 2_567_463_684 + estimate.kept < 24e9 and estimate.checkpointed < 1e9


def test_who_has_no_estimate_and_where_it_is_shown(tiny, tiny_folder, tokenizer, tmp_path, monkeypatch, capsys):
    import numpy as np
    from PIL import Image

    from promptweave.apps.cli import main

    assert Direct().memory(tiny) is None
    assert NullText().memory(pw.load(build_sd3(tokenizer))) is None
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("photo.png")
    run = ("--inversion", "null-text:rounds=1", "--model", str(tiny_folder), "--steps", "2", "--guidance", "3")
    for words in (
        ("invert", "photo.png", "a cat", *run),
        ("edit", "a cat", "a dog", "--image", "photo.png", *run),
        ("masactrl", "a cat", "a dog", "--image", "photo.png", "--start", "0", *run),
    ):
        with pytest.raises(SystemExit) as end:
            main([*words, "-o", f"{words[0]}{'.safetensors' if words[0] == 'invert' else ''}"])
        said, wrong = capsys.readouterr()
        assert end.value.code == 0, wrong
        assert "null-text needs about 8 MB (3 MB of weights" in said
        assert said.index("null-text needs") < said.index("inversion null-text:rounds=1")
