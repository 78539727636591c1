"""Names of maps by step and layer: time_step_50_down_cross_0_res_64."""

from __future__ import annotations

from collections.abc import Sequence


def map_name(step: int, site: str, head: int | None = None) -> str:
    """The name of a map.

    >>> map_name(50, "down_cross_0_res_64"), map_name(5, "up_cross_1_res_16", 7)
    ('time_step_50_down_cross_0_res_64', 'time_step_5_up_cross_1_res_16_head_7')
    """
    return f"time_step_{step}_{site}" + ("" if head is None else f"_head_{head}")


def clamped(asked: Sequence[int], count: int) -> dict[int, int]:
    """Requested step -> actual step: itself, or the last of `count`.

    >>> clamped((0, 5, 50), 50)
    {0: 0, 5: 5, 50: 49}
    """
    if not asked or min(asked) < 0:
        raise ValueError(
            f"Steps are counted from 0, and at least one is needed. Received {', '.join(map(str, asked)) or 'none'}."
        )
    return {step: min(step, count - 1) for step in asked}
