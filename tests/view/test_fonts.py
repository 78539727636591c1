"""Labels in any script: which font draws what, from right to left where it is read so, and what is said if none can."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from promptweave.view import fonts, text
from promptweave.view.sheet import INK, grid_sheet, sheet
from promptweave.view.threads import Thread, drawn, svg

CACHES = (fonts.opened, fonts.covered, fonts._known, fonts._told, fonts.files, text.parts)


def written(path: Path, characters: str, width: int = 900) -> Path:
    """A font of which each character is a solid block of its own height, and .notdef a frame."""
    names = [f"c{ord(character):x}" for character in characters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, characters), names, strict=True)))

    def block(height: int) -> object:
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, height), (width - 100, height), (width - 100, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    blocks = {name: block(300 + 60 * number) for number, name in enumerate(names)}
    builder.setupGlyf({".notdef": block(990), **blocks})
    builder.setupHorizontalMetrics({name: (width, 0) for name in (".notdef", *names)})
    builder.setupHorizontalHeader(ascent=1000, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose fonts are those in this folder, and Pillow's own."""
    monkeypatch.setattr(fonts, "folders", lambda: (tmp_path,))
    monkeypatch.setattr(fonts.PIL, "__file__", str(tmp_path / "packages" / "PIL" / "__init__.py"))
    monkeypatch.delenv(fonts.VARIABLE, raising=False)
    for cache in CACHES:
        cache.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for cache in CACHES:
        cache.cache_clear()


def ink(label: str, size: int = 20) -> np.ndarray:
    page = Image.new("RGB", (400, 60), "white")
    text.write(page, (10, 10), label, INK, size)
    return np.asarray(page).sum(-1) < 600


def test_english_is_drawn_as_pillow_draws_it(only: Path) -> None:
    from PIL import ImageDraw

    for anchor in ("la", "ma", "rm", "mm", "lm", "md"):
        pages = [Image.new("RGB", (300, 60), "white") for _ in range(2)]
        text.write(pages[0], (150, 30), "a cat, 1.5", INK, 14, anchor)
        ImageDraw.Draw(pages[1]).text((150, 30), "a cat, 1.5", INK, fonts.font(14), anchor=anchor)
        assert pages[0].tobytes() == pages[1].tobytes()
    assert text.length("a cat", 14) == fonts.font(14).getlength("a cat")


def test_a_word_is_drawn_with_one_font_that_has_all_of_it(only: Path) -> None:
    all_of_it, han = written(only / "A.ttf", "éłcaf"), written(only / "B.ttf", "猫")
    shown = text.parts("a café łé 猫é end")
    assert [(part.text, part.path) for part in shown] == [
        ("a", None), (" ", None), ("café", all_of_it), (" ", None), ("łé", all_of_it), (" ", None), ("猫", han),
        ("é", all_of_it), (" ", None), ("end", None),
    ]  # fmt: skip
    assert text.length("猫", 20) == 18, "0.9 of the size, from the font that has it"
    assert ink("猫").sum() == pytest.approx(16 * 6, abs=20), "the block of that font"


def test_marks_stay_with_their_letters(only: Path) -> None:
    plain, marked = written(only / "A.ttf", "xq"), written(only / "B.ttf", "q\u0301")
    assert [(part.text, part.path) for part in text.parts("a q\u0301") if part.path] == [("q\u0301", marked)]
    assert fonts.faces("x")["x"] is None and plain != marked
    assert text.clusters("e\u0301👩\u200d🚀🇩🇪👍🏽") == ["e\u0301", "👩\u200d🚀", "🇩🇪", "👍🏽"]


@pytest.mark.filterwarnings("ignore::promptweave.view.fonts.MissingGlyphs")
@pytest.mark.parametrize(
    ("label", "seen"),
    [
        ("one אב גד two", ["one", " ", "גד", " ", "אב", " ", "two"]),
        ("אב one two גד", ["גד", " ", "one", " ", "two", " ", "אב"]),
        ("one אב", ["one", " ", "אב"]),
        ("אב 3 one", ["one", " 3 ", "אב"]),
    ],
)
def test_what_is_read_from_right_to_left_stands_so(
    only: Path, monkeypatch: pytest.MonkeyPatch, label: str, seen: list[str]
) -> None:
    written(only / "A.ttf", "אבגד")
    monkeypatch.setattr(text, "shapes", lambda: True)
    assert [part.text for part in text.parts(label)] == seen
    text.parts.cache_clear()
    monkeypatch.setattr(text, "shapes", lambda: False)  # without Raqm, the letters are turned here
    turned = [part.text for part in text.parts(label)]
    assert turned == [word[::-1] if word in ("אב", "גד") else word for word in seen]


def test_without_raqm_it_is_said_once_that_letters_are_not_joined(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(only / "A.ttf", "אב")
    monkeypatch.setattr(text, "shapes", lambda: False)
    with pytest.warns(fonts.MissingGlyphs, match="lacks Raqm.*libfribidi0"):
        text.parts("אב")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text.parts("בא")[0].text == "אב"


def test_what_no_font_has_is_said_once_with_the_fonts_that_would_help(only: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.warns(fonts.MissingGlyphs) as caught:
        sheet([[picture, picture]], [["一只猫 café", "кот 🐱 แมว"]])
        sheet([[picture]], [["狗 ёж"]])
        grid_sheet([[picture]], ["犬"], ["猫"], title=["เก้าอี้"])
    (said,) = [str(warning.message) for warning in caught]
    assert said.startswith("No font here can draw 一 只 猫 é к о т 🐱 แ ม ว: pictures show boxes instead.")
    assert "Install Noto Sans CJK, Noto Sans, Noto Emoji or Noto Sans Symbols, Noto Sans Thai, or name a font" in said
    assert "PROMPTWEAVE_FONTS" in said
    assert ink("猫").any(), "a box"


def test_fonts_are_looked_for_in_the_variable_then_in_packages_then_in_the_system(
    only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (only / "named").mkdir()
    (only / "packages" / "fontpkg_x" / "files").mkdir(parents=True)
    first = written(only / "named" / "z.otf", "é")
    package = written(only / "packages" / "fontpkg_x" / "files" / "NotoSans[wdth,wght].ttf", "é")
    bold = written(only / "NotoSans-Bold.ttf", "éł")
    regular = written(only / "Other-Regular.ttf", "éł")
    (only / "broken.ttf").write_bytes(b"no font")
    shutil.copy(__file__, only / "notes.txt")
    assert fonts.files() == (package, regular, only / "broken.ttf", first, bold), "text of regular weight first"
    assert fonts.faces("éł") == {"é": package, "ł": regular}
    monkeypatch.setenv(fonts.VARIABLE, os.pathsep.join(map(str, (first.parent, bold, "/nowhere"))))
    for cache in CACHES:
        cache.cache_clear()
    assert fonts.files()[:2] == (first, bold)
    assert fonts.faces("éł") == {"é": first, "ł": bold}


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_system_has_its_folders(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(fonts.sys, "platform", platform)
    monkeypatch.setenv("XDG_DATA_DIRS", "/usr/share")
    found = [str(path).replace("\\", "/") for path in fonts.folders()]
    assert {"linux": "/usr/share/fonts", "darwin": "/System/Library/Fonts", "win32": "C:/Windows/Fonts"}[
        platform
    ] in found


def test_text_without_spaces_wraps_between_characters(only: Path) -> None:
    written(only / "A.ttf", "一只猫坐在草地上")
    lines = text.wrapped("一只猫坐在草地上", 100, 20)
    assert "".join(lines) == "一只猫坐在草地上" and len(lines) == 2
    assert all(text.length(line, 20) <= 100 for line in lines)


def test_drawings_of_the_alignment_measure_what_they_show(only: Path) -> None:
    written(only / "A.ttf", "猫狗ö")
    lines = [Thread("swapped", "猫", "狗"), Thread("added", None, "<Löwe> & co")]
    assert (np.asarray(drawn(lines)).sum(-1) < 700).any()
    made = svg(lines)
    assert 'textLength="24.0"' in made, "two cells of 12 pixels"
    assert "&lt;Löwe&gt; &amp; co" in made and "<Löwe>" not in made
