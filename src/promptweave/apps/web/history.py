"""The tree of a visitor's images as HTML buttons, each below the image that it was edited from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from operator import itemgetter

from promptweave.apps.web.offered import EDIT, methods
from promptweave.apps.web.settings import Form, asked_of, told
from promptweave.apps.web.tree import Node, Tree

EMPTY = '<p class="pw-hint">There is no image yet.</p>'
HINT = '<p class="pw-hint">Choose an image to go back to it. 1.2 is the second edit of 1.</p>'
SCRIPT = """
let chosen = null;
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-number]');
  if (!button) return;
  chosen = button.dataset.number;
  trigger('select', {number: Number(chosen)});
});
watch('value', () => {
  if (chosen === null) return;
  element.querySelector(`button[data-number="${chosen}"]`)?.focus({preventScroll: true});
  chosen = null;
});
"""  # the tree is redrawn after a choice: keep the keyboard focus


def changed(node: Node) -> list[str]:
    """What an edit changed, and its settings that are not defaults; for a generated image, its seed."""
    recipe, row = node.recipe, node.row
    if node.parent is None:
        return ["your picture" if recipe.picture else f"seed {recipe.seed}", f"{recipe.steps} steps"]
    found: list[str] = []
    for kind, pairs in groupby(node.result.report["alignment"][row - 1] if row else [], itemgetter("kind")):
        run = list(pairs)
        if kind == "swapped":
            found += [f"{pair['source']} → {pair['target']}" for pair in run]
        elif kind != "kept":
            sign, side = ("+", "target") if kind == "added" else ("−", "source")
            found.append(f"{sign} {' '.join(pair[side] for pair in run)}")
    method, values = asked_of(recipe, row)
    found += [method] if method != EDIT else []
    found += [f"{name} {value}" for name, value in told(method, values)]
    if methods()[method].kind is None:
        return found
    settings, usual = Form.of(recipe, row), Form(node.prompt)
    found += [f"{word} × {factor:g}" for word, factor in settings.weights.items()]
    found += [f"{word} from {start:g} until {end:g}" for word, (start, end) in settings.windows.items()]
    for name, label in (("cross", "words"), ("self_attention", "shapes"), ("joint", "source"), ("threshold", "edge")):
        value = getattr(settings, name)
        found += [f"{label} {value:g}"] if method == EDIT and value != getattr(usual, name) else []
    region = [*settings.blend, *(["the painted region"] if settings.mask else [])]
    return found + ([f"only {', '.join(region)}"] if region else [])


def tree_html(tree: Tree, models: Sequence[str] = ()) -> str:
    """The tree as nested lists; with several `models`, generated images show theirs."""
    if not tree.nodes:
        return EMPTY
    names = {node.number: name for name, node in tree.ordered()}

    def branch(parent: int | None) -> str:
        children = [node for node in tree.nodes.values() if node.parent == parent]
        items = "".join(f"<li>{_button(tree, node, names[node.number], models)}{branch(node.number)}</li>"
                        for node in children)  # fmt: skip
        return f"<ul>{items}</ul>" if items else ""

    return f'{HINT}<nav class="pw-tree" aria-label="History">{branch(None)}</nav>'


def strip_html(tree: Tree, numbers: Sequence[int]) -> str:
    """The images of a run of several as buttons; none for a single one."""
    nodes = [tree.nodes[number] for number in numbers if number in tree.nodes]
    if len(nodes) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" data-number="{node.number}"{" aria-current=true" if node.number == tree.shown else ""}>'
        f'<img alt="Image with seed {node.recipe.seed}" src="{node.thumbnail}"></button>'
        for node in nodes
    )
    return f'<nav class="pw-strip" aria-label="Images of this run">{buttons}</nav>'


def _button(tree: Tree, node: Node, name: str, models: Sequence[str]) -> str:
    facts = [*changed(node), *([node.model] if node.parent is None and len(models) > 1 else [])]
    shown, base = node.number == tree.shown, node.number == tree.base
    marks = ["on the page"] if shown else []
    marks += ["edits start here"] if base else []
    said = "".join(f"<mark>{mark}</mark>" for mark in marks)
    current = ' aria-current="true"' if shown else ""
    return (
        f'<button type="button" data-number="{node.number}"{current}><img alt="" src="{node.thumbnail}">'
        f"<span><b>{name}</b><span dir=auto>{escape(' · '.join(facts))}</span>{said}"
        f"<small dir=auto>{escape(node.prompt)}</small></span>"
        "</button>"
    )
