"""The strengths of an edit that gives none."""

from __future__ import annotations

import pytest

import promptweave as pw

SOURCE, ADDED = "a cat riding a bike", "a cat riding a bike in the snow"


@pytest.mark.parametrize(("steps", "cross", "shapes"), [(2, 0.8, 0.4), (4, 0.4, 0.4), (10, 0.4, 0.2)])
def test_a_default_reaches_a_step_however_few_there_are(tiny, steps, cross, shapes):
    """Defaults by kind are shorter than the published ones; no run fails for a window that nobody gave."""
    made = pw.edit(SOURCE, ADDED, model=tiny, steps=steps)
    (control,) = made.recipe.controls
    assert (control.cross, control.self_attention) == (cross, shapes)
    (said,) = made.report["strengths"]
    assert said["kind"] == "background" and said["default"] and said["usual"]["cross"] == cross
    assert ("so few steps" in said["why"]) == (steps < 10)
    given = pw.edit(SOURCE, ADDED, model=tiny, steps=steps, cross=0.8, self_attention=0.4)
    assert not given.report["strengths"][0]["default"] or steps == 2
