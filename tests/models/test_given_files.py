"""What people give as a model: files and folders named for what they are, configs checked, and never a hub asked."""

from __future__ import annotations

import json
import random
import shutil
import socket

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from families import build_flux, build_ldm, build_sd3, build_sdxl
from safetensors.torch import save_file
from single_file import save_single_file
from tiny import build_tiny

from promptweave.models import hub
from promptweave.models.configs import BadConfig, check_configs, read_index
from promptweave.models.load import ModelError, load
from promptweave.models.solvers import UnknownScheduler, with_scheduler

FAMILIES = {
    "sd": build_tiny,
    "sdxl": build_sdxl,
    "sd3": build_sd3,
    "flux": build_flux,
    "ldm": lambda _: build_ldm("kl"),
}


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    for name, build in FAMILIES.items():
        build(tokenizer).save_pretrained(place / name, safe_serialization=True)
    return place


@pytest.fixture
def closed(monkeypatch):
    """No socket leads anywhere; whoever asks is noted, even if the error is caught."""
    asked: list[object] = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise OSError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield asked
    assert not asked


def tensors(*names: str, shape=(2, 2)) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name in names}


WRITTEN = {
    "LoRA": ("x.safetensors", tensors("unet.down_blocks.0.attn1.to_q.lora_A.weight"), "a LoRA.*load_lora_weights"),
    "kohya's LoRA": ("x.safetensors", tensors("lora_unet_down_blocks_0.lora_down.weight"), "a LoRA"),
    "LoHa": ("x.safetensors", tensors("lycoris_x.hada_w1_a"), "a LoRA"),
    "VAE": ("x.safetensors", tensors("encoder.down_blocks.0.x", "decoder.conv_in.weight", "quant_conv.bias"), "a VAE"),
    "VAE of the original": ("x.safetensors", tensors("first_stage_model.decoder.conv_in.weight"), "a VAE"),
    "ControlNet": ("x.safetensors", tensors("control_model.input_hint_block.0.weight"), "a ControlNet.*control=image"),
    "ControlNet of diffusers": ("x.safetensors", tensors("controlnet_down_blocks.0.weight"), "a ControlNet"),
    "IP-Adapter": ("x.safetensors", tensors("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"), "image_prompt="),
    "CLIP": ("x.safetensors", tensors("text_model.encoder.layers.0.mlp.fc1.weight"), "a CLIP encoder"),
    "T5": ("x.safetensors", tensors("shared.weight", "encoder.block.0.layer.0.x"), "a T5 encoder"),
    "inversion": ("x.safetensors", tensors("emb_params", shape=(3, 768)), "a textual inversion.*load_textual"),
    "inversion of diffusers": ("x.safetensors", tensors("<toy>", shape=(768,)), "a textual inversion"),
    "UNet": ("x.safetensors", tensors("down_blocks.0.resnets.0.conv1.weight"), "denoising network.*alone"),
    "motion": ("x.safetensors", tensors("down_blocks.0.motion_modules.0.x"), "AnimateDiff"),
    "nothing known": ("x.safetensors", tensors("weight", shape=(2, 2, 2)), "has none of them"),
    "LFS": ("x.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "LFS pickle": ("x.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page": ("x.safetensors", b"\n<!DOCTYPE html><html>Sign in</html>", "a web page.*log in"),
    "refusal": ("x.safetensors", b'{"error":"Repository not found"}', "a server that refused"),
    "GGUF": ("x.gguf", b"GGUF\x03\0\0\0", "a GGUF file.*diffusers"),
    "GGUF by another name": ("x.safetensors", b"GGUF\x03\0\0\0", "a GGUF file"),
    "ONNX": ("x.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX network.*model_index.json"),
    "zip": ("x.zip", b"PK\x03\x04", "a zip archive.*Unpack"),
    "7z": ("x.7z", b"7z\xbc\xaf'\x1c", "archive"),
    "picture": ("x.png", b"\x89PNG\r\n", "a picture.*--image"),
    "empty": ("x.safetensors", b"", "empty"),
    "text": ("x.txt", b"hello", r"a \.txt file"),
    "unfinished": ("x.safetensors.part", b"\x08\0\0\0\0\0\0\0", "unfinished download"),
    "cut": ("x.safetensors", (200).to_bytes(8, "little") + b"{", "incomplete"),
    "pickled inversion": ("x.pt", b"PK\x03\x04", "can run any code.*load_textual_inversion"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRITTEN)
def test_a_file_is_named_for_what_it_is(case, tmp_path, closed):
    name, content, said = WRITTEN[case]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        save_file(content, tmp_path / name)
    with pytest.raises(ModelError, match=f"(?s){said}") as caught:
        load(tmp_path / name, device="cpu", offline=True)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_says_by_how_much(tmp_path):
    save_file(tensors("model.diffusion_model.input_blocks.0.0.weight", shape=(64, 64)), tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:1000])
    with pytest.raises(ModelError, match=f"incomplete: it has 1000 of {len(whole)} bytes"):
        load(tmp_path / "x.safetensors", device="cpu")


def folder_cases(folders, place):
    """Folder by name, and what its error says."""

    def made(name, *paths):
        for path in paths:
            (place / name / path).parent.mkdir(parents=True, exist_ok=True)
            (place / name / path).write_text("{}")
        return place / name

    def copy(name, change):
        shutil.copytree(folders / "sd", place / name)
        change(place / name)
        return place / name

    def pointer(folder):
        next((folder / "unet").glob("*.safetensors")).write_text("version https://git-lfs.github.com/spec/v1\n")

    def index(**values):
        def change(folder):
            path = folder / "model_index.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

        return change

    (place / "void").mkdir()
    return [
        (place / "void", "It is empty"),
        (made("comfy", "checkpoints/a.safetensors", "loras/b", "vae/c"), "ComfyUI.*checkpoints/a.safetensors"),
        (made("a1111", "models/Stable-diffusion/a"), "web interface"),
        (made("files", "a.safetensors"), "holds checkpoints.*files/a.safetensors"),
        (made("above", "model/model_index.json"), "one level below.*above/model"),
        (made("models--a--b", "snapshots/0/model_index.json"), "cache of a hub.*snapshots/0"),
        (made("lora", "pytorch_lora_weights.safetensors"), "a LoRA"),
        (made("onnx", "unet/model.onnx"), "compiled networks"),
        (made("parts", "unet/x", "vae/y"), "incomplete download.*model_index.json"),
        (folders / "sd" / "unet", "a part of a pipeline, UNet2DConditionModel. Give .*sd"),
        (copy("pointers", pointer), "Git LFS pointer.*git lfs pull"),
        (copy("half", lambda folder: next((folder / "vae").glob("*.safetensors")).unlink()), "vae.*holds no weights"),
        (copy("less", lambda folder: shutil.rmtree(folder / "text_encoder")), "text_encoder is missing.*Download"),
        (copy("kind", index(_class_name="StableCascadePipeline")), "Received StableCascadePipeline"),
        (copy("foreign", index(unet=["os", "system"])), r"unet must be \[library, class\]"),
        (copy("newer", index(unet=["diffusers", "UNet9D"])), "UNet9D, which this version of diffusers does not have"),
        (copy("text", lambda folder: (folder / "model_index.json").write_text('"x"')), "must hold a JSON object"),
    ]  # fmt: skip


def test_a_folder_is_named_for_what_it_is(folders, tmp_path, closed):
    for folder, said in folder_cases(folders, tmp_path):
        with pytest.raises(ModelError, match=f"(?s){said}"):
            load(folder, device="cpu")


def test_a_folder_with_half_precision_files_alone_is_read(tokenizer, tmp_path):
    build_tiny(tokenizer).save_pretrained(tmp_path, variant="fp16")
    assert load(tmp_path, device="cpu").channels == 4


# family, file, key, value
WRONG = [
    ("sd", "unet", "sample_size", "x"), ("sd", "unet", "sample_size", None), ("sd", "unet", "sample_size", 0),
    ("sd", "unet", "in_channels", "x"), ("sd", "unet", "act_fn", "nothing"), ("sd", "unet", "norm_num_groups", 7),
    ("sd", "unet", "block_out_channels", "x"), ("sd", "unet", "norm_eps", float("nan")),
    ("sd", "vae", "scaling_factor", "x"), ("sd", "vae", "scaling_factor", 0), ("sd", "vae", "latent_channels", []),
    ("sd", "scheduler", "beta_start", float("inf")), ("sd", "scheduler", "beta_end", -1),
    ("sd", "scheduler", "prediction_type", "x"), ("sd", "scheduler", "num_train_timesteps", "x"),
    ("sd", "text_encoder", "hidden_size", "x"),
    ("sd", "text_encoder", "num_attention_heads", 0), ("sd", "tokenizer", "model_max_length", "x"),
    ("sd", "tokenizer", "model_max_length", 1000), ("sd3", "vae", "shift_factor", "x"),
    ("sd3", "transformer", "num_layers", {}), ("sd3", "scheduler", "shift", "x"), ("flux", "vae", "shift_factor", "x"),
    ("flux", "transformer", "axes_dims_rope", "x"), ("flux", "text_encoder_2", "d_model", "x"),
    ("sdxl", "unet", "addition_time_embed_dim", "x"), ("ldm", "vqvae", "block_out_channels", 3),
]  # fmt: skip


@pytest.mark.parametrize(("family", "part", "key", "value"), WRONG, ids=[f"{f}-{p}-{k}" for f, p, k, _ in WRONG])
def test_a_wrong_value_names_file_and_key(family, part, key, value, folders, tmp_path, closed):
    folder = tmp_path / "model"
    folder.symlink_to(folders / family) if False else folder.mkdir()
    for entry in (folders / family).iterdir():
        if entry.name != part:
            (folder / entry.name).symlink_to(entry)
    shutil.copytree(folders / family / part, folder / part)
    (path,) = [p for p in (folder / part).glob("*config.json") if p.name != "generation_config.json"]
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match=f"(?s){part}/{path.name}.*{key}"):
        load(folder, device="cpu")


VALUES = ["x", "owner/name", "", None, True, -1, 0, 3.7, 10**9, float("nan"), float("inf"), [], [1, "x"], {}, {"a": 1}]


def mutated(config: dict, text: str, rng: random.Random) -> str:
    """A JSON file with one thing wrong, or not even JSON."""
    if rng.random() < 0.2 or not config:
        return rng.choice(['"x"', "[]", "", "{", "null", "1", '"owner/name"', text[: len(text) // 2]])
    key = rng.choice(list(config))
    if rng.random() < 0.2:
        return json.dumps({k: v for k, v in config.items() if k != key})
    return json.dumps({**config, key: rng.choice(VALUES)})


def test_mutated_configs_load_or_end_in_a_sentence_without_network(folders, closed):
    """Most by the checks alone, some by all of a load."""
    rng = random.Random(0)
    files = [path for path in sorted(folders.glob("*/**/*.json")) if path.stat().st_size < 5000]
    for number in range(600):
        source = rng.choice(files)
        family, before = folders / source.relative_to(folders).parts[0], source.read_text()
        source.write_text(mutated(json.loads(before), before, rng))
        try:
            if number % 60 == 0:
                assert load(family, device="cpu").channels > 0
            else:
                check_configs(family, read_index(family))
        except (ModelError, BadConfig) as error:
            assert str(family) in str(error) or "promptweave steers pipelines" in str(error), error
        finally:
            source.write_text(before)
    assert not hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    "place", ["https://hub.example/owner/name", "https://hub.example/owner/name/blob/x.safetensors"]
)
def test_an_address_is_not_fetched(place, closed):
    with pytest.raises(ModelError, match="not fetched.*hub id 'owner/name'"):
        load(place)


def test_a_borrowed_autoencoder_is_one_of_ours(folders, tmp_path, closed):
    shutil.copytree(folders / "sd", tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_autoencoder_of": "owner/name"}))
    with pytest.raises(ModelError, match="_autoencoder_of.*toybox"):
        load(tmp_path / "model", device="cpu")


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoint")
    pipeline = build_tiny(tokenizer)
    pipeline.save_pretrained(place / "folder", safe_serialization=True)
    return save_single_file(pipeline, place / "model.safetensors"), place / "folder"


@pytest.mark.parametrize(
    ("marks", "metadata", "prediction", "zero"),
    [
        ((), {}, "epsilon", False), (("v_pred",), {}, "v_prediction", False),
        (("v_pred", "ztsnr"), {}, "v_prediction", True), (("ztsnr",), {}, "v_prediction", True),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction", False),
    ],
)  # fmt: skip
def test_a_checkpoint_says_how_it_was_trained(marks, metadata, prediction, zero, checkpoint, tmp_path, closed):
    from safetensors.torch import load_file

    file, folder = checkpoint
    save_file(load_file(file) | {mark: torch.zeros(0) for mark in marks}, tmp_path / "x.safetensors", metadata)
    model = load(tmp_path / "x.safetensors", device="cpu", config=folder)
    config = model.sampler.config
    assert config.prediction_type == model.schedule().prediction == prediction
    assert bool(config.rescale_betas_zero_snr) is zero
    assert (model.schedule().spacing, float(model.schedule().alpha_bar[-1])) == ("trailing", 0.0) or not zero
    if zero:
        with pytest.raises(UnknownScheduler, match="signal of zero.*'heun'.*ddim"):
            load(tmp_path / "x.safetensors", device="cpu", config=folder, scheduler="heun")


def test_a_checkpoint_of_edm_is_refused_by_name(checkpoint, tmp_path):
    from safetensors.torch import load_file

    save_file(load_file(checkpoint[0]) | {"edm_vpred.sigma_max": torch.zeros(0)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="EDM"):
        load(tmp_path / "x.safetensors", device="cpu", config=checkpoint[1])


def test_a_scheduler_without_the_schedule_of_zero_is_refused():
    old = EulerDiscreteScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert isinstance(with_scheduler(old, "ddim"), DDIMScheduler)
    with pytest.raises(UnknownScheduler, match="'pndm'"):
        with_scheduler(old, "pndm")
