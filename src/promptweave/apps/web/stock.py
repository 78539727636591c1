"""The models that the page offers, and what can be chosen with each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from promptweave.apps.web.limits import Limits
from promptweave.apps.web.settings import OWN_SIZE
from promptweave.core.clock import Number
from promptweave.editing.inversions import inversions_of
from promptweave.editing.recipe import Recipe
from promptweave.models.base import Model
from promptweave.models.load import load
from promptweave.models.solvers import FLOW
from promptweave.models.solvers import NAMES as SCHEDULERS
from promptweave.sampling.loop import latent_grid

PATIENCE = 25  # steps
WITH = " with "  # between the name of a model and its scheduler, where that is not its own


class UnknownModel(ValueError):
    """The page does not offer this model."""


class Stock:
    """`models`: names for `load`, or loaded models; the first is selected at the start. Raises ValueError for none."""

    def __init__(self, models: Sequence[Model | str], device: str, limits: Limits) -> None:
        if not models:
            raise ValueError("The page needs at least one model. Received none. Leave out --model for toybox.")
        self.device, self.limits = device, limits
        self._loading = RLock()  # words and previews are available during a run
        self._given: dict[str, Model | str] = {}
        self._variants: dict[str, Model] = {}  # models with other schedulers
        for model in models:
            name = _label(model)
            while name in self._given:
                name += "'"
            self._given[name] = model

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(self._given)

    def network(self, name: str) -> Model:
        """A model by name, loaded at first use. Raises UnknownModel."""
        if name in self._variants:
            return self._variants[name]
        if name not in self._given:
            raise UnknownModel(
                f"This page offers the models {', '.join(self._given)}. Received {name!r}. Choose one of them."
            )
        with self._loading:
            found = self._given[name]
            if isinstance(found, str):
                found = self._given[name] = load(found, device=self.device)
            return found

    def steps(self, name: str) -> int:
        """The default number of steps on the page: the model's, but limited to keep waiting short."""
        return min(self.network(name).defaults[0], PATIENCE, self.limits.steps)

    def guidance(self, name: str) -> Number:
        """The model's own guidance."""
        return self.network(name).defaults[1]

    def sizes(self, name: str) -> list[str]:
        """Sizes to offer: the model's own, and wider and higher ones within the limits."""
        network = self.network(name)
        (height, width), step = network.default_size, network.multiple
        more = [(height, width * 3 // 2), (height * 3 // 2, width), (height * 3 // 2, width * 3 // 2)]
        fitting = [(h // step * step, w // step * step) for h, w in more if h * w <= self.limits.pixels]
        return [OWN_SIZE, *(f"{h} x {w}" for h, w in fitting)]

    def schedulers(self, name: str) -> list[str]:
        """The schedulers that suit a model, its own among them."""
        own = self.network(name).scheduler
        return [own] if own == FLOW else [known for known in SCHEDULERS if known != FLOW]

    def variant(self, name: str, scheduler: str | None) -> str:
        """The name of a model with another scheduler; its own name with its own. Raises UnknownScheduler."""
        network = self.network(base := name.partition(WITH)[0])
        if not scheduler or scheduler == network.scheduler:
            return base
        label = f"{base}{WITH}{scheduler}"
        with self._loading:
            if label not in self._variants:
                steered: Any = load(getattr(network, "pipeline", None), scheduler=scheduler)
                steered.name, steered.reading = network.name, network.reading
                self._variants[label] = steered
        return label

    def parts(self, name: str) -> tuple[str, str]:
        """A model's name without its scheduler, and the scheduler."""
        return name.partition(WITH)[0], self.network(name).scheduler

    def joint(self, name: str) -> bool:
        """Whether a model has joint attention instead of cross- and self-attention, like SD3 and FLUX."""
        network = self.network(name)
        return any(site.kind == "joint" for site in network.sites(latent_grid(network)))

    def inversions(self, name: str) -> list[str]:
        """The inversions for the kind of a model."""
        return inversions_of(self.network(name))

    def named(self, recipe: Recipe) -> str:
        """The name of the model that made a recipe. Raises UnknownModel."""
        for name, given in self._given.items():
            if recipe.model == (given if isinstance(given, str) else given.name):
                return self.variant(name, recipe.scheduler)
        raise UnknownModel(
            f"This page offers the models {', '.join(self._given)}, and the image was made with another. Start the "
            "page with that model in its list: promptweave app --model ..."
        )


def _label(model: Model | str) -> str:
    """A model's name without its parent folders, which stay private."""
    name = model if isinstance(model, str) else model.name
    return Path(name).name if Path(name).is_absolute() or Path(name).exists() else name
