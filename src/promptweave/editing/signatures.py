"""What a file is that is no image, by its first bytes; a message that names it helps more than that it is none."""

from __future__ import annotations

from PIL import features

SAVE = "Save it as PNG or JPEG"
BRANDS = {  # of the container of HEIC, AVIF and films
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC",
    b"msf1": "HEIC", b"crx ": "CR3 raw",
}  # fmt: skip
STARTS = (
    (b"%PDF", "a PDF document", "Save the page as PNG"),
    (b"\x93NUMPY", "a NumPy array", "Load it: image=numpy.load(...)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch it: git lfs pull"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image of high dynamic range", "Save it tone-mapped, as PNG"),
    (b"#?RADIANCE", "a Radiance HDR image", "Save it tone-mapped, as PNG"),
    (b"\xff\x0a", "a JPEG XL image", SAVE),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image", SAVE),
    (b"PK\x03\x04", "a ZIP archive", "Unpack it"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it"),
    (b"\x1a\x45\xdf\xa3", "a film (WebM or Matroska)", "Save a frame of it as PNG"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file", "Develop it, and save it as PNG or JPEG"),
)


def is_heic(head: bytes) -> bool:
    """Whether a file with these first bytes is HEIC."""
    return head[4:8] == b"ftyp" and BRANDS.get(head[8:12]) == "HEIC"


def named(head: bytes) -> tuple[str, str]:
    """What a file with these first bytes is, and what to do about it.

    >>> named(b'<?xml version="1.0"?><svg width="8"/>')
    ('an SVG drawing', 'Render it, and save it as PNG')
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text and text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")):
        return "an SVG drawing", "Render it, and save it as PNG"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image", "Download the image itself"
    if head[4:8] == b"ftyp":
        kind = BRANDS.get(head[8:12])
        if kind == "AVIF":
            if features.check("avif"):
                return "a damaged AVIF image", "Save or download it again"
            return (
                "an AVIF image",
                f"Update Pillow, which reads it from version 11.3 on. Or {SAVE[0].lower()}{SAVE[1:]}",
            )
        return (f"a {kind} image", SAVE) if kind else ("a film (MP4 or MOV)", "Save a frame of it as PNG")
    for start, what, cure in STARTS:
        if head.startswith(start):
            return what, cure
    return "not an image", "Give a PNG, JPEG or WebP file"
