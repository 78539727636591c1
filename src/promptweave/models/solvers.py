"""The schedulers of diffusers as solvers, however many network calls they make per step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from promptweave.core.clock import Step

NAMES = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "dpm++-single": "DPMSolverSinglestepScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "lcm": "LCMScheduler",
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "ddpm": "DDPMScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
}
FLOW = "flow-euler"  # the scheduler of flow models
REWINDING = ("ddim", "euler", "euler-ancestral", "lcm", "ddpm", FLOW)  # they keep nothing from one step to the next
# Steps of distilled models, by a part of their name.
FEW_STEPS = {"turbo": 4, "lightning": 4, "hyper-sd": 4, "schnell": 4, "lcm": 4, "toybox-fast": 8}


class UnknownScheduler(ValueError):
    """Raised for a scheduler that is not supported."""


def scheduler_name(scheduler: Any) -> str:
    """Our name for a scheduler. Raises UnknownScheduler if it is not supported."""
    for name, wanted in NAMES.items():
        if type(scheduler).__name__ == wanted:
            return name
    raise UnknownScheduler(
        f"This scheduler is not supported: {type(scheduler).__name__}. "
        f"Load the model with another: load(model, scheduler=...), one of {', '.join(NAMES)}."
    )


def with_scheduler(old: Any, name: str) -> Any:
    """A scheduler of another kind with the noise schedule of `old`. Raises UnknownScheduler if it does not fit."""
    import diffusers

    if name not in NAMES:
        raise UnknownScheduler(f"There is no scheduler {name!r}. Choose one of {', '.join(NAMES)}.")
    if (name == FLOW) != (type(old).__name__ == NAMES[FLOW]):
        raise UnknownScheduler(
            f"Flow models need the scheduler {FLOW!r}, and diffusion models one of the others. Received {name!r} for a "
            f"model whose own scheduler is {type(old).__name__}."
        )
    kind: Any = getattr(diffusers, NAMES[name])
    if old.config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in _parameters(kind):
        known = [
            other
            for other, found in NAMES.items()
            if "rescale_betas_zero_snr" in _parameters(getattr(diffusers, found))
        ]
        raise UnknownScheduler(
            f"The model was trained down to a signal of zero (rescale_betas_zero_snr). Received scheduler {name!r}, "
            f"which cannot begin there. Choose one of {', '.join(known)}."
        )
    changes = {key: False for key in ("clip_sample", "thresholding") if key in old.config}
    if name == "pndm" and "skip_prk_steps" not in old.config:
        changes["skip_prk_steps"] = True  # as Stable Diffusion has it
    try:
        return kind.from_config(old.config, **changes)
    except ImportError as error:
        raise UnknownScheduler(f"Scheduler {name!r} needs scipy. Install it with: pip install scipy") from error


Settings = tuple[int, int | float]  # steps and guidance


def _parameters(kind: Any) -> Mapping[str, Any]:
    return inspect.signature(kind.__init__).parameters


def few_steps(places: Sequence[str], scheduler: Any) -> int | None:
    """The steps that suit a distilled model, which is known by the last part of where it comes from, or by its
    scheduler; None for any other model.

    >>> few_steps(["stabilityai/sd-turbo"], None), few_steps(["/home/turbo/sd15"], None)
    (4, None)
    """
    called = " ".join(part for place in places for part in _last(place)).lower()
    found = [steps for word, steps in FEW_STEPS.items() if word in called]
    return found[0] if found else 4 if type(scheduler).__name__ == NAMES["lcm"] else None


def _last(place: str) -> list[str]:
    """The last part of a path, and the name of the model in a path of the hub's cache."""
    parts = place.replace("\\", "/").rstrip("/").split("/")
    return [parts[-1], *(part for part in parts if part.startswith("models--"))]


def published_without_guidance(scheduler: Any) -> bool:
    """Whether a scheduler is set as those of Turbo and Lightning: Euler, at trailing times, predicting noise."""
    config = scheduler.config
    return (
        type(scheduler).__name__ in (NAMES["euler"], NAMES["euler-ancestral"])
        and config.get("timestep_spacing") == "trailing"
        and config.get("prediction_type", "epsilon") == "epsilon"
        and not config.get("rescale_betas_zero_snr")
    )


class SchedulerSolver:
    """One run of a scheduler, for `prompts` rows of each image; `shape` [images, channels, h, w] is the noise's.

    A step may make several network calls. Noise that the scheduler adds is the same for all prompts; for image i it
    continues the generator, seeded with seed + i, that drew the starting noise. Raises ValueError for a number of steps
    that the scheduler cannot make.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        count: int,
        shape: tuple[int, ...],
        prompts: int,
        seed: int,
        device: torch.device,
        **timetable: Any,
    ) -> None:
        made: Any = type(scheduler).from_config(scheduler.config)  # pyright: ignore
        size = made.config.num_train_timesteps
        if isinstance(count, bool) or not 1 <= count <= size:
            raise ValueError(f"The number of steps must be a whole number from 1 to {size}. Received {count!r}.")
        try:
            made.set_timesteps(**{"num_inference_steps": count, **timetable}, device=device)
        except (ValueError, IndexError) as error:
            raise ValueError(f"{type(scheduler).__name__} cannot take {count} steps: {error}") from error
        self.scheduler = made
        self._tensors = {float(t): t for t in made.timesteps}
        times = [float(t) for t in made.timesteps]
        self._calls = _grouped(times, count, made)
        starts = [group[0] for group in self._calls]
        count = len(starts)
        self._last = float("inf")
        self.steps: Sequence[Step] = [
            Step(i, count, t, after) for i, (t, after) in enumerate(zip(starts, [*starts[1:], -1], strict=True))
        ]
        self._options: dict[str, Any] = {"return_dict": False}
        if "generator" in inspect.signature(made.step).parameters:
            self._options["generator"] = [_generator(seed + i, shape) for _ in range(prompts) for i in range(shape[0])]

    def start(self, noise: Tensor) -> Tensor:
        """The noise in the scale of the first step."""
        return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def calls(self, step: Step) -> Sequence[int | float]:
        """The times of a step's network calls."""
        return self._calls[step.index]

    @property
    def rewinds(self) -> bool:
        """Whether a run may go back: not with schedulers that remember earlier predictions."""
        return scheduler_name(self.scheduler) in REWINDING

    def shares(self, t: int | float) -> tuple[float, float]:
        """The shares of image and noise in the latents at time `t`, as the scheduler adds noise to an image."""
        time, flow = self._tensors[t].reshape(1), hasattr(self.scheduler, "scale_noise")

        def mixed(image: float, noise: float) -> float:
            x, n = (torch.full((1,), value, dtype=torch.float32, device=time.device) for value in (image, noise))
            made = self.scheduler.scale_noise(x, time, n) if flow else self.scheduler.add_noise(x, n, time)
            return float(made)

        return mixed(1.0, 0.0), mixed(0.0, 1.0)

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The network's input, of unit variance."""
        if t >= self._last and self.rewinds and hasattr(self.scheduler, "_step_index"):
            self.scheduler._step_index = None  # the run went back: look the place up by its time
        scale = getattr(self.scheduler, "scale_model_input", None)
        return scale(z, self._tensors[t]) if scale else z

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent after the scheduler's step."""
        self._last = t
        return self.scheduler.step(output, self._tensors[t], z, **self._options)[0].to(z.dtype)


def _generator(seed: int, shape: tuple[int, ...]) -> torch.Generator:
    generator = torch.Generator().manual_seed(seed)
    torch.randn(1, *shape[1:], generator=generator)  # advance past the starting noise, which is drawn elsewhere
    return generator


def _grouped(times: list[float], count: int, scheduler: Any) -> list[list[float]]:
    """The times of the calls of each step: two for second-order solvers, but one in the last step; PNDM makes more in
    its first steps."""
    order = getattr(scheduler, "order", 1)
    if type(scheduler).__name__ == NAMES["pndm"]:
        if scheduler.config.skip_prk_steps:
            return [times[:2], *([t] for t in times[2:])] if len(times) > count else [[t] for t in times]
        warm = [times[i : i + 4] for i in range(0, min(12, len(times)), 4)]
        return [*warm, *([t] for t in times[12:])]
    return [times[i : i + order] for i in range(0, len(times), order)]
