"""Attend-and-Excite: Attention-Based Semantic Guidance (Chefer et al. 2023, arXiv 2301.13826).

A subject that no patch of the image attends to is missing from the image. So before each of the first steps the latents
are moved such that the most neglected subject gets a patch that attends to it. With A the cross-attention on the map
grid, averaged over heads and layers, and s the tokens of a subject (section 3):

    A' = softmax over tokens of 100 A without the start token,      m_s = max over patches of (G * A'_s),
    L = max over s of (1 - m_s),                                     z <- z - alpha_t grad L,

with G a Gaussian of 3 x 3 patches, and alpha_t = scale sqrt(r_t), where r_t falls from 1 to 1/2 over the steps. At the
steps of `thresholds` the move is repeated until every m_s exceeds the threshold, 20 times at most.

Differs from the authors' code: the Gaussian has the requested standard deviation sigma (theirs has sqrt(2) sigma), and
moves are repeated no more often than needed; `reference_compat` restores both. A word of several tokens counts as one
subject, by the sum of its tokens; each image of a batch has its own loss and stops on its own; two unused passes of
each repetition are not made; a pass for the loss ends at the last layer that the loss reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Number, Step, Window, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Probe, Run
from promptweave.core.fields import Command, Option
from promptweave.core.gaussian import gaussian
from promptweave.core.precision import precision
from promptweave.words import Words


def patches(sigma: Number, *, reference_compat: bool = False) -> Float[Tensor, "3 3"]:
    """The weights of 3 x 3 patches, whose sum is 1; `sigma` is the standard deviation in patches."""
    deviation = sigma * 2**0.5 if reference_compat else sigma
    line = gaussian(deviation, 1)
    return torch.outer(line, line)


def peaks(
    maps: Float[Tensor, "images height width tokens"],
    subjects: Sequence[Sequence[int]],
    last: int,
    kernel: Float[Tensor, "3 3"],
    sharpness: Number = 100,
) -> Float[Tensor, "images subjects"]:
    """m_s of each subject, given by its token positions (the start token is 0); tokens from `last` on are left out."""
    sharp = (sharpness * maps[..., 1:last]).softmax(-1)
    looked = torch.stack(
        [sharp[..., [token - 1 for token in tokens if token < last]].sum(-1) for tokens in subjects], 1
    )
    padded = F.pad(looked, (1, 1, 1, 1), mode="reflect")
    smooth: Tensor = F.conv2d(padded.flatten(0, 1)[:, None], kernel.to(padded)[None, None])
    return smooth.amax((-3, -2, -1)).view(looked.shape[:2])


@dataclass(frozen=True)
class AttendAndExcite(Control):
    """Give every subject a place in the image (Attend-and-Excite).

    `words`: the subjects, which every prompt in `prompts` (None: all) must contain. `share`: fraction or window of the
    steps in which the latents are moved. `scale`: size of a move. `thresholds`: (fraction of the steps, least m_s) of
    the steps whose moves are repeated, at most `iterations` times, inside the window or not. `sharpness`: factor in
    the softmax over tokens; the smaller, the more attention a subject needs. `padding`: let the end token and the
    padding compete with the words. Raises ValueError for parameters out of range, NoEffect if nothing would move.
    """

    command: ClassVar[Command] = Command(
        "attend",
        "Give every subject a place in the image (Attend-and-Excite).",
        example='"a photo of a cat and a car" --word cat --word car',
    )
    words: Annotated[
        tuple[str, ...] | str,
        Option(
            "A subject. [the nouns of the prompt]",
            group="What changes",
            flag="--word",
            short="w",
            metavar="WORD",
        ),
    ]
    share: Annotated[
        Number | tuple[Number, Number],
        Option("Fraction or range of the steps in which the latents are moved.", low=0, high=1),
    ] = 0.5
    scale: Annotated[Number, Option("Size of a move of the latents.", low=0)] = 20
    thresholds: Annotated[
        tuple[tuple[Number, Number], ...],
        Option(
            "Repeat the moves at this fraction of the steps until every subject has this attention.",
            low=0,
            high=1,
            group="Advanced",
            flag="--threshold",
            metavar="FRACTION=LEAST",
        ),
    ] = ((0, 0.05), (0.2, 0.5), (0.4, 0.8))
    iterations: Annotated[
        int, Option("Largest number of moves in a step with a threshold.", low=1, group="Advanced")
    ] = 20
    sharpness: Annotated[
        Number,
        Option(
            "Factor in the softmax over tokens; the smaller, the more attention a subject needs.",
            low=0,
            group="Advanced",
        ),
    ] = 100
    sigma: Annotated[
        Number, Option("Standard deviation of the Gaussian that smooths the maps, in patches.", low=0, group="Advanced")
    ] = 0.5
    padding: Annotated[bool, Option("Let the end token and the padding compete with the words.", group="Advanced")] = (
        True
    )
    prompts: tuple[int, ...] | None = None
    reference_compat: Annotated[
        bool, Option("Smooth maps and repeat moves as the authors' code does.", group="Advanced")
    ] = False

    def bind(self, run: Run) -> Hooks:
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        window = Window.of(self.share, "share of AttendAndExcite")
        if not words or self.scale <= 0 or not window.steps(run.steps):
            raise NoEffect(
                "AttendAndExcite needs a subject, a scale above 0 and a share that covers one of the "
                f"{run.steps} steps. Received words={words}, scale={self.scale}, share={self.share}."
            )
        if self.sigma <= 0 or self.sharpness <= 0 or self.iterations < 1:
            raise ValueError(
                "AttendAndExcite takes sigma and sharpness above 0 and iterations of at least 1. "
                f"Received sigma={self.sigma}, sharpness={self.sharpness}, iterations={self.iterations}."
            )
        subjects = {row: tuple(run.words[row].find(word) for word in words) for row in run.chosen(self.prompts)}
        return _Exciting(self, run, words, subjects, window, self._least(run))

    def _least(self, run: Run) -> dict[int, float]:
        """The least m_s of the steps whose moves are repeated, by step."""
        name = "thresholds of AttendAndExcite"
        least: dict[int, float] = {}
        given: Any = self.thresholds
        for pair in given:
            if not isinstance(pair, tuple | list) or len(pair) != 2:  # pyright: ignore[reportUnknownArgumentType]
                raise ValueError(f"{name} are pairs (fraction of the steps, least m_s). Received {pair!r}.")
            since = Window.since(fraction(pair[0], name, below=True), name).steps(run.steps)
            least[since.start] = fraction(pair[1], name, below=True)
        return least


@dataclass
class _Exciting(Hooks):
    control: AttendAndExcite
    run: Run
    words: tuple[str, ...]
    subjects: dict[int, tuple[tuple[int, ...], ...]]
    window: Window
    least: dict[int, float]
    seen: dict[int, list[Tensor]] = field(default_factory=dict[int, list[Tensor]])  # m_s of the first image, by step
    repeats: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        kernel = patches(self.control.sigma, reference_compat=self.control.reference_compat)
        self.kernel = kernel.to(self.run.device, precision(self.run.dtype))

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        size = self.control.scale * (1 - 0.5 * step.index / max(1, step.count - 1)) ** 0.5
        low = self.least.get(step.index)
        if low is not None:
            z = self._refine(z, probe, size, low, step.index)
        if step not in self.window:
            return z
        _, gradient, seen = self._look(z, probe)
        for row, values in seen.items():
            self.seen.setdefault(row, []).append(values[0])
        return z - size * gradient

    def _refine(self, z: Tensor, probe: Probe, size: float, low: float, index: int) -> Tensor:
        """Move each image until its most neglected subject has m_s of at least `low`, for which the host waits."""
        moving = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
        for count in range(self.control.iterations):
            losses, gradient, _ = self._look(z, probe)
            poor = losses > 1 - low
            # The authors' code makes one more move before it stops.
            now = moving if count and self.control.reference_compat else moving & poor
            if not bool(now.any()):
                break
            z = z - size * gradient * now[:, :, None, None, None]
            moving = moving & poor
            self.repeats[index] = count + 1
        return z

    def _look(self, z: Tensor, probe: Probe) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """L of each image [prompts, images], its gradient, and m_s [images, subjects] of the prompts with subjects."""
        seen: dict[int, Tensor] = {}

        def losses(maps: Maps) -> Float[Tensor, "prompts images"]:
            total = z.new_zeros(z.shape[:2])
            parts = list(total.unbind(0))
            for row, subjects in self.subjects.items():
                found = peaks(
                    maps.mean(row), subjects, self._last(self.run.words[row]), self.kernel, self.control.sharpness
                )
                seen[row] = found.detach()
                parts[row] = (1 - found).clamp_min(0).amax(-1)
            return torch.stack(parts)

        value, gradient = probe.gradient(z, self.run.map_sites, losses)
        return value, gradient, seen

    def _last(self, words: Words) -> int:
        return self.run.tokens - 1 if self.control.padding else words.places[-1]

    def report(self) -> dict[str, Any]:
        """`losses`: 1 - m_s of each subject and step, for the first image; `repeats`: moves at steps of thresholds."""
        losses = {
            str(row): {
                word: [round(1 - float(m), 4) for m in found]
                for word, found in zip(self.words, torch.stack(steps, 1).cpu(), strict=True)
            }
            for row, steps in self.seen.items()
        }
        return {"losses": losses, "repeats": {str(step): count for step, count in self.repeats.items()}}
