"""Names of files that are made of a user's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptweave.core.file_names import new_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("self-0.6-cross-0.4", "self-0.6-cross-0.4.png"),
        ("and/or-0", "and-or-0.png"),
        ("../../x-1", "x-1.png"),
        ("..", "file.png"),
        ("", "file.png"),
        ("con", "_con.png"),
        ("snow man-1", "snow-man-1.png"),
        ("雪-0.5", "雪-0.5.png"),
        ("a\x00b\nc:*?<>|", "a-b-c.png"),
    ],
)
def test_names(text, name):
    assert new_name(text, ".png") == name


def test_a_name_that_is_taken_gets_a_number():
    assert new_name("a", ".png", {"a.png", "a-2.png"}) == "a-3.png"
    assert new_name("A", ".png", {"a.png"}) == "A-2.png"


@given(st.text())
def test_any_text_is_one_file_in_its_folder(text):
    name = new_name(text, ".png")
    assert 0 < len(name.encode()) <= 110 and not set(name) & set('/\\:*?"<>|\0\n')
    assert name.strip(". -") == name
