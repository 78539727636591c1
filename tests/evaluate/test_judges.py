"""Judges against closed forms, and against their definitions written down once more in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTModel

from promptweave.evaluate.judges import Case, Clip, Goal, Perceptual, Pixels, Structure
from promptweave.evaluate.pie_bench import framed
from promptweave.evaluate.published_metrics import corrected, published
from promptweave.evaluate.structural_similarity import ssim_map, whole_windows
from promptweave.models.judge_networks import SQUEEZENET, Lpips, NoJudge, load_clip, load_dino, load_lpips

RNG = np.random.default_rng(3)
SOURCE = RNG.integers(0, 256, (40, 48, 3), np.uint8)
EDIT = np.clip(SOURCE.astype(int) + RNG.integers(-40, 41, SOURCE.shape), 0, 255).astype(np.uint8)
MASK = np.zeros((40, 48), bool)
MASK[5:20, 10:30] = True


def case(**other: object) -> Case:
    return Case(**{  # type: ignore[arg-type]
        "source": SOURCE, "edit": EDIT, "source_prompt": "a black cat", "target_prompt": "a red car", "mask": MASK,
        "published_mask": framed(MASK), **other,
    })  # fmt: skip


def naive_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """SSIM at each pixel, mean of the channels, written out in float64; borders are reflected."""
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    x, y = (np.pad(image.astype(float) / 255, ((5, 5), (5, 5), (0, 0)), mode="reflect") for image in (first, second))
    found = np.zeros(first.shape[:2])
    for row, column in np.ndindex(found.shape):
        a, b = (each[row : row + 11, column : column + 11] for each in (x, y))

        def mean(values: np.ndarray) -> np.ndarray:
            return (weights[..., None] * values).sum((0, 1))

        ma, mb = mean(a), mean(b)
        va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        value = (2 * ma * mb + 1e-4) * (2 * both + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
        found[row, column] = value.mean()
    return found


def test_published_figures_count_the_whole_image() -> None:
    """A difference of d in k of n pixels is an MSE of d^2 k/n, however few pixels lie outside the mask."""
    source, edit = np.zeros((2, 40, 48, 3), np.uint8)
    edit[:4, :, :] = 51  # 0.2
    outside = np.zeros((40, 48), bool)
    outside[:8] = True
    found = published(source, edit, outside) | corrected(source, edit, outside)
    assert found["mse"] == pytest.approx(0.04 * 4 / 40) and found["psnr"] == pytest.approx(-10 * math.log10(0.004))
    assert found["mse_outside"] == pytest.approx(0.04 * 4 / 8)
    assert found["psnr_outside"] == pytest.approx(-10 * math.log10(0.02))


def test_ssim_is_its_definition() -> None:
    kept = [np.where(framed(MASK)[..., None], 0, image).astype(np.uint8) for image in (SOURCE, EDIT)]
    whole, blackened = naive_ssim(SOURCE, EDIT), naive_ssim(*kept)
    assert ssim_map(SOURCE, EDIT) == pytest.approx(whole, abs=2e-5)
    found = Pixels()(case())
    assert found["ssim"] == pytest.approx(blackened.mean(), abs=2e-5)
    free = whole_windows(~MASK)
    assert free[0, 0] and free[26, 20] and not free[24, 20] and not free[10, 31]  # 25 is the first row that sees none
    assert found["ssim_outside"] == pytest.approx(whole[free].mean(), abs=2e-5)


def test_what_is_not_defined_is_nan() -> None:
    """Nothing outside: NaN, as published. Equal regions: infinite as published, 60 dB corrected."""
    everything = np.ones_like(MASK)
    found = Pixels()(case(mask=everything, published_mask=everything))
    assert all(math.isnan(value) for value in found.values()) and len(found) == 6
    same = Pixels()(case(edit=SOURCE))
    assert (same["psnr"], same["psnr_outside"], same["mse"]) == (math.inf, 60.0, 0.0)
    assert same["ssim"] == pytest.approx(1)
    assert Pixels()(case(source=None)) == {}
    without = Pixels()(case(mask=None, published_mask=None))
    assert without["mse"] == pytest.approx(without["mse_outside"])
    with pytest.raises(ValueError, match="of one size"):
        Pixels()(case(mask=MASK[:-1]))


def test_distance_to_the_goal() -> None:
    goal = EDIT.copy()
    goal[5:20, 10:30] = np.clip(EDIT[5:20, 10:30].astype(int) + 51, 0, 255).astype(np.uint8)
    found = Goal()(case(goal=goal))
    difference = goal.astype(float) - EDIT
    assert found["l1_goal"] == pytest.approx(np.abs(difference).mean() / 255)
    assert found["l2_goal"] == pytest.approx((difference**2).mean() / 255**2)
    assert found["psnr_goal_inside"] == pytest.approx(-10 * math.log10((difference[MASK] ** 2).mean() / 255**2))
    assert Goal()(case()) == {}


def lpips_network() -> Lpips:
    torch.manual_seed(0)
    network = Lpips().eval()
    for head in network.heads:
        nn.init.uniform_(head)
    return network


def naive_lpips(network: Lpips, first: torch.Tensor, second: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The sum over the seven parts of the mean weighted squared difference, and the sum of their enlarged maps."""
    ends, total, full = (1, 4, 7, 9, 10, 11, 12), 0.0, torch.zeros(first.shape[-2:], dtype=torch.float64)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    pair = [(image - shift[:, None, None]) / scale[:, None, None] for image in (first, second)]
    for place, layer in enumerate(network.features):
        pair = [layer(image[None])[0] for image in pair]
        if place in ends:
            a, b = (x.double() / (x.double().square().sum(0, keepdim=True) + 1e-8).sqrt() for x in pair)
            weighed = ((a - b) ** 2 * network.heads[ends.index(place)].double()[:, None, None]).sum(0)
            total += float(weighed.mean())
            full += nn.functional.interpolate(weighed[None, None], full.shape, mode="bilinear")[0, 0]
    return total, full


def test_lpips_is_its_definition() -> None:
    network = lpips_network()
    images = [torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1) for image in (SOURCE, EDIT)]
    black = [image.masked_fill(torch.from_numpy(framed(MASK)), -1) for image in images]
    with torch.no_grad():
        whole, full = naive_lpips(network, *black)[0], naive_lpips(network, *images)[1]
    found = Perceptual(network)(case())
    assert found["lpips"] == pytest.approx(whole, rel=1e-5) and found["lpips"] > 1e-4
    assert found["lpips_outside"] == pytest.approx(float(full[torch.from_numpy(~MASK)].mean()), rel=1e-5)
    assert Perceptual(network)(case(edit=SOURCE))["lpips"] == 0
    assert math.isnan(Perceptual(network)(case(mask=np.ones_like(MASK)))["lpips_outside"])


def test_lpips_weights_are_found_by_their_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SqueezeNet by torchvision's names; its heads come with torchmetrics."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(NoJudge, match=f"{SQUEEZENET} of torchvision, which are not in"):
        load_lpips(tmp_path)
    torch.manual_seed(1)
    random = Lpips().features.state_dict()
    assert {"0.weight", "3.squeeze.weight", "12.expand3x3.bias"} <= set(random) and len(random) == 2 + 8 * 6
    classifier = {"classifier.1.weight": torch.zeros(1)}
    torch.save({f"features.{name}": value for name, value in random.items()} | classifier, tmp_path / SQUEEZENET)
    network = load_lpips(tmp_path)
    assert torch.equal(network.features.state_dict()["12.squeeze.bias"], random["12.squeeze.bias"])
    assert all(float(head.min()) >= 0 and float(head.max()) > 0 for head in network.heads)
    torch.save({}, tmp_path / SQUEEZENET)
    with pytest.raises(NoJudge, match="Replace the file"):
        load_lpips(tmp_path)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of judges with a tiny DINO."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("judges")
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=30, patch_size=32, image_size=224
    )
    model = ViTModel(config, add_pooling_layer=False)
    nn.init.normal_(model.embeddings.patch_embeddings.projection.weight)
    model.save_pretrained(folder / "dino-vitb8")
    return folder


def test_structure_is_its_definition(dino: Path) -> None:
    """From the hidden states, by the weights of the last layer's keys; pixels from 0 to 255, as published."""
    network, size = load_dino(dino), (224, 268)
    layer = network.layers[-1] if hasattr(network, "layers") else network.encoder.layer[-1]
    maps: dict[float, list[torch.Tensor]] = {1: [], 255: []}
    for top in maps:
        for image in (SOURCE, EDIT):
            x = torch.from_numpy(image.astype(np.float32) / top).permute(2, 0, 1)[None]
            x = nn.functional.interpolate(x, size, mode="bilinear")
            mean, spread = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
            with torch.no_grad():
                states = network((x - mean) / spread, output_hidden_states=True, interpolate_pos_encoding=True)
                key = layer.attention.k_proj if hasattr(layer.attention, "k_proj") else layer.attention.attention.key
                k = key(layer.layernorm_before(states.hidden_states[-2]))[0].double()
            maps[top].append(torch.nn.functional.cosine_similarity(k[:, None], k[None], dim=-1))
    found = Structure(network)(case())
    for name, top in (("structure", 1), ("structure_scaled", 255)):
        expected = float((maps[top][0] - maps[top][1]).square().mean())
        assert expected > 1e-6 and found[name] == pytest.approx(expected, rel=1e-3)
    assert Structure(network)(case(edit=SOURCE)) == {"structure": 0, "structure_scaled": 0}


@pytest.fixture(scope="module")
def clip(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of judges with a tiny CLIP."""
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("judges") / "clip-vit-large-patch14"
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 3}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 9}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 24, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kind = getattr(__import__("transformers"), "CLIPImageProcessorPil", CLIPImageProcessor)
    kind(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder.parent


def test_clip_is_its_definition(clip: Path, tokenizer) -> None:
    """The cosine of image and prompt, from the parts of the model."""
    network, processor, words = load_clip(clip)
    judge = Clip(network, processor, words)

    def image(pixels: np.ndarray) -> torch.Tensor:
        side = Image.fromarray(pixels)
        width, height = side.size
        side = side.resize((int(24 * width / height), 24), Image.Resampling.BICUBIC)
        left = (side.width - 24) // 2
        x = np.asarray(side.crop((left, 0, left + 24, 24))).astype(np.float32) / 255
        x = (x - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
        made = network.vision_model(torch.from_numpy(x).float().permute(2, 0, 1)[None]).pooler_output
        return network.visual_projection(made)[0].double()

    def text(prompt: str) -> torch.Tensor:
        ids = torch.tensor([words(prompt)["input_ids"][:9]])
        return network.text_projection(network.text_model(ids).pooler_output)[0].double()

    def score(pixels: np.ndarray, prompt: str) -> float:
        return 100 * max(float(torch.cosine_similarity(image(pixels), text(prompt), dim=0)), 0)

    black = np.where(framed(MASK)[..., None], EDIT, 0).astype(np.uint8)
    expected = {
        "clip_whole": score(EDIT, "a red car"), "clip_edited": score(black, "a red car"),
        "clip_source": score(SOURCE, "a black cat"),
    }  # fmt: skip
    found = judge(case())
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.02)
    assert max(expected.values()) > 1 and -1 <= found["clip_change"] <= 1
    assert found["clip_box"] >= 0 and set(found) == set(judge.figures)
    assert set(judge(case(source=None, mask=None, published_mask=None))) == {"clip_whole"}
    assert math.isnan(judge(case(edit=SOURCE))["clip_change"])
    judge(case(target_prompt="a red car " * 20))  # longer than the network reads


def test_a_judge_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoJudge, match="openai/clip-vit-large-patch14, which cannot be loaded: it is not in the local"):
        load_clip()
    (tmp_path / "dino-vitb8").mkdir()
    with pytest.raises(NoJudge, match=f"not in {tmp_path / 'dino-vitb8'} as a whole"):
        load_dino(tmp_path)
