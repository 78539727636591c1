"""Which judge a search asks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from promptweave.core.shown import shown
from promptweave.evaluate.judges import Clip
from promptweave.finding.demands import Demands
from promptweave.finding.verdicts import ClipJudge, EditJudge, MapsJudge, OracleJudge, regions_of
from promptweave.models.base import Model
from promptweave.models.embedded import NAMES
from promptweave.models.judge_networks import CLIP, NoJudge, load_clip
from promptweave.words import Words
from promptweave.words.edit_kinds import Change
from promptweave.world.oracle import ORACLE, Oracle


class NoSuchJudge(ValueError):
    """Raised for a judge that cannot judge this edit, or is not on this machine."""


@lru_cache(1)
def oracle() -> Oracle:
    """The oracle that ships with the package."""
    return Oracle.load(Path(str(resources.files("promptweave.world").joinpath(ORACLE))))


@lru_cache(1)
def clip(name: str) -> Clip:
    """CLIP from a folder or the local cache. Raises NoJudge."""
    return Clip(*load_clip(None, name))


def cached_clip() -> bool:
    """Whether the usual CLIP model is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(CLIP, "config.json"), str)


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
    name, _, folder = judge.partition(":")
    if name == "clip":
        try:
            return ClipJudge(clip(folder or CLIP), target.prompt, regions)
        except NoJudge as missing:
            raise NoSuchJudge(f'{missing} Or choose judge="maps".') from missing
    if judge == "auto" and cached_clip():
        return ClipJudge(clip(CLIP), target.prompt, regions)
    if judge in ("auto", "maps"):
        return MapsJudge(regions)
    raise NoSuchJudge(
        f"A judge is auto, oracle, clip, clip:FOLDER or maps, or an object that judges. Received {shown(judge)}."
    )
