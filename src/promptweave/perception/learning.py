"""Train a perceiver: the text adapter and the head on a frozen network, or with the network fine-tuned, too.

Two parts, of which each may be empty. In the first, every batch passes through the network, and adapter, head and, if
asked for, the network learn. In the second, the network and the adapter are frozen; the features of all examples are
computed once, kept in half precision, and the head alone goes on learning from them, many times faster.

AdamW; norms, biases and gamma without decay; a linear warm-up, then polynomial decay. Every draw depends on the seed
and the step alone, so that a resumed training goes the way of one that never stopped.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from promptweave.core.files import CannotWrite, check_folder, write_file
from promptweave.perception.batches import augmented, context_of, kept_features, stacked
from promptweave.perception.extractor import Seen
from promptweave.perception.lessons import Lessons, indices, thinned
from promptweave.perception.perceiver import Perceiver, read_weights
from promptweave.perception.samples import Examples

FILE, CHECKPOINT, LOG, PLOT = "perceiver.safetensors", "checkpoint.safetensors", "log.jsonl", "loss.png"
Watch = Callable[[Mapping[str, Any]], None]


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
        context = perceiver.adapted(context_of(perceiver, batch))
        latents = perceiver.extractor.latents(pictures)

        def backward(seen: Seen) -> float:
            loss = perceiver.plan.loss(perceiver.head(perceiver.joined(seen)), targets)
            loss.backward()
            return float(loss.detach())

        loss: Any = perceiver.extractor.see(latents, context, backward)
        return loss

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
