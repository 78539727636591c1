"""What can be loaded, and what an error says when it cannot."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline

from promptweave.models.embedded import GUIDANCE, mark
from promptweave.models.load import ModelError, load, usual_dtype
from promptweave.models.unet import UNetModel


def test_a_folder_in_half_precision_is_single_on_a_cpu(tiny, tiny_folder, tmp_path):
    half = tmp_path / "half"
    load(tiny_folder, device="cpu", dtype=torch.float16).pipeline.save_pretrained(half)
    model = load(half, device="cpu")
    assert model.dtype == torch.float32
    assert model.fingerprint() == tiny.fingerprint()


def test_the_embedded_models_are_in_single_precision_on_a_gpu_too():
    """toybox-dit overflows in float16."""
    for name in ("toybox", "toybox-fast", "toybox-dit"):
        assert usual_dtype(name, "cuda") is usual_dtype(name, "cpu") is torch.float32
    assert usual_dtype("owner/name", "cuda") is torch.float16


def test_a_folder_is_read_without_the_network(tiny_folder, monkeypatch):
    import socket

    def closed(*arguments, **options):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", closed)
    monkeypatch.setattr(socket, "getaddrinfo", closed)
    assert load(str(tiny_folder), device="cpu").channels == 4


def test_a_ready_pipeline_is_taken_as_it_is(tiny):
    model = load(tiny.pipeline)
    assert isinstance(model, UNetModel) and model.unet is tiny.unet


def test_a_folder_may_name_its_guidance(tiny, tiny_folder, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(tiny_folder, folder)
    mark(folder, **{GUIDANCE: 3.5})
    assert load(folder, device="cpu").defaults == (50, 3.5)
    assert load(tiny_folder, device="cpu").defaults == load(tiny.pipeline).defaults == (50, 7.5)
    StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)  # to which the mark says nothing


def test_something_else_than_a_pipeline():
    with pytest.raises(ModelError, match="StableDiffusionPipeline.*Received SimpleNamespace"):
        load(SimpleNamespace())


@pytest.mark.parametrize("name", ["toybox", "toybox-dit", "toybox-fast"])
def test_an_installation_without_an_embedded_model(tmp_path, monkeypatch, name):
    monkeypatch.setattr("promptweave.models.load.embedded_folder", lambda *_: tmp_path / name)
    with pytest.raises(ModelError, match=f"{name} is missing from this installation.*Reinstall the package"):
        load(name)


def test_a_corrupt_single_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(ModelError, match="could not be read"):
        load(tmp_path / "model.safetensors", device="cpu", offline=True)


def test_a_missing_folder_and_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="is neither"):
        load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="no file"):
        load(tmp_path / "nothing.safetensors")


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(ModelError, match="model_index.json"):
        load(tmp_path)


def test_corrupt_weights(tiny_folder, tmp_path):
    folder = tmp_path / "corrupt"
    shutil.copytree(tiny_folder, folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="could not be read.*Check that the folder is complete"):
        load(folder, device="cpu")


def test_a_folder_with_pickled_weights_only(tiny, tmp_path):
    folder = tmp_path / "pickled"
    tiny.pipeline.save_pretrained(folder, safe_serialization=False)
    with pytest.raises(ModelError, match="could not be read"):
        load(folder, device="cpu")


@pytest.mark.parametrize("ending", ["ckpt", "pt", "bin"])
def test_a_pickle_file_is_refused_with_the_reason(tmp_path, ending):
    (tmp_path / f"model.{ending}").write_bytes(b"")
    with pytest.raises(ModelError, match="can run any code.*safetensors"):
        load(tmp_path / f"model.{ending}")


def test_a_hub_id_that_is_not_cached_when_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="cache") as caught:
        load("nobody/nothing-of-that-name", device="cpu", offline=True)
    assert "\n" not in str(caught.value)


def test_an_unknown_device(tiny_folder):
    with pytest.raises(ModelError, match="'abacus' cannot be used.*cpu or auto"):
        load(tiny_folder, device="abacus")


@pytest.fixture()
def checkpoint(tokenizer, tmp_path):
    from single_file import save_single_file
    from tiny import build_tiny

    pipeline = build_tiny(tokenizer)
    pipeline.save_pretrained(tmp_path / "folder", safe_serialization=True)
    return save_single_file(pipeline, tmp_path / "model.safetensors"), tmp_path / "folder"


def test_a_single_file_is_the_pipeline_that_it_was_made_of(tiny, checkpoint):
    file, folder = checkpoint
    model = load(file, device="cpu", config=folder)
    assert model.fingerprint() == tiny.fingerprint()
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(m.pipeline, part).state_dict() for m in (model, tiny))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_class_of_a_single_file_is_read_from_its_tensors(checkpoint, tmp_path):
    from safetensors.torch import save_file

    from promptweave.models.single_file import SIGNS, pipeline_class

    assert pipeline_class(checkpoint[0]).__name__ == "StableDiffusionPipeline"
    for kind, sign in SIGNS:
        prefix = "" if kind in ("FluxPipeline", "StableDiffusionXLPipeline") else "model.diffusion_model."
        path = tmp_path / f"{kind}.safetensors"
        save_file({f"{prefix.removesuffix('model.diffusion_model.')}{sign}": torch.zeros(1)}, path)
        assert pipeline_class(path).__name__ == kind
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="other.safetensors has none of them"):
        load(tmp_path / "other.safetensors", device="cpu", offline=True)


def test_a_pickle_is_read_only_when_it_is_trusted(tiny, checkpoint, tmp_path):
    from safetensors.torch import load_file

    file, folder = checkpoint
    pickled = tmp_path / "model.ckpt"
    torch.save({"state_dict": load_file(file)}, pickled)
    with pytest.raises(ModelError, match="pickle file.*allow_pickle=True"):
        load(pickled, device="cpu", config=folder)
    assert load(pickled, device="cpu", config=folder, allow_pickle=True).fingerprint() == tiny.fingerprint()


def test_a_folder_with_pickled_weights(tiny, tmp_path):
    tiny.pipeline.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ModelError, match="could not be read"):
        load(tmp_path, device="cpu")
    assert load(tmp_path, device="cpu", allow_pickle=True).fingerprint() == tiny.fingerprint()
