"""Names of maps by time and place: time_step_50_down_cross_0_res_64."""

from __future__ import annotations

import re
from collections.abc import Sequence

NAME = re.compile(r"time_step_(?P<step>\d+)_(?P<site>.+?)(?:_head_(?P<head>\d+))?")


def map_name(step: int, site: str, head: int | None = None) -> str:
    """The name of a map.

    >>> map_name(50, "down_cross_0_res_64"), map_name(5, "up_cross_1_res_16", 7)
    ('time_step_50_down_cross_0_res_64', 'time_step_5_up_cross_1_res_16_head_7')
    """
    return f"time_step_{step}_{site}" + ("" if head is None else f"_head_{head}")


def parse_name(name: str) -> tuple[int, str, int | None]:
    """Step, site and head of a map's name.

    >>> parse_name("time_step_50_down_cross_0_res_64")
    (50, 'down_cross_0_res_64', None)
    """
    found = NAME.fullmatch(name)
    if not found:
        raise ValueError(f"A map is named like time_step_50_down_cross_0_res_64. Received {name!r}.")
    return int(found["step"]), found["site"], None if found["head"] is None else int(found["head"])


def clamped(asked: Sequence[int], count: int) -> dict[int, int]:
    """The step to take for each that was asked for: itself, or the last of `count`.

    >>> clamped((0, 5, 50), 50)
    {0: 0, 5: 5, 50: 49}
    """
    if not asked or min(asked) < 0:
        raise ValueError(f"Steps are counted from 0. Received {', '.join(map(str, asked)) or 'none'}.")
    return {step: min(step, count - 1) for step in asked}
