"""What the page shows of a session: values for its components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr
from PIL import Image
from torch import Tensor

from promptweave.apps.web import fronts, suggestions
from promptweave.apps.web.asked import Asked
from promptweave.apps.web.choosing import chosen
from promptweave.apps.web.history import strip_html, tree_html
from promptweave.apps.web.layout import DRAFTS
from promptweave.apps.web.offered import EDIT, methods
from promptweave.apps.web.page_errors import page_sentence
from promptweave.apps.web.panel_edit import KEPT, STEP
from promptweave.apps.web.panel_tabs import COLUMNS
from promptweave.apps.web.run_details import details
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import OWN_SIZE, Form, about, asked_of
from promptweave.apps.web.settings import chosen as chosen_inversion
from promptweave.apps.web.tree import Node
from promptweave.apps.web.word_sliders import rows_of, sliders_of
from promptweave.apps.web.words import matched_html, note_html
from promptweave.editing.fitting import told
from promptweave.editing.recipe import Recipe
from promptweave.editing.report import inversion_told, put_back_told

SMALL = {"a", "an", "the", "of", "in", "on", "at", "to", "and", "with"}  # words that get no slider
SHOWN = 512  # pixels: smaller images are enlarged
FIELD = {"self_attention": "self"}  # fields of options that have another name
MOST = 1536  # pixels of the longer side: larger ones are reduced


def large(image: Image.Image, side: int = SHOWN) -> Image.Image:
    """The image, enlarged or reduced for the screen."""
    factor = side / min(image.size)
    if factor < 1:
        factor = min(1.0, MOST / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def numbers(text: str) -> tuple[float, ...]:
    """The values of an axis, from "0, 0.4, 0.8"."""
    from promptweave.apps.forms import series

    found = series(text or "", "An axis")
    if any(not 0 <= value <= 1 for value in found):
        raise ValueError(
            f"The values of an axis are fractions from 0 to 1. Received {text!r}. Write 0, 0.4, 0.8, for example."
        )
    return found


def words(events: Any, session: Session, asked: Asked) -> dict[Any, Any]:
    """The alignment of the prompts, and a slider for each word of the edited one; words keep their values."""
    prompt, target = asked.prompt, asked.target
    try:
        found, both = session.names(target), bool(prompt.strip() and target.strip())
        unknown = suggestions.unknown(session, prompt, target) if both else ()
        match = matched_html(session.matched(prompt, target), unknown) if both else ""
        named = list(dict.fromkeys([*found, *session.names(prompt)]))
        old = rows_of(asked["strengths"])
        windows = usual(events, session, asked, old) if both else {}
    except ValueError as error:
        return {events.session: session, events.parts.match: note_html(page_sentence(error), "error")}
    p, single = events.parts, not session.studio.joint(session.model)
    return {
        events.session: session, p.match: match, p.strengths: sliders_of(telling(found), old, single=single),
        p.blend: choices(named, asked["blend"] or ()), p.subtract: choices(named, asked["subtract"] or ()), **windows,
    }  # fmt: skip


def usual(
    events: Any, session: Session, asked: Asked, old: Mapping[str, Any], *, moved: bool = False
) -> dict[Any, Any]:
    """The strengths that are usual for the kind of edit, on sliders that the visitor has not moved; on all if
    `moved`."""
    at = {"cross": asked["cross"], "self_attention": asked["self"]}
    at = {"joint": asked["joint"]} if session.studio.joint(session.model) else at
    if not moved and any(abs(value - session.usual[name]) > 1e-6 for name, value in at.items()):
        return {}
    weighted = tuple(word for word, row in old.items() if row[0] != 1)
    session.usual = suggestions.strengths(session, asked.prompt, asked.target, asked.steps, weighted)
    return {events.parts.named[FIELD.get(name, name)]: value for name, value in session.usual.items()}


def telling(found: Sequence[str]) -> list[str]:
    """The words without articles and the like, unless there are no others."""
    return [name for name in found if name.partition("#")[0].lower() not in SMALL] or list(found)


def windows(events: Any, session: Session, settings: Form | None = None) -> dict[Any, Any]:
    """The sliders of the model's windows, set to `settings` if given."""
    p, joint = events.parts, session.studio.joint(session.model)
    known = session.studio.inversions(session.model)
    name, tuning = inversion_of(session)
    name, tuning = (name, tuning) if name in known else ("direct", "")

    def at(name: str) -> dict[str, Any]:
        least = STEP if name == "joint" else 0  # its slider has no smaller value
        return {} if settings is None else {"value": max(least, getattr(settings, name))}

    return {
        p.cross: gr.update(visible=not joint, **at("cross")), p.joint: gr.update(visible=joint, **at("joint")),
        p.self: gr.update(visible=not joint, **at("self_attention")), p.kept: KEPT[joint],
        p.selves: gr.update(visible=not joint),
        p.crosses: gr.update(label=COLUMNS[joint]),
        p.inversion: gr.update(choices=known, value=name), p.tuning: tuning, p.about: about(name),
    }  # fmt: skip


def merged(first: Mapping[Any, Any], then: Mapping[Any, Any]) -> dict[Any, Any]:
    """Updates of both; of a component in both, the properties of `then` come second."""
    old, new = ({part: v if _updates(v) else gr.update(value=v) for part, v in one.items()} for one in (first, then))
    return {**first, **then, **{part: {**old[part], **new[part]} for part in first if part in then}}


def _updates(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__type__") == "update"


def inversion_of(session: Session) -> tuple[str, str]:
    """Name and options of the inversion of the image on the page; the default if it was generated."""
    recipe = None if session.tree.base is None else session.base.recipe
    return ("direct", "") if recipe is None or recipe.root.picture is None else chosen_inversion(recipe.inversion)


def size_told(recipe: Recipe) -> str:
    """The size as its field shows it."""
    own = recipe.size is None or recipe.root.picture is not None
    return OWN_SIZE if own else "{} x {}".format(*recipe.size or ())


def alts(session: Session, word: str | None) -> str:
    """What the images of the page show, for those who do not see them; the page's script reads it."""
    node, before = session.shown, session.before()
    said = {
        "picture": f"Image: {node.prompt}", "before": f"Before: {before.prompt}", "after": f"After: {node.prompt}",
        "heat": f"Attention map of {word} in: {node.prompt}" if word else "", "plot": "Plot of the strengths tried",
    }  # fmt: skip
    return "<i " + " ".join(f'data-{name}="{escape(text)}"' for name, text in said.items()) + "></i>"


def choices(found: Sequence[str], chosen: Sequence[str]) -> Any:
    """The words that may be selected for the region."""
    shown = telling(found)
    return gr.update(choices=shown, value=[name for name in chosen if name in shown])


def preview(events: Any, session: Session, latents: Tensor, edit: bool) -> dict[Any, Any]:
    """Show a preview in place of the final image."""
    p = events.parts
    height, width = latents.shape[-2:]
    longest = max(height, width)
    rough = session.studio.preview(session.model).picture(
        latents, (SHOWN * width // longest, SHOWN * height // longest)
    )
    if edit and session.tree.base is not None:
        before = large(session.base.frame)
        pair = (before, rough.resize(before.size))
        return {p.picture: gr.update(visible=False), p.compare: gr.update(value=pair, visible=True)}
    return {p.picture: gr.update(value=rough, visible=True), p.compare: gr.update(visible=False)}


def summary(session: Session) -> str:
    """A sentence about the last run."""
    node = session.shown
    facts = node.result.report.get("picture", {})
    if node.parent is None and "psnr" in facts:  # a source alone is inverted, whatever its edits are
        (first, *more) = inversion_told(facts)
        hint = "".join(f" {line[0].upper()}{line[1:]}." for line in more)
        return (
            f"Inverted in {node.recipe.steps} steps ({told(facts)}). {first[0].upper()}{first[1:]}.{hint} Change words "
            "of the edited prompt."
        )
    if node.parent is None:
        return f"Made with seed {node.recipe.seed} in {node.recipe.steps} steps. Change words of the edited prompt."
    distance = session.distance()
    put = f" {_sentence(put_back_told(facts)[node.row - 1])}" if facts.get("put_back") else ""
    return f"{distance['changed_pixels']:.0%} of the pixels changed.{put} Drag the line in the image to compare."


def _sentence(text: str) -> str:
    """What a report says of the target on the page, as a sentence."""
    text = text.partition(": ")[2]
    return f"{text[0].upper()}{text[1:]}."


def everything(events: Any, session: Session, *, controls: bool = False) -> dict[Any, Any]:
    """Updates for all that depends on the image; with `controls`, also the fields that it was made with."""
    p, node, before = events.parts, session.shown, session.before()
    edited = node is not before
    picture, recipe = session.save(events.outbox.folder(session))
    known = telling(session.names(node.prompt))
    word = session.looked if session.looked in known else None
    new = suggestions.swapped(session)
    changes: dict[Any, Any] = {
        events.session: session,
        p.picture: gr.update(value=large(node.picture), visible=not edited),
        p.compare: gr.update(value=(large(before.picture), large(node.picture)) if edited else None, visible=edited),
        p.look: gr.update(choices=known, value=word),
        p.heat: large(session.heat(word)) if word else None,
        p.history: tree_html(session.tree, session.studio.names),
        p.details: details(session),
        p.alts: alts(session, word),
        p.undo: gr.update(interactive=bool(session.tree.past)),
        p.further: gr.update(interactive=session.tree.base != session.tree.shown),
        p.only: gr.update(visible=bool(new), value=f"Only the swapped words: {', '.join(new)}"),
        p.strip: gr.update(value=(strip := strip_html(session.tree, session.batch)), visible=bool(strip)),
        p.save: gr.update(value=str(picture), interactive=True),
        p.recipe: gr.update(value=str(recipe), interactive=True),
        p.report: gr.update(interactive=True),
    }
    if session.swept is not None:
        rows, columns = session.swept.rows[1], session.swept.columns[1]
        joint = session.swept.columns[0] == "joint"
        cells = [
            (large(cell.edited, 256), f"source {b:g}" if joint else f"words {b:g}, shapes {a:g}")
            for a, line in zip(rows, session.swept.cells, strict=True)
            for b, cell in zip(columns, line, strict=True)
        ]
        changes[p.grid] = gr.update(value=cells, columns=len(columns))
    changes |= fronts.shown(p, session)
    if controls:
        session.filled |= {"prompt": session.base.prompt, "negative": session.base.recipe.negative}
        session.filled |= {} if node.row == 0 and node.recipe.picture is not None else {"target": node.prompt}
    if session.canvas != (canvas := canvas_of(session.base)):  # else what is painted stays
        session.canvas = canvas
        changes[p.mask] = {"background": large(session.base.picture), "layers": [], "composite": None}
    if not controls:
        return changes
    put = fields(events, session)
    session.drafts |= {name: value for name in DRAFTS if (value := _value(put.get(p.named[name]))) is not None}
    return {**changes, **put}


def canvas_of(node: Node) -> Any:
    """What tells the image that a region is painted on from others: an input image stays the same if it is inverted
    once more."""
    picture = None if node.row or node.recipe.controls else node.recipe.picture
    return (picture or node.number, node.picture.size)


def _value(new: Any) -> Any:
    """What an update puts into a component; None for nothing."""
    return new.get("value") if _updates(new) else new


def fields(events: Any, session: Session) -> dict[Any, Any]:
    """The page's fields, set to what the image was made with."""
    p, node, base = events.parts, session.shown, session.base
    recipe, (model, scheduler) = base.recipe, session.studio.parts(session.model)
    source = {
        p.model: model, p.scheduler: gr.update(choices=session.studio.schedulers(model), value=scheduler),
        p.prompt: base.prompt, p.seed: recipe.seed, p.steps: recipe.steps, p.guidance: recipe.guidance,
        p.negative: recipe.negative, p.truncate: recipe.truncate,
        p.size: size_told(recipe),
    }  # fmt: skip
    if node is base and node.recipe.picture is not None:  # keep the edited prompt for an input image
        return {**source, **windows(events, session)}
    method, texts = asked_of(node.recipe, node.row) if node is not base else (EDIT, {})
    plain = node is base or methods()[method].kind is None
    settings = Form(node.prompt) if plain else Form.of(node.recipe, node.row)
    told = None if plain or not node.result.report["strengths"] else node.result.report["strengths"][node.row - 1]
    if told and told["default"]:  # then the next edit may have others
        session.usual = {name: getattr(settings, name) for name in session.usual}
    names = telling(session.names(settings.target))
    values = {n: (settings.weights.get(n, 1), *settings.windows.get(n, (0, 1))) for n in names}
    single = not session.studio.joint(session.model)
    both = list(dict.fromkeys([*session.names(settings.target), *session.names(base.prompt)]))
    found = {
        **source, p.target: settings.target, p.threshold: settings.threshold,
        p.blend: choices(both, settings.blend), p.subtract: choices(both, settings.subtract),
        p.match: matched_html(session.matched(base.prompt, settings.target)),
        p.strengths: sliders_of(names, values, single=single), **windows(events, session, settings),
    }  # fmt: skip
    return merged(found, chosen(p, session, method, texts))
