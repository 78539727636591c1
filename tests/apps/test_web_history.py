"""The tree of edits that the page draws."""

from __future__ import annotations

from html.parser import HTMLParser

from promptweave.apps.web.history import EMPTY, tree_html
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Form
from promptweave.apps.web.studio import Studio

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


def test_the_tree_as_html(tiny):
    session = Session(Studio([tiny]))
    assert tree_html(session.tree) == EMPTY
    session.generate(SOURCE, 7, 4)
    mask = ((1.0, 0.0), (0.0, 0.0))
    asked = Form(TARGET, 0.5, 0.25, weights={"dog": 2}, windows={"bike": (0.25, 0.75)}, blend=("dog",), mask=mask)
    session.edit(asked)
    session.go(1)
    session.edit(Form("a photo of a <b>cat riding"))
    session.go(2)
    session.further()
    session.edit(Form("a photo of a big red dog riding a bike"))
    session.go(2)
    page = Outline(tree_html(session.tree, ("tiny", "other")))
    assert page.found == [(0, "1", "1"), (1, "2", "1.1"), (2, "4", "1.1.1"), (1, "3", "1.2")]
    assert page.current == ["2"]
    first, edited, chained, marked = page.said["1"], page.said["2"], page.said["4"], page.said["3"]
    assert "seed 7 · 4 steps · tiny" in first and "edits start here" in first and "on the page" in edited
    told = "cat → dog · dog × 2 · bike from 0.25 until 0.75 · words 0.5 · shapes 0.25 · only dog, the painted region"
    assert told in edited and "+ big red" in chained and "×" not in chained and "<b>cat" in marked


class Outline(HTMLParser):
    """Depth, number and name of each button, which one is current, and what they say; tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[int, str, str]] = []
        self.said: dict[str, str] = {}
        self.current: list[str] = []
        self.number = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "img":
            self.open.append(tag)
        if tag == "button":
            self.number = dict(attrs)["data-number"]
            self.current += [self.number] if "aria-current" in dict(attrs) else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] == "b":
            self.found.append((self.open.count("ul") - 1, self.number, data))
        self.said[self.number] = self.said.get(self.number, "") + data
