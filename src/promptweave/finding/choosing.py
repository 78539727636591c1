"""Which judge a search asks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from promptweave.core.shown import shown
from promptweave.finding.demands import Demands
from promptweave.finding.verdicts import EditJudge, MapsJudge, OracleJudge, regions_of
from promptweave.models.base import Model
from promptweave.models.embedded import NAMES
from promptweave.words import Words
from promptweave.words.edit_kinds import Change
from promptweave.world.oracle import ORACLE, Oracle

Named = Literal["auto", "oracle", "clip", "maps"]


class NoSuchJudge(ValueError):
    """Raised for a judge that cannot judge this edit, or is not on this machine."""


@lru_cache(1)
def oracle() -> Oracle:
    """The oracle that ships with the package."""
    return Oracle.load(Path(str(resources.files("promptweave.world").joinpath(ORACLE))))


def judge_for(
    judge: str | EditJudge, model: Model, words: tuple[Words, Words], found: Change, weights: Mapping[str, Any] | None
) -> EditJudge:
    """The judge of an edit. Raises NoSuchJudge."""
    if not isinstance(judge, str):
        return judge
    source, target = words
    demands = Demands.of(source.prompt, target.prompt, weights)
    regions = regions_of(found, source, target)
    if judge == "oracle" or (judge == "auto" and model.name in NAMES and demands is not None):
        if demands is None:
            raise NoSuchJudge(
                "The oracle judges edits in the words of its world, such as 'a photo of a cat on the grass'. Received "
                f'"{source.prompt}" and "{target.prompt}". Choose judge="clip" or "maps".'
            )
        return OracleJudge(oracle(), demands)
    if judge in ("auto", "maps"):
        return MapsJudge(regions)
    raise NoSuchJudge(f"A judge is auto, oracle, clip or maps, or an object that judges. Received {shown(judge)}.")
