"""The page of a run: well formed, by itself, harmless whatever the prompt, and with a command that works."""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.editing.command import NoCommand, command_of

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a red bike"
VOID = {"meta", "img", "input", "br", "line"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers texts and what is referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said = ""
        self.pre: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.said += data
        if self.open[-1:] == ["pre"]:
            self.pre.append(data)


@pytest.fixture(scope="module")
def made(tiny):
    return pw.edit(SOURCE, TARGET, model=tiny, steps=3, blend="dog", weights={"red": 2}, maps=True, compare=True)


def test_the_page_stands_alone(made, tmp_path):
    text = pw.html_report(made)
    page = Page(text)
    places = [value for name, value in page.attributes if name in ("src", "href", "action", "data", "poster", "srcset")]
    assert places and all(place.startswith("data:image/webp;base64,") for place in places)
    assert not re.search(r"https?://|url\(|@import|//cdn", re.sub(r"base64,[^\"]+", "", text))
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    pictures = page.tags.count("img")
    assert pictures == 5 + 3 * 9 - 1 + 3  # slider and three; nine pairs of words, one with no source; three masks
    assert all(("alt", value) for name, value in page.attributes if name == "src")
    for told in ("swapped", "not in", "step 2: ", "without control", "LocalBlend", "PSNR", "difference: "):
        assert told.rstrip(": ") in page.said
    assert json.loads(page.pre[-1]) == json.loads(json.dumps(made.recipe.as_dict()))
    assert pw.write_report(made, tmp_path / "deep" / "report.html").read_text() == text


def test_a_prompt_cannot_write_code(tiny):
    nasty = 'a cat <script>alert(1)</script> & "quoted" $body ${x}'
    for result in (
        pw.generate(nasty, model=tiny, steps=1),
        pw.edit(nasty, nasty.replace("cat", "dog"), model=tiny, steps=3, maps=True),
    ):
        page = Page(pw.html_report(result))
        assert page.tags.count("script") == 1
        assert "<script>alert(1)</script>" in page.said and "${x}" in page.said


def test_every_script_is_written_in_its_own_direction(tiny):
    page = pw.html_report(pw.edit("קט <b>וכלב</b>", "קט <b>וארנב</b>", model=tiny, steps=2, maps=True))
    assert "<h2>קט &lt;b&gt;וארנב&lt;/b&gt;</h2>" in page and '<strong dir="auto">קט</strong>' in page
    assert "h2 { unicode-bidi: plaintext" in page and '<h1 dir="auto">' in page and "<b>ו" not in page


def test_without_maps_and_with_several_seeds(tiny):
    result = pw.edit(SOURCE, TARGET, "a dog", model=tiny, steps=3, images=2)
    page = Page(pw.html_report(result))
    assert page.tags.count("img") == 2 * 2 * 2 and "What each word looks at" not in page.said
    assert page.tags.count("h2") == 4 and "seed 1" in page.said


def test_of_a_single_prompt(tiny, tiny_folder, tmp_path, capsys):
    """Pictures of all seeds; with maps a card for each word; under controls the pictures without them."""
    page = Page(pw.html_report(pw.generate(SOURCE, model=tiny, steps=2, images=2)))
    assert page.tags.count("img") == 2 and "seed 1" in page.said and "looks at" not in page.said
    assert "prompt" in page.said and "edit" not in page.said
    watch = [pw.RecordMaps(columns=(tuple(range(10)),))]
    steered = pw.generate(SOURCE, model=tiny, steps=2, controls=watch, compare=True)
    assert "without control, seed 0" in Page(pw.html_report(steered)).said
    with pytest.raises(SystemExit) as end:
        main(["generate", SOURCE, "--steps", "2", "--model", str(tiny_folder), "--report", "-o", str(tmp_path / "out")])
    assert end.value.code == 0, capsys.readouterr()
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.tags.count("img") == 1 + len(SOURCE.split()) and page.said.count("up to ") - 1 == len(SOURCE.split())
    assert "promptweave generate 'a photo of a cat riding a bike' --steps 2" in page.said
    with pytest.raises(SystemExit) as end:
        main(["generate", "", "--model", str(tiny_folder), "--report", "-o", str(tmp_path / "other")])
    assert end.value.code == 2 and "empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("attend", [SOURCE, "--word", "cat", "--word", "bike", "--threshold", "0.2=0.1", "--no-padding"]),
        ("place", [SOURCE, "--region", "cat=0,0,0.5,0.75"]),
        ("masactrl", [SOURCE, TARGET, "--start", "0.2"]),
        ("sega", [SOURCE, "--concept", "snow=-2"]),
        ("mix", [SOURCE, "--word", "cat", "--proxy", "dog"]),
        ("mix", [SOURCE, "--word", "cat", "--proxy", "dog", "--proxy", "fox", "--window", "0.2:0.6"]),
    ],
)
def test_the_command_of_a_method_makes_the_same_recipe(tiny_folder, tmp_path, monkeypatch, capsys, call, options):
    monkeypatch.chdir(tmp_path)

    def recipe(arguments: list[str]) -> dict:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0, capsys.readouterr()
        return json.loads(next(Path(f"out/{call}").glob("*.json")).read_text())["recipe"]

    first = recipe([call, *options, "--steps", "5", "--model", str(tiny_folder), "--report"])
    program, *arguments = shlex.split(Page(Path(f"out/{call}/report.html").read_text()).pre[0])
    assert program == "promptweave" and arguments[0] == call
    assert recipe([*arguments, "--force"]) == first


@pytest.mark.parametrize(
    "options",
    [
        [SOURCE, TARGET],
        [SOURCE, "a photo of a dog riding a bike", "--kind", "refine", "--cross", "0.8", "--cross", "dog=0.2:0.6"],
        [SOURCE, "a photo of a dog riding a bike", TARGET, "--self-attention", "0.1:0.5", "--self-grid", "64"],
        [SOURCE, TARGET, "--weight", "red=2.5", "--blend", "dog", "--subtract", "bike", "--blend-start", "0.5"],
        [SOURCE, "--weight", "cat=-1", "--guidance", "3", "--images", "2", "--size", "16x32", "--negative", "a 'dog'"],
        [SOURCE, TARGET, "--shared-start", "0.4", "--reference-compat", "--seed", "7"],
    ],
)
def test_the_command_makes_the_same_recipe(tiny_folder, tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)

    def recipe(arguments: list[str]) -> dict:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0, capsys.readouterr()
        return json.loads(Path("out/edit/edit.json").read_text())["recipe"]

    first = recipe(["edit", *options, "--steps", "5", "--model", str(tiny_folder), "--report"])
    command = Page(Path("out/edit/report.html").read_text()).pre[0]
    program, *arguments = shlex.split(command)
    assert program == "promptweave" and recipe([*arguments, "--force"]) == first
    assert not Path("out/edit/report.html").exists(), "an old page does not stay beside new pictures"


def test_what_has_no_command_is_told_in_python(tiny):
    """The page says why, and shows the call in Python, which is valid."""
    made = pw.edit(SOURCE, TARGET, model=tiny, steps=3)
    run = made.sample.run
    drawn = pw.LocalBlend("dog", mask=((1.0,),))
    for controls, said in (
        ((pw.Refine(), drawn), "The mask is stored in the recipe"),
        ((pw.Refine(), pw.Reweight({"dog": 2}, window=0.5)), "cannot produce these parameters"),
        ((pw.Reweight({"dog": 2}), pw.Refine()), "cannot produce these parameters"),
        ((pw.Reweight({"dog": 2}),), "cannot produce these parameters"),
        ((pw.AttendAndExcite("dog"), pw.Refine()), "AttendAndExcite cannot be requested"),
    ):
        with pytest.raises(NoCommand, match=said):
            command_of(pw.Recipe(SOURCE, (TARGET,), controls), run)
    assert command_of(made.recipe, run).startswith(f"promptweave edit '{SOURCE}' '{TARGET}' --steps 3 ")
    excite = pw.edit(SOURCE, TARGET, model=tiny, steps=3, controls=[pw.AttendAndExcite("bike"), drawn])
    page = Page(pw.html_report(excite))
    assert "AttendAndExcite cannot be requested by the options of promptweave edit" in page.said
    assert "controls=[pw.AttendAndExcite(words='bike'), pw.LocalBlend(words='dog', mask=((1.0,),))]" in page.said
    code = page.pre[0].partition("\n\n")[2].replace("model='tiny'", "model=tiny")
    scope = {"tiny": tiny, "pw": pw}
    compile(code, "page", "exec")
    again = eval(code.partition("\n\n")[2], scope)  # noqa: S307 - what the page shows
    assert again.recipe == excite.recipe
