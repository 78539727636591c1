"""Steps and windows of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptweave.core.clock import Step, Window


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 200))
def test_membership_is_the_formula(one: float, two: float, count: int) -> None:
    start, end = sorted((one, two))
    window = Window(start, end)
    inside = [i for i in range(count) if Step(i, count, 1, 0) in window]
    assert inside == list(window.steps(count))
    assert inside == [i for i in range(count) if math.floor(start * count + 1e-6) <= i < math.floor(end * count + 1e-6)]


@given(st.floats(0, 1), st.integers(1, 200))
def test_two_windows_that_meet_cover_each_step_once(middle: float, count: int) -> None:
    assert [*Window(0.0, middle).steps(count), *Window(middle, 1.0).steps(count)] == list(range(count))


@pytest.mark.parametrize(
    ("share", "count", "steps"), [(0.29, 100, 29), (0.8, 50, 40), (0.3, 10, 3), (1.0, 7, 7), (0.0, 7, 0)]
)
def test_shares_that_are_not_exact_in_binary(share: float, count: int, steps: int) -> None:
    assert len(Window(0.0, share).steps(count)) == steps


@pytest.mark.parametrize("pair", [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.4), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_window_outside_its_rule_is_refused_with_what_was_received(pair: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="Received"):
        Window(*pair)


def test_forms_of_a_window() -> None:
    assert Window.of(0.4) == Window(0.0, 0.4) == Window.of((0.0, 0.4)) == Window.of(Window(0.0, 0.4))
    assert Window.of(1) == Window(0, 1)
