"""A pipeline of the true classes with tiny random weights, built in code: no download, milliseconds per step."""

from __future__ import annotations

from pathlib import Path

import matrix
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from transformers import CLIPTextConfig, CLIPTextModel

from promptweave.models.build import build_tokenizer
from promptweave.models.unet import UNetModel

torch.set_num_threads(1)
OUTCOMES: dict[tuple[str, str], str] = {}
SENTENCES = [
    "a photo of a cat riding a bike in the snow",
    "a painting of a squirrel eating a burger at night",
    "a black cat next to a red car",
    "a photo of a dog riding a blue car on a beach",
    "a lion wearing a crown",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--support-matrix", type=Path, help="file to write the families' support matrix into")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    place = matrix.parts(report.nodeid)
    if place and (report.when == "call" or report.failed):
        OUTCOMES[place] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--support-matrix")
    if path:
        matrix.write(path, OUTCOMES)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return build_tokenizer(SENTENCES * 3, tmp_path_factory.mktemp("tokenizer"), 340)


def build_tiny(tokenizer, *, prediction: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 48),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=(2, 3),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )
    for module in unet.modules():
        if isinstance(module, Attention):  # default weights make attention nearly uniform, and tests without power
            module.to_q.weight.data *= 3
            module.to_k.weight.data *= 3
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def tiny(tokenizer) -> UNetModel:
    return UNetModel(build_tiny(tokenizer), "tiny")


@pytest.fixture(scope="session")
def tiny64(tokenizer) -> UNetModel:
    """The same weights in double precision."""
    return UNetModel(build_tiny(tokenizer).to(torch.float64), "tiny64")


@pytest.fixture(scope="session")
def tiny_v(tokenizer) -> UNetModel:
    return UNetModel(build_tiny(tokenizer, prediction="v_prediction"), "tiny_v")


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    build_tiny(tokenizer).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture()
def noise64() -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
