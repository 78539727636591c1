"""The fast stage: a LoRA with which one step of the UNet replaces several with guidance.

On Distillation of Guided Diffusion Models (Meng et al. 2023, arXiv 2210.03142), as a low-rank adapter like LCM-LoRA
(Luo et al. 2023, arXiv 2311.05556). Differs from the paper: the student has its final number of steps from the start,
instead of repeated halving; half of the trajectories are the student's own, so that it learns from the states that it
reaches; and no images are needed, since trajectories begin at noise. The student's sampler is deterministic DDIM.

With phi the angle of z = cos(phi) x + sin(phi) e, the network's v is dz / dphi, and a DDIM step by the angle d is
z' = cos(d) z - sin(d) v. So the v that reaches the teacher's result z' in one step is (cos(d) z - z') / sin(d), which
is the student's target.
"""

from __future__ import annotations

import copy
import random
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.func import functional_call

from promptweave.core.files import replacing_folder, write_file
from promptweave.models import low_rank
from promptweave.models.embedded import embedded_folder
from promptweave.models.load import load
from promptweave.models.unet import UNetModel
from promptweave.sampling.loop import noise_for, sample
from promptweave.sampling.steps import guide
from promptweave.view.sheet import sheet
from promptweave.world import build
from promptweave.world.caption import caption
from promptweave.world.scene import random_scene
from promptweave.world.train_diffusion import GRID, emphasis
from promptweave.world.training import Clock, Log, Training, Watch, checkpoint, clip, rate_at, save_checkpoint

RANK = 16
# The teacher's guidance by step: its own, and none in the last step, where guidance does not improve images
# (Kynkaanniemi et al. 2024, arXiv 2404.07724).
GUIDANCE = (2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0)
STEPS = len(GUIDANCE)
SUBSTEPS = 2  # the teacher's steps for each of the student's
OWN_SHARE = 0.5  # the fraction of trajectories that the student follows
KEPT = 1024  # training examples kept, each used about twice
MOST_EMPHASIS = 3  # see `emphasis`


def turn(z: Tensor, v: Tensor, angle: Tensor) -> Tensor:
    """A DDIM step by the angles [batch] towards the image."""
    angle = angle.view(-1, 1, 1, 1)
    return angle.cos() * z - angle.sin() * v


def turning(z: Tensor, end: Tensor, angle: Tensor) -> Tensor:
    """The v with which one DDIM step by the angles [batch] ends at `end`."""
    angle = angle.view(-1, 1, 1, 1)
    return (angle.cos() * z - end) / angle.sin()


def fast_scheduler() -> DDIMScheduler:
    """A DDIM scheduler that begins at pure noise and ends at the image."""
    made: Any = DDIMScheduler.from_config(
        build.build_scheduler().config, timestep_spacing="trailing", set_alpha_to_one=True
    )
    return made


class Student(nn.Module):
    """A UNet with a LoRA on every layer, initialised to no change."""

    def __init__(self, unet: nn.Module, rank: int = RANK) -> None:
        super().__init__()
        layers = {name: m for name, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self.names = tuple(layers)
        downs, ups = [], []
        for layer in layers.values():
            shape = layer.weight.shape
            downs.append(nn.Parameter(torch.randn(rank, *shape[1:]) / shape[1:].numel() ** 0.5))
            ups.append(nn.Parameter(torch.zeros(shape[0], rank, *(1 for _ in shape[2:]))))
        self.downs, self.ups = nn.ParameterList(downs), nn.ParameterList(ups)
        self._unet = [unet]  # in a list, so that its weights are not registered as the student's

    def pairs(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The LoRA weights by layer name."""
        return dict(zip(self.names, zip(self.downs, self.ups, strict=True), strict=True))

    def forward(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """v [batch, channels, h, w] without guidance."""
        unet = self._unet[0]
        weights = {
            f"{name}.weight": unet.get_parameter(f"{name}.weight") + low_rank.addition(*pair)
            for name, pair in self.pairs().items()
        }
        return functional_call(unet, weights, (z, t, context)).sample


class Walk(NamedTuple):
    """A trajectory: its current state, and whether it follows the student or the teacher."""

    z: Tensor  # [1, channels, h, w]
    step: int
    context: Tensor  # [1, tokens, width]
    own: bool


class Lesson(NamedTuple):
    """A training example: the teacher's result of one student step, from `z` to `end`."""

    z: Tensor  # [1, channels, h, w]
    step: int
    context: Tensor  # [1, tokens, width]
    end: Tensor  # [1, channels, h, w]


class Lessons:
    """Trajectories from noise for random captions under the teacher's guidance, and the examples from their steps."""

    def __init__(
        self, model: UNetModel, student: Student, count: int, rng: random.Random, generator: torch.Generator
    ) -> None:
        self.model, self.student, self.rng, self.generator = model, student, rng, generator
        alpha_bar = model.schedule().alpha_bar
        size = len(alpha_bar)
        ends = [round(size - k * size / (STEPS * SUBSTEPS)) - 1 for k in range(STEPS * SUBSTEPS)]
        angles = torch.tensor([*(float(alpha_bar[t]) for t in ends), 1.0], dtype=torch.float64).sqrt().acos()
        self.times, self.angles, self.guidance = torch.tensor(ends), angles.float(), torch.tensor(GUIDANCE)
        self.empty = model.encode([""], [""]).keys
        self.kept: deque[Lesson] = deque(maxlen=KEPT)
        self.walks: list[Walk] = [self._begin() for _ in range(count)]

    def _begin(self) -> Walk:
        """A new trajectory, for a caption drawn as in training."""
        scene = random_scene(self.rng)
        while self.rng.random() * MOST_EMPHASIS > emphasis(scene):
            scene = random_scene(self.rng)
        side = self.model.unet.config.sample_size
        noise = torch.randn(1, self.model.channels, side, side, generator=self.generator)
        context = self.model.encode([caption(scene, self.rng)], [""]).keys
        return Walk(noise.to(self.model.device), 0, context, self.rng.random() < OWN_SHARE)

    def taught(self, z: Tensor, k: Tensor, context: Tensor) -> Tensor:
        """The teacher's result, with guidance, from z [batch, channels, h, w] after the student's steps k [batch]."""
        both = torch.cat([self.empty.expand(len(z), -1, -1), context])
        for i in range(SUBSTEPS):
            place = k * SUBSTEPS + i
            t = self.times[place].repeat(2).to(z.device)
            unguided, guided = self.model.unet(torch.cat([z, z]), t, both).sample.chunk(2)
            v = guide(unguided, guided, self.guidance[k].view(-1, 1, 1, 1).to(z.device))
            z = turn(z, v, (self.angles[place] - self.angles[place + 1]).to(z.device))
        return z

    def times_and_angles(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """The training timesteps of the steps k [batch], and their angles."""
        place = k * SUBSTEPS
        return self.times[place], self.angles[place] - self.angles[place + SUBSTEPS]

    @torch.no_grad()
    def walk(self) -> None:
        """One step of every trajectory, each an example; finished trajectories start again."""
        z, context = torch.cat([walk.z for walk in self.walks]), torch.cat([walk.context for walk in self.walks])
        k = torch.tensor([walk.step for walk in self.walks])
        end = self.taught(z, k, context)
        self.kept.extend(map(Lesson, z.split(1), k.tolist(), context.split(1), end.split(1)))
        own = torch.tensor([walk.own for walk in self.walks])
        if own.any():
            t, angle = self.times_and_angles(k[own])
            end = end.clone()  # examples keep the teacher's result
            end[own] = turn(z[own], self.student(z[own], t.to(z.device), context[own]), angle.to(z.device))
        moved = map(Walk, end.split(1), (k + 1).tolist(), context.split(1), own.tolist())
        self.walks = [walk if walk.step < STEPS else self._begin() for walk in moved]

    def loss(self, count: int) -> Tensor:
        """Squared error of v on `count` of the stored examples."""
        chosen = self.rng.sample(self.kept, min(count, len(self.kept)))
        z, context = torch.cat([lesson.z for lesson in chosen]), torch.cat([lesson.context for lesson in chosen])
        end, k = torch.cat([lesson.end for lesson in chosen]), torch.tensor([lesson.step for lesson in chosen])
        t, angle = (part.to(z.device) for part in self.times_and_angles(k))
        return (self.student(z, t, context) - turning(z, end, angle)).square().mean()


def teacher_of(folder: Path, device: str) -> UNetModel:
    """The pipeline of the training folder, or the one in the package."""
    trained = folder / "pipeline"
    made = load(trained if trained.is_dir() else embedded_folder(), device=device, dtype=torch.float32)
    assert isinstance(made, UNetModel)
    return made


def train_fast(
    folder: Path, recipe: Training, minutes: int | float, device: str, *, watch: Watch | None = None
) -> None:
    """Distil the trained pipeline; the LoRA and its scheduler are written to `fast`."""
    log, path = Log(folder, watch), folder / "fast.pt"
    torch.manual_seed(recipe.seed)
    model = teacher_of(folder, device)
    model.unet.to(memory_format=torch.channels_last)
    placed: Any = Student(model.unet).to(device)
    student: Student = placed
    optimiser = torch.optim.AdamW(student.parameters(), lr=recipe.fast_rate, betas=(0.9, 0.98), weight_decay=0.0)
    state = checkpoint(path, spent=0.0, samples=0)
    if "student" in state:
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
    samples, mean = state["samples"], None
    rng = random.Random(f"fast {recipe.seed} {samples}")
    generator = torch.Generator().manual_seed(recipe.seed + samples)
    lessons = Lessons(model, student, max(1, recipe.fast_batch // 2), rng, generator)
    for _ in range(STEPS):  # so that there are examples of all steps
        lessons.walk()
    clock, saved = Clock(minutes, state["spent"]), time.time()

    def save() -> None:
        parts = {"student": student.state_dict(), "optimiser": optimiser.state_dict()}
        save_checkpoint(path, {**parts, "spent": clock.used, "samples": samples})
        export_fast(folder / "fast", student)
        fast_grid(folder, model, samples)

    while clock.progress < 1:
        lessons.walk()
        loss = lessons.loss(recipe.fast_batch)
        loss.backward()
        clip(student)
        rate = recipe.fast_rate * rate_at(clock.progress, recipe.fast_decay_share)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        optimiser.zero_grad()
        samples += recipe.fast_batch
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        log(stage="fast", samples=samples, minutes=clock.used, loss=mean, rate=rate)
        if time.time() - saved > 300:
            save()
            saved = time.time()
    save()


def export_fast(target: Path, student: Student) -> None:
    """Write the LoRA and its scheduler."""
    with replacing_folder(target) as fresh:
        low_rank.save(fresh, student.pairs())
        fast_scheduler().save_config(fresh)


def fast_grid(folder: Path, teacher: UNetModel, samples: int) -> Path:
    """Write a grid of images of six prompts by the exported model to `grids/`, to follow the training."""
    pipeline = copy.copy(teacher.pipeline)
    pipeline.unet = copy.deepcopy(teacher.unet)
    low_rank.merge(pipeline.unet, folder / "fast")
    model = UNetModel(pipeline, "toybox-fast")
    model.sampler = fast_scheduler()
    made = sample(model, GRID, noise=noise_for(model, 0), steps=STEPS, guidance=1)
    path = folder / "grids" / f"fast-{samples:09d}.webp"
    grid = sheet([list(made.pictures[:, 0])], [list(GRID)])
    return write_file(path, lambda fresh: grid.save(fresh, quality=88))
