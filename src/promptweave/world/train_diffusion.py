"""Stage two of `toybox`: text encoder and UNet, trained jointly on the latents of rendered scenes."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from promptweave.core.files import replacing_folder, write_file
from promptweave.models.load import load
from promptweave.sampling.loop import noise_for, sample
from promptweave.view.sheet import sheet
from promptweave.world import build
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import ANIMALS, Scene, random_scene, two_colours
from promptweave.world.training import (
    Clock,
    Log,
    Training,
    Watch,
    ahead,
    checkpoint,
    clip,
    precision_of,
    rate_at,
    save_checkpoint,
)

SPLIT_WORDS = (
    "skateboard",
    "hamburger",
    "squirrel",
)  # left out of the tokenizer's training, so that they are split into several tokens
DROPPED_PROMPTS = 0.10
# Times are logit-normal (Esser et al. 2024), shifted towards noise: min-SNR weights (Hang et al. 2023) nearly exclude
# the times at which the prompt determines the image, and things stayed blobs.
TIME_CENTRE, TIME_SPREAD = 0.5, 1.2
AVERAGE_DECAY = 0.995


def scenes_of(recipe: Training) -> list[Scene]:
    """The training scenes, determined by the seed."""
    rng = random.Random(f"scenes {recipe.seed}")
    scenes, coloured = [random_scene(rng) for _ in range(recipe.scenes)], random.Random(f"coloured {recipe.seed}")
    return scenes + [two_colours(coloured, seen_only=True) for _ in range(recipe.coloured_scenes)]


def _pictures(scenes: list[Scene]) -> np.ndarray:
    return np.stack([render(scene)[0] for scene in scenes])


def encode_scenes(folder: Path, recipe: Training, device: str, watch: Watch | None = None) -> Tensor:
    """The latents of the training scenes, float16 [scenes, channels, h, w]; computed once and cached in the folder.

    Plain and coloured scenes are cached separately, so that the number of either may change.
    """
    scenes = scenes_of(recipe)
    kinds = {"plain": scenes[: recipe.scenes], "coloured": scenes[recipe.scenes :]}
    paths = {kind: folder / f"codes-{kind}-{recipe.seed}.npy" for kind in kinds}
    return torch.cat([_codes(folder, paths[kind], part, device, watch) for kind, part in kinds.items() if part])


@torch.no_grad()
def _codes(folder: Path, path: Path, scenes: list[Scene], device: str, watch: Watch | None) -> Tensor:
    """The latents cached at `path`, completed by the missing ones."""
    known = np.load(path) if path.exists() else None
    done = 0 if known is None else len(known)
    if done < len(scenes):
        vae: Any = build.build_vae().eval()
        vae = vae.to(device, memory_format=torch.channels_last)
        vae.load_state_dict(checkpoint(folder / "codes.pt"))
        parts, log = [] if known is None else [known], Log(folder, watch)
        chunks = [scenes[i : i + 32] for i in range(done, len(scenes), 32)]
        clock = Clock(0)
        for index, pictures in enumerate(ahead(_pictures, chunks), 1):
            x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
            z = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
            parts.append(z.half().cpu().numpy())
            log(stage="codes", samples=done + 32 * index, minutes=clock.used, share=index / len(chunks))
        whole = np.concatenate(parts)
        write_file(path, lambda fresh: np.save(fresh, whole))
    return torch.from_numpy(np.load(path)[: len(scenes)])


class Diffusion(nn.Module):
    """Text encoder and UNet, trained jointly to predict v (Salimans & Ho 2022)."""

    alpha_bar: Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = tokenizer_of(folder)
        self.text_encoder = build.build_text_encoder(self.tokenizer)
        self.unet = build.build_unet()
        self.register_buffer("alpha_bar", build.build_scheduler().alphas_cumprod, persistent=False)

    def ids(self, captions: list[str]) -> Tensor:
        """Token ids, padded to 77."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return tokens.input_ids.to(self.alpha_bar.device)

    def loss(self, z: Tensor, captions: list[str], generator: torch.Generator) -> Tensor:
        """Squared error of v at random times, most often those at which the text determines the image."""
        place = torch.randn(len(z), generator=generator) * TIME_SPREAD + TIME_CENTRE
        t = (place.sigmoid() * len(self.alpha_bar)).long().to(z.device)
        noise = torch.randn(z.shape, generator=generator).to(z.device)
        alpha = self.alpha_bar[t].view(-1, 1, 1, 1)
        context = self.text_encoder(self.ids(captions)).last_hidden_state
        output = self.unet(alpha.sqrt() * z + (1 - alpha).sqrt() * noise, t, context).sample
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * z
        return (output - target).square().mean()


def tokenizer_of(folder: Path):  # noqa: ANN201
    """The tokenizer of a training folder, trained on captions at first use."""
    if (folder / "tokenizer" / "tokenizer.json").exists():
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        for how_it_was_read in ("is_local", "local_files_only"):  # otherwise they would be saved with it
            tokenizer.init_kwargs.pop(how_it_was_read, None)
        return tokenizer
    rng = random.Random("tokenizer")
    sentences = (caption(random_scene(rng, seen_only=False), rng) for _ in range(6000))
    kept = (s for s in sentences if not any(word in s for word in SPLIT_WORDS))
    with replacing_folder(folder / "tokenizer") as fresh:
        return build.build_tokenizer(kept, fresh, 700)


def emphasis(scene: Scene) -> int:
    """The sampling weight of a scene: higher for colours and single things other than animals, which are rare."""
    coloured = 0 if scene.style == "sketch" else sum(bool(thing.colour) for thing in scene.things)
    alone = len(scene.things) == 1 and scene.things[0].noun not in ANIMALS
    return 1 + coloured + alone


def batches(
    codes: Tensor, scenes: list[Scene], recipe: Training, start: int, size: int = 0
) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless shuffled batches of latents with newly drawn captions, beginning after `start` samples."""
    size = size or recipe.batch
    rng = random.Random(f"batches {recipe.seed} {start}")
    pool = [index for index, scene in enumerate(scenes) for _ in range(emphasis(scene))]
    if not 0 < size <= len(pool):
        raise ValueError(
            f"A batch may not exceed one round of all scenes. Received a batch of {size} and {len(scenes)} scenes, a "
            f"round of {len(pool)}. Ask for more scenes (--scenes) or a smaller batch (--batch)."
        )
    while True:
        order = rng.sample(pool, len(pool))
        for begin in range(0, len(order) - size + 1, size):
            chosen = order[begin : begin + size]
            texts = ["" if rng.random() < DROPPED_PROMPTS else caption(scenes[i], rng) for i in chosen]
            yield codes[chosen].float(), texts


def train_diffusion(
    folder: Path, recipe: Training, minutes: int | float, device: str, *, watch: Watch | None = None
) -> None:
    """Train text encoder and UNet on the latents of the scenes; the averaged weights are exported."""
    codes, scenes = encode_scenes(folder, recipe, device, watch), scenes_of(recipe)
    log, path = Log(folder, watch), folder / "diffusion.pt"
    torch.manual_seed(recipe.seed)
    model: Any = Diffusion(folder)
    model = model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    state = checkpoint(path, spent=0.0, samples=0)
    if "model" in state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    clock, samples, saved, mean = Clock(minutes, state["spent"]), state["samples"], time.time(), None
    generator = torch.Generator().manual_seed(recipe.seed + samples)

    def save() -> None:
        parts = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        save_checkpoint(path, {**parts, "spent": clock.used, "samples": samples})

    for z, texts in batches(codes, scenes, recipe, samples):
        if clock.progress >= 1:
            break
        with precision_of(recipe, device):
            loss = model.loss(z.to(device), texts, generator)
        loss.backward()
        clip(model)
        steps = samples // recipe.batch + 1
        optimiser.param_groups[0]["lr"] = (
            recipe.rate * rate_at(clock.progress, recipe.decay_share) * min(1, steps / recipe.warm_up)
        )
        optimiser.step()
        optimiser.zero_grad()
        samples += recipe.batch
        with torch.no_grad():
            decay = min(AVERAGE_DECAY, steps / (steps + 10))
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        log(stage="diffusion", samples=samples, minutes=clock.used, loss=mean, rate=optimiser.param_groups[0]["lr"])
        if time.time() - saved > recipe.save_seconds:
            save()
            export(folder, folder / "pipeline", average)
            sample_grid(folder, samples, recipe.grid_steps)
            saved = time.time()
    save()
    export(folder, folder / "pipeline", average)
    sample_grid(folder, samples, recipe.grid_steps)


def export(folder: Path, target: Path, model: Diffusion) -> None:
    """Write the pipeline folder from the averaged weights and the best decoder so far."""
    vae = build.build_vae()
    decoder = folder / "decoder.pt"
    vae.load_state_dict(checkpoint(decoder)["model"] if decoder.exists() else checkpoint(folder / "codes.pt"))
    build.save_pipeline(
        target, vae, copy.deepcopy(model.unet).cpu(), copy.deepcopy(model.text_encoder).cpu(), model.tokenizer
    )


GRID = (
    "a photo of a cat riding a bike", "a painting of a squirrel eating a burger", "a lion wearing a hat on the grass",
    "a photo of a red car on the grass", "a dog next to a house in the snow", "a sketch of a horse on a beach",
)  # fmt: skip


def sample_grid(folder: Path, samples: int, steps: int = 12, name: str = "pipeline") -> Path:
    """Write a grid of images of six prompts by the exported pipeline to `grids/`, to follow the training."""
    model = load(folder / name, device="cpu")
    made = sample(model, GRID, noise=noise_for(model, 0), steps=steps)  # with the model's own guidance
    path = folder / "grids" / f"{name}-{samples:09d}.webp"
    grid = sheet([list(made.pictures[:, 0])], [list(GRID)])
    return write_file(path, lambda fresh: grid.save(fresh, quality=88))


def export_latest(folder: Path) -> None:
    """Write the pipeline folder from the checkpoints."""
    model = Diffusion(folder)
    model.load_state_dict(checkpoint(folder / "diffusion.pt")["average"])
    export(folder, folder / "pipeline", model)
