"""Fields that say their own help text and range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Annotated

from promptweave.core.fields import Option, options_of


@dataclass(frozen=True)
class Some:
    words: Annotated[tuple[str, ...], Option("Words.", group="Where", flag="--word", short="w")]
    share: Annotated[float, Option("Fraction of the steps.", low=0, high=1)] = 0.5
    hidden: int = 3
    weights: Annotated[Mapping[str, float], Option("Factors.")] = field(default_factory=dict[str, float])


def test_fields_are_listed_with_their_types_defaults_and_help_texts() -> None:
    words, share, weights = options_of(Some)
    assert (words.name, words.type, words.default, words.flag) == ("words", tuple[str, ...], MISSING, "--word")
    assert words.required and words.option.group == "Where"
    assert (share.default, share.flag, share.option.low, share.option.high) == (0.5, "--share", 0, 1)
    assert weights.default == {} and not weights.required
