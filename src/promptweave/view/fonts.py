"""The fonts of this machine, and which of them has a character.

Pillow's own font has the letters of English. Whatever else a label holds is drawn with the first font that has it, of
those in PROMPTWEAVE_FONTS (files and folders), those of installed packages (the extra `fonts`, and Matplotlib's), and
the system's, fonts for text and of regular weight first.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import PIL
from PIL import ImageFont, features

VARIABLE = "PROMPTWEAVE_FONTS"
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
STRIKES = (109, 136, 160, 128, 96, 64, 72, 48, 40, 32, 20)  # sizes of fonts that hold pictures instead of outlines
FIRST = (  # names of fonts with many scripts, or one that others lack, without spaces and in lower case
    "notosans-regular", "notosans[", "dejavusans", "segoeui", "arialunicode", "arial", "liberationsans-regular",
    "helveticaneue", "notosans", "notonaskharabic-regular", "sfarabic", "pingfang", "hiragino", "msyh", "yugoth",
    "meiryo", "malgun", "applesdgothicneo", "leelawui", "thonburi", "nirmala", "kohinoor", "notocoloremoji",
    "applecoloremoji", "seguiemj", "seguisym",
)  # fmt: skip
STYLES = re.compile(r"bold|italic|oblique|light|thin|black|heavy|medium|condensed|mono|serif|display|semi|looped|ui-")
KINDS = {"CJK": "CJK", "HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "CJK", "GREEK": "", "CYRILLIC": "", "LATIN": ""}
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class MissingGlyphs(UserWarning):
    """Given once for each script that no font here can draw."""


def font(size: int) -> Font:
    """Pillow's own font, for the letters of English."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=128)
def opened(path: Path | None, size: int) -> tuple[Font, float]:
    """A font, and the factor to the size: 1, or another where a font holds pictures of one size."""
    if path is None:
        return font(size), 1.0
    for strike in (size, *STRIKES):
        try:
            return ImageFont.truetype(str(path), strike), size / strike
        except OSError as error:
            if "pixel size" not in str(error):
                raise
    raise OSError(f"{path} has no size that can be drawn.")


def shapes() -> bool:
    """Whether letters are joined, and right-to-left text is turned: Pillow's Raqm."""
    return bool(features.check("raqm"))


def visible(character: str) -> bool:
    """Whether a character needs a glyph: no space, no control, and no invisible mark."""
    return unicodedata.category(character)[0] not in "ZC" and not 0xFE00 <= ord(character) <= 0xFE0F


def faces(characters: Iterable[str]) -> dict[str, Path | None]:
    """The first font that has each character, None for Pillow's own. Characters that no font has are left out."""
    asked = [character for character in dict.fromkeys(characters) if visible(character)]
    known = _known()
    new = [character for character in asked if character not in known]
    for path in (None, *files()) if new else ():
        found = covered(path, "".join(new))
        known.update(dict.fromkeys(found, path))
        new = [character for character in new if character not in found]
        if not new:
            break
    known.update(dict.fromkeys(new, MISSING))
    tell(new)
    return {character: path for character in asked if (path := known[character]) != MISSING}


@lru_cache(maxsize=4096)
def covered(path: Path | None, characters: str) -> frozenset[str]:
    """Those of the characters for which a font has a glyph: one unlike that for characters that it lacks."""
    try:
        face, _ = opened(path, 20)
        if isinstance(face, ImageFont.FreeTypeFont):
            face = face.font_variant(layout_engine=ImageFont.Layout.BASIC)
        lacking = _glyph(face, "\U0010fffe")
        return frozenset(c for c in characters if (drawn := _glyph(face, c)) != lacking and any(drawn[1]))
    except (OSError, ValueError):  # a damaged file, or a format that FreeType does not know
        return frozenset()


def _glyph(face: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = face.getmask(character)
    return mask.size, bytes(mask)


def tell(characters: Iterable[str]) -> None:
    """Say, once for each script, which characters cannot be drawn, and which fonts would help."""
    lost = {character: cure for character in characters if (cure := _cure(character)) not in _told()}
    _told().update(lost.values())
    if lost:
        shown = " ".join(list(lost)[:12]) + (" ..." if len(lost) > 12 else "")
        cures = ", ".join(dict.fromkeys(lost.values()))
        warnings.warn(
            f"No font here can draw {shown}: pictures show boxes instead. Install {cures}, or name a font file or "
            f"folder in {VARIABLE}.",
            MissingGlyphs,
            stacklevel=2,
        )


def tell_of_shaping() -> None:
    """Say once that letters are not joined."""
    if "raqm" not in _told():
        _told().add("raqm")
        warnings.warn(
            "Letters are drawn unjoined: Pillow here lacks Raqm, which shapes Arabic, Hindi and other scripts. Install "
            "FriBiDi (Debian: libfribidi0), or Pillow from its own wheels.",
            MissingGlyphs,
            stacklevel=2,
        )


def _cure(character: str) -> str:
    kind = unicodedata.name(character, "unknown").split()[0]
    if unicodedata.category(character) in ("So", "Sk"):
        return "Noto Emoji or Noto Sans Symbols"
    return f"Noto Sans {KINDS.get(kind, kind.title())}".strip()


MISSING = Path("missing")


@cache
def _known() -> dict[str, Path | None]:
    """The font of each character seen so far."""
    return {}


@cache
def _told() -> set[str]:
    """The fonts that a warning has named."""
    return set()


@cache
def files() -> tuple[Path, ...]:
    """Font files, those to be preferred first."""
    named = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    first = [path for part in named for path in ([part] if part.is_file() else sorted(_within(part), key=_rank))]
    beside = Path(PIL.__file__).parent.parent  # where packages are installed
    packages = [*beside.glob("fontpkg_*/files"), beside / "matplotlib" / "mpl-data" / "fonts" / "ttf"]
    others = {path for folder in (*packages, *folders()) for path in _within(folder)}
    return tuple(dict.fromkeys((*first, *sorted(others, key=_rank))))


def folders() -> tuple[Path, ...]:
    """The folders of this system's fonts."""
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", str(home / "AppData" / "Local"))
        return (Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", Path(local) / "Microsoft" / "Windows" / "Fonts")
    if sys.platform == "darwin":
        return (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts")
    data = [os.environ.get("XDG_DATA_HOME", str(home / ".local" / "share"))]
    data += os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    return (home / ".fonts", *(Path(folder) / "fonts" for folder in data if folder))


def _within(folder: Path) -> list[Path]:
    return [Path(at) / name for at, _, names in os.walk(folder) for name in names if name.lower().endswith(SUFFIXES)]


def _rank(path: Path) -> tuple[bool, int, str]:
    name = path.name.lower().replace(" ", "")
    place = next((place for place, start in enumerate(FIRST) if name.startswith(start)), len(FIRST))
    return bool(STYLES.search(name.replace("sansserif", ""))), place, str(path)
