"""Train a perceiver: the text adapter and the head on a frozen network, or with the network fine-tuned, too.

Two parts, of which each may be empty. In the first, every batch passes through the network, and adapter, head and, if
asked for, the network learn. In the second, the network and the adapter are frozen; the features of all examples are
computed once, kept in half precision, and the head alone goes on learning from them, many times faster.

AdamW; norms, biases and gamma without decay; a linear warm-up, then polynomial decay. Every draw depends on the seed
and the step alone, so that a resumed training goes the way of one that never stopped.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.core.fields import Option
from promptweave.core.files import CannotWrite, check_folder, write_file
from promptweave.perception.extractor import Seen
from promptweave.perception.perceiver import Perceiver, read_weights
from promptweave.perception.samples import IGNORED, Examples, Sample

FILE, CHECKPOINT, LOG, PLOT = "perceiver.safetensors", "checkpoint.safetensors", "log.jsonl", "loss.png"
MOST_CACHED = 8e9  # bytes of kept features
WARM_FROM = 1e-3  # factor on the rate at the first step
Watch = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Lessons:
    """How a perceiver is trained."""

    steps: Annotated[int, Option("Steps of the head alone, on features that are computed once.", low=0)] = 1500
    through: Annotated[
        int, Option("Steps before that in which the text adapter learns, too, through the network.", low=0)
    ] = 150
    batch: Annotated[int, Option("Batch size of the head's steps.", low=1)] = 32
    batch_through: Annotated[int, Option("Batch size of the steps through the network.", low=1)] = 16
    rate: Annotated[float, Option("Maximum learning rate.", low=0)] = 2e-3
    decay: Annotated[float, Option("Weight decay of AdamW.", low=0)] = 1e-2
    power: Annotated[float, Option("Power of the learning rate's decay.", low=0)] = 0.9
    warm_up: Annotated[int, Option("Steps of linear warm-up.", low=0)] = 100
    fine_tune: Annotated[
        float, Option("Fine-tune the network, with so many times the learning rate; 0: keep it frozen.", low=0)
    ] = 0.0
    every: Annotated[
        int,
        Option("In the head's steps, the loss counts one of so many pixels in both directions, drawn anew.", low=1),
    ] = 2
    checkpointing: Annotated[bool, Option("Gradient checkpointing: less memory, a third more time.")] = False
    bf16: Annotated[bool, Option("Compute in bfloat16; weights stay in single precision.")] = False
    smallest: Annotated[float, Option("Smallest random scale before a random crop.", low=0.01)] = 1.0
    largest: Annotated[float, Option("Largest random scale before a random crop.", low=0.01)] = 1.0
    seed: Annotated[int, Option("Seed of weights, order and augmentation.", low=0)] = 0

    @property
    def total(self) -> int:
        """Steps of both parts."""
        return self.through + self.steps

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        rise = 1.0 if step >= self.warm_up else WARM_FROM + (1 - WARM_FROM) * step / self.warm_up
        return rise * (1 - step / self.total) ** self.power

    def check(self) -> None:
        """Raise ValueError for lessons that contradict each other."""
        if not self.total:
            raise ValueError("Training needs at least one step. Received steps=0 and through=0.")
        if self.fine_tune and not self.through:
            raise ValueError(
                "The network is fine-tuned in the steps through it. Received fine_tune without through. "
                "Give --through, too."
            )
        if self.checkpointing and not self.through:
            raise ValueError("Gradient checkpointing acts in the steps through the network. Give --through, too.")
        if self.smallest > self.largest:
            raise ValueError(f"The smallest scale is at most the largest. Received {self.smallest}, {self.largest}.")
        if (self.smallest, self.largest) != (1.0, 1.0) and self.steps:
            raise ValueError(
                "Random scales need every step to pass through the network, and features that are computed once "
                "cannot have them. Set --steps 0 and give --through."
            )


def learn(
    perceiver: Perceiver,
    examples: Examples,
    lessons: Lessons,
    folder: Path | None = None,
    watch: Watch | None = None,
    save_seconds: int | float = 120,
) -> Perceiver:
    """Train a perceiver on examples and return it.

    `folder`: for checkpoints, from which training goes on, the log and, at the end, the perceiver's file and a plot of
    the loss. Raises ValueError for lessons that contradict each other, and CannotWrite.
    """
    lessons.check()
    if perceiver.plan.fine_tuned != bool(lessons.fine_tune):
        raise ValueError(
            f"The plan says fine_tuned={perceiver.plan.fine_tuned}, and the lessons fine_tune={lessons.fine_tune}."
        )
    if not len(examples):
        raise ValueError("Training needs at least one example. Received none.")
    with torch.random.fork_rng():
        school = _School(perceiver, examples, lessons, folder, watch)
        return school.run(save_seconds)


class _School:
    def __init__(
        self, perceiver: Perceiver, examples: Examples, lessons: Lessons, folder: Path | None, watch: Watch | None
    ) -> None:
        self.perceiver, self.examples, self.lessons, self.folder, self.watch = (
            perceiver, examples, lessons, folder, watch,
        )  # fmt: skip
        self.device = perceiver.extractor.model.device
        self.network = perceiver.network
        self.optimiser = torch.optim.AdamW(_groups(perceiver, lessons), lr=lessons.rate)
        self.bases = [group["lr"] for group in self.optimiser.param_groups]
        self.losses: list[float] = []
        self.done, self.spent, self.kept = 0, 0.0, None
        if folder is not None:
            check_folder(folder, "Choose another with --folder.")
            folder.mkdir(parents=True, exist_ok=True)
            self._resume(folder / CHECKPOINT)

    def run(self, save_seconds: int | float) -> Perceiver:
        lessons, begun, saved = self.lessons, time.time() - self.spent, time.time()
        tuned = bool(lessons.fine_tune)
        self.network.requires_grad_(tuned)
        if lessons.checkpointing:
            self.network.enable_gradient_checkpointing()
        try:
            while self.done < lessons.total:
                torch.manual_seed(lessons.seed * 1_000_003 + self.done)  # of dropout; inside `fork_rng`
                loss = self._step(self.done)
                self.done += 1
                self.losses.append(loss)
                self.spent = time.time() - begun
                last = self.done == lessons.total
                self._tell(loss, last)
                if self.folder is not None and (last or time.time() - saved > save_seconds):
                    self._save(self.folder)
                    saved = time.time()
        finally:
            self.network.requires_grad_(False)
            if lessons.checkpointing:
                self.network.disable_gradient_checkpointing()
        if self.folder is not None:
            self._finish(self.folder)
        return self.perceiver.eval()

    def _step(self, step: int) -> float:
        for group, base in zip(self.optimiser.param_groups, self.bases, strict=True):
            group["lr"] = base * self.lessons.factor(step)
        self.perceiver.train()
        through = step < self.lessons.through
        self.perceiver.adapter.requires_grad_(through)
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.lessons.bf16 else nullcontext()
        self.optimiser.zero_grad(set_to_none=True)
        with cast:
            loss = self._through(step) if through else self._on_kept(step)
        if not math.isfinite(loss):
            raise ValueError(
                f"Training has diverged: the loss is {loss} after {step} steps. The last checkpoint is kept. Lower the "
                "learning rate (--rate), or train without --bf16."
            )
        nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        return loss

    def _through(self, step: int) -> float:
        """A step through the network. The backward pass is made where layers can be computed again."""
        batch = [
            augmented(
                self.examples[i],
                self.perceiver.plan.size,
                (self.lessons.smallest, self.lessons.largest),
                random.Random(f"{step}:{i}"),
            )
            for i in indices(self.lessons, step, self.lessons.batch_through, len(self.examples))
        ]
        pictures, targets = stacked(batch, self.device)
        perceiver = self.perceiver
        context = perceiver.adapted(_context(perceiver, batch))
        latents = perceiver.extractor.latents(pictures)

        def backward(seen: Seen) -> float:
            loss = perceiver.plan.loss(perceiver.head(perceiver.joined(seen)), targets)
            loss.backward()
            return float(loss.detach())

        return perceiver.extractor.see(latents, context, backward)

    def _on_kept(self, step: int) -> float:
        if self.kept is None:
            self.kept = kept_features(self.perceiver, self.examples, self._watch_features)
        levels, targets = self.kept
        chosen = indices(self.lessons, step - self.lessons.through, self.lessons.batch, len(self.examples))
        inputs = [x[chosen].to(self.device).float() for x in levels]
        answers = thinned(targets[chosen], self.lessons.every, step).to(self.device)
        loss = self.perceiver.plan.loss(self.perceiver.head(inputs), answers)
        loss.backward()
        return float(loss.detach())

    def _watch_features(self, share: float) -> None:
        if self.watch:
            self.watch({"stage": "features", "share": share, "minutes": self.spent / 60})

    def _tell(self, loss: float, last: bool) -> None:
        line = {
            "stage": self.perceiver.plan.task, "step": self.done, "loss": loss, "minutes": self.spent / 60,
            "share": self.done / self.lessons.total,
        }  # fmt: skip
        if self.watch:
            self.watch(line)
        if self.folder is not None and (last or self.done % 50 == 0):
            import json

            try:
                with (self.folder / LOG).open("a", encoding="utf-8") as file:
                    file.write(
                        json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}) + "\n"
                    )
            except OSError as error:
                raise CannotWrite(
                    f"{self.folder / LOG} cannot be written to ({error.strerror}). The last checkpoint is kept; make "
                    "room and train again to resume from it."
                ) from error

    def _save(self, folder: Path) -> None:
        """Write the checkpoint: weights, the optimiser's averages and the losses so far."""
        from safetensors.torch import save_file

        tensors = {f"weights.{k}": v.detach().cpu().contiguous() for k, v in self.perceiver.weights().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": v.detach().cpu().contiguous() for k, v in state.items()}
        tensors["losses"] = torch.tensor(self.losses)
        marks = {"plan": self.perceiver.plan.written(), "lessons": str(asdict(self.lessons)), "spent": str(self.spent)}
        write_file(folder / CHECKPOINT, lambda fresh: save_file(tensors, fresh, marks))

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        marks, tensors = read_weights(path)
        if marks["plan"] != self.perceiver.plan.written() or marks["lessons"] != str(asdict(self.lessons)):
            raise ValueError(
                f"{path} belongs to a training with other settings. Choose another folder with --folder, or remove it."
            )
        self.perceiver.put({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
        state = self.optimiser.state_dict()
        state["state"] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                state["state"].setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict(state)
        self.losses = tensors["losses"].tolist()
        self.done, self.spent = len(self.losses), float(marks["spent"])

    def _finish(self, folder: Path) -> None:
        from promptweave.view.curves import curves

        self.perceiver.save(folder / FILE)
        width = max(1, len(self.losses) // 200)
        means = [float(np.mean(self.losses[i : i + width])) for i in range(0, len(self.losses), width)]
        across = "step" if width == 1 else f"step / {width}"
        picture = curves({"loss": means}, title=f"{self.perceiver.plan.task}: loss", across=across)
        write_file(folder / PLOT, picture.save)


def _groups(perceiver: Perceiver, lessons: Lessons) -> list[dict[str, Any]]:
    """Parameters by decay and rate: norms, biases and gamma have no decay, the network has a rate of its own."""
    groups: list[dict[str, Any]] = []
    parts: list[tuple[nn.Module, float]] = [(perceiver, 1.0)]
    if lessons.fine_tune:
        parts.append((perceiver.network, lessons.fine_tune))
    for part, factor in parts:
        for flat in (False, True):
            weights = [p for p in part.parameters() if (p.ndim <= 1) is flat]
            groups.append(
                {"params": weights, "lr": lessons.rate * factor, "weight_decay": 0.0 if flat else lessons.decay}
            )
    return groups


def indices(lessons: Lessons, step: int, batch: int, count: int) -> list[int]:
    """Which of `count` examples are in the batch of a step: each epoch has an order of its own."""
    places = range(step * batch, (step + 1) * batch)
    orders = {e: np.random.default_rng([lessons.seed, e]).permutation(count) for e in {p // count for p in places}}
    return [int(orders[place // count][place % count]) for place in places]


def thinned(targets: Tensor, every: int, step: int) -> Tensor:
    """One of `every` pixels of answers in both directions, at an offset drawn for the step."""
    rng = random.Random(step)
    return targets[:, rng.randrange(every) :: every, rng.randrange(every) :: every]


def _context(perceiver: Perceiver, batch: list[Sample]) -> Tensor:
    phrases = [sample.phrase or "" for sample in batch] if perceiver.plan.task == "refer" else None
    return perceiver.context(len(batch), phrases, [sample.kind for sample in batch] if perceiver.plan.kinds else None)


def stacked(batch: list[Sample], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images [n, height, width, 3] in [0, 1], and answers [n, height, width]."""
    pictures = torch.from_numpy(np.stack([sample.picture for sample in batch])).to(device).float() / 255
    return pictures, torch.from_numpy(np.stack([sample.target for sample in batch])).to(device)


@torch.no_grad()
def kept_features(
    perceiver: Perceiver, examples: Examples, told: Callable[[float], None] | None = None, batch: int = 32
) -> tuple[list[Tensor], Tensor]:
    """What the head reads of all examples, in half precision, and their answers; images are brought to the plan's
    size. Raises ValueError if that is more than MOST_CACHED bytes."""
    levels: list[Tensor] = []
    targets: list[Tensor] = []
    count, learning = len(examples), perceiver.training
    perceiver.eval()
    for begin in range(0, count, batch):
        some = [fitted(examples[i], perceiver.plan.size) for i in range(begin, min(count, begin + batch))]
        pictures, answers = stacked(some, perceiver.extractor.model.device)
        extractor = perceiver.extractor
        found = perceiver.joined(
            extractor.see(extractor.latents(pictures), perceiver.adapted(_context(perceiver, some)))
        )
        if not levels:
            size = sum(x[0].numel() for x in found) * 2 * count
            if size > MOST_CACHED:
                raise ValueError(
                    f"The features of {count} examples would take {size / 1e9:.1f} GB, and at most "
                    f"{MOST_CACHED / 1e9:.0f} are kept. Train through the network: --steps 0 --through N."
                )
            levels = [torch.empty(count, *x.shape[1:], dtype=torch.float16) for x in found]
        for whole, x in zip(levels, found, strict=True):
            whole[begin : begin + len(x)] = x.clamp(-65504, 65504).half().cpu()
        targets.append(answers.cpu())
        if told:
            told(min(1.0, (begin + batch) / count))
    perceiver.train(learning)
    return levels, torch.cat(targets)


def fitted(sample: Sample, size: tuple[int, int]) -> Sample:
    """A sample of this size: stretched, the answer by nearest neighbour."""
    if sample.picture.shape[:2] == size:
        return sample
    return _resized(sample, size)


def augmented(sample: Sample, size: tuple[int, int], scales: tuple[float, float], rng: random.Random) -> Sample:
    """A random scale, crop and mirror image of a sample, of this size; with a phrase, which may say left, stretched."""
    if sample.phrase is not None:
        return fitted(sample, size)
    height, width = sample.picture.shape[:2]
    factor = max(size[0] / height, size[1] / width) * rng.uniform(*scales)
    if (height, width) != size or factor != 1:
        sample = _resized(sample, (max(1, round(height * factor)), max(1, round(width * factor))))
        sample = _cropped(sample, size, rng)
    if rng.random() < 0.5:
        return Sample(sample.picture[:, ::-1].copy(), sample.target[:, ::-1].copy(), None, sample.kind)
    return sample


def _resized(sample: Sample, size: tuple[int, int]) -> Sample:
    picture = torch.from_numpy(sample.picture).permute(2, 0, 1)[None].float()
    picture = F.interpolate(picture, size, mode="bilinear", antialias=True).round().clamp(0, 255)
    target = torch.from_numpy(sample.target)[None, None].float()
    target = F.interpolate(target, size, mode="nearest-exact")[0, 0].numpy().astype(sample.target.dtype)
    return Sample(picture[0].permute(1, 2, 0).byte().numpy(), target, sample.phrase, sample.kind)


def _cropped(sample: Sample, size: tuple[int, int], rng: random.Random) -> Sample:
    """A random crop; where the sample is smaller, it is padded with black, of which nothing is known."""
    (height, width), (tall, broad) = sample.picture.shape[:2], size
    down, right = max(0, tall - height), max(0, broad - width)
    unknown = 0 if sample.target.dtype.kind == "f" else IGNORED
    picture = np.pad(sample.picture, ((0, down), (0, right), (0, 0)))
    target = np.pad(sample.target, ((0, down), (0, right)), constant_values=unknown)
    top, left = rng.randint(0, picture.shape[0] - tall), rng.randint(0, picture.shape[1] - broad)
    where = (slice(top, top + tall), slice(left, left + broad))
    return Sample(picture[where].copy(), target[where].copy(), sample.phrase, sample.kind)
