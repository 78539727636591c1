"""The page's HTTP API: calls are independent; edits of the same source share its recording."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from promptweave.apps.web.applying import applied
from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.presence import gone
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import LISTED, Form
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.uploads import read_upload
from promptweave.apps.web.view import numbers
from promptweave.apps.web.work import sentence
from promptweave.core.clock import Window
from promptweave.core.fields import Listed, options_of
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.plan import recipe_for
from promptweave.editing.recipe import Recipe
from promptweave.editing.result import Result
from promptweave.editing.settings import Settings
from promptweave.editing.values import as_json, numeric, read_options, whole

STEPS = 25
ALONE = ("seed", "steps")  # settings of every call
# Answers have one image. The parameters of the first versions keep their positions; others follow.
OF_IMAGES = ("fit", "keep_original")
MORE = [listed.name for listed in options_of(Settings) if listed.name not in ("images", *ALONE)]
FIRST = ("cross", "self_attention", "weights", "blend", "model", "joint", "image")
EDIT = ["prompt", "target", *ALONE, *FIRST,
        *(listed.name for listed in options_of(PromptToPrompt) if listed.name not in FIRST), *MORE,
        "inversion"]  # fmt: skip
METHOD = ["prompt", "method", "options", "target", *ALONE, "model", "image", *MORE, "inversion"]


def add(studio: Studio, outbox: Outbox) -> None:
    """Attach /generate, /edit, /method, /words, /maps and /sweep."""
    calls = Calls(studio, outbox)
    with gr.Group(visible=False):
        prompt, target = gr.Textbox(label="prompt"), gr.Textbox(label="target")
        seed, steps = gr.Number(0, precision=0, label="seed"), gr.Number(STEPS, precision=0, label="steps")
        model, image = gr.Textbox(studio.names[0], label="model"), gr.File(label="image", type="filepath")
        crosses, selves = gr.Textbox("0, 0.4, 0.8", label="crosses"), gr.Textbox("0, 0.4", label="selves")
        word, picture, data = gr.Textbox(label="word"), gr.File(label="picture"), gr.JSON(label="data")
        parts: dict[str, Any] = {
            "prompt": prompt, "target": target, "seed": seed, "steps": steps, "model": model, "image": image
        }  # fmt: skip
        parts["inversion"] = gr.Textbox(label="inversion", info="NAME[:OPTION=VALUE,...] of the image's inversion.")
        parts |= {name: field(LISTED[name]) for name in EDIT if name not in parts}
        run: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        names = ["prompt", *ALONE, "model", *(name for name in MORE if name not in OF_IMAGES)]
        made = [parts[name] for name in names]
        gr.Button().click(named(calls.generate, names), made, [picture, data], api_name="generate", **run)
        edited = [parts[name] for name in EDIT]
        gr.Button().click(named(calls.edit, EDIT), edited, [picture, data], api_name="edit", **run)
        named_as, fields = gr.Textbox(label="method"), gr.JSON(label="options")
        parts |= {"method": named_as, "options": fields}
        used = [parts[name] for name in METHOD]
        gr.Button().click(named(calls.method, METHOD), used, [picture, data], api_name="method", **run)
        gr.Button().click(calls.words, [prompt, target, model], data, api_name="words", queue=False)
        gr.Button().click(calls.maps, [prompt, word, seed, steps, model], picture, api_name="maps", **run)
        swept = [prompt, target, crosses, selves, seed, steps, model]
        gr.Button().click(calls.sweep, swept, picture, api_name="sweep", **run)


def field(listed: Listed) -> Any:
    """The input component of an option, empty, so that the option may be left out."""
    if listed.type is bool:
        return gr.Checkbox(label=listed.name, info=listed.option.help)
    if get_origin(listed.type) is Literal:
        return gr.Dropdown(list(get_args(listed.type)), value=None, label=listed.name, info=listed.option.help)
    if numeric(listed) and not _spans(listed):
        return gr.Number(label=listed.name, precision=0 if whole(listed) else None, info=listed.option.help)
    if str in get_args(listed.type) and type(None) in get_args(listed.type):
        return gr.Textbox(label=listed.name, info=listed.option.help)
    return gr.JSON(label=listed.name)


def named(call: Callable[[Mapping[str, Any]], Any], names: Sequence[str]) -> Callable[..., Any]:
    """Wrap a function of a mapping as one of named parameters, all optional but the first."""

    def act(*given: Any) -> Any:
        return call(dict(zip(names, given, strict=True)))

    first = [name for name in names if name in ("prompt", "method") or (name == "target" and "method" not in names)]
    parameters = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, **({} if name in first else {"default": None}))
        for name in names
    ]
    act.__doc__ = call.__doc__
    setattr(act, "__signature__", Signature(parameters))  # noqa: B010 - functions have no such attribute
    return act


class Calls:
    """The functions behind the endpoints."""

    def __init__(self, studio: Studio, outbox: Outbox) -> None:
        self.studio, self.outbox = studio, outbox

    def generate(self, given: Mapping[str, Any]) -> tuple[str, Any]:
        """An image as a PNG that carries its recipe, and its record."""

        def act(session: Session) -> tuple[str, Any]:
            more = Settings(**_given(Settings, given, ALONE))
            session.generate(str(given["prompt"]), *self._seed_and_steps(given), more=more)
            return self._saved(session)

        return self._run(act, given["model"])

    def edit(self, given: Mapping[str, Any]) -> tuple[str, Any]:
        """The image of `prompt` edited into `target`, with the options of `promptweave.edit`.

        A default value counts as not given, since positions in a list cannot be left out. `image`: an input image that
        `prompt` describes, edited instead of a generated one.
        """

        def act(session: Session) -> tuple[str, Any]:
            recipe, options, watch = self._source(session, given), _given(PromptToPrompt, given), session.progress()
            with self.studio.lock:
                result = self.studio.edited(session.model, recipe, 0, str(given["target"]), options, watch)
            return self._file(result, "edit.png")

        return self._run(act, given["model"])

    def method(self, given: Mapping[str, Any]) -> tuple[str, Any]:
        """The image of `prompt` under a method with a command of its own, such as "attend"; of several, the first.

        `options`: the command's, by their names in Python: {"words": ["cat", "car"], "share": 0.4}. `target`: the
        edited prompt, for methods that read it.
        """

        def act(session: Session) -> tuple[str, Any]:
            method, options, target = str(given["method"]), given["options"] or {}, str(given["target"] or "")
            if not isinstance(options, Mapping):
                raise ValueError(f"options are a JSON object, such as {{}}. Received {options!r:.40}.")
            recipe, watch = self._source(session, given), session.progress()
            with self.studio.lock:
                result = applied(self.studio, session.model, recipe, 0, method, target, options, watch)
            return self._file(result, f"{method}.png")

        return self._run(act, given["model"])

    def _source(self, session: Session, given: Mapping[str, Any]) -> Recipe:
        """The recipe of the source: an input image, or one that is generated."""
        file, network = given["image"], self.studio.network(session.model)
        picture = None if file is None else read_upload(file, self.studio.limits).opened
        seed, steps = self._seed_and_steps(given)
        prompt, settings = self.studio.limits.text(str(given["prompt"])), _given(Settings, given, ALONE)
        return recipe_for(
            network, prompt, (), Settings(**settings), image=picture, seed=seed, steps=steps,
            inversion=given["inversion"] or None,
        )  # fmt: skip

    def _file(self, result: Result, name: str) -> tuple[str, Any]:
        """The first edit of a run, or its only image, as a PNG, and the run's record."""
        path = self.outbox.folder() / name
        result.save_picture(path, min(1, len(result.recipe.targets)), 0)
        return str(path), _plain(result.record)

    def _seed_and_steps(self, given: Mapping[str, Any]) -> tuple[int, int]:
        return int(given["seed"] or 0), STEPS if given["steps"] is None else int(given["steps"])

    def words(self, prompt: Any, target: Any, model: Any) -> Any:
        """The alignment of the prompts: {"kind": ..., "pairs": [...]}."""
        return self._try(lambda: Session(self.studio, model).matched(str(prompt), str(target)))  # too light to wait

    def maps(self, prompt: Any, word: Any, seed: Any, steps: Any, model: Any) -> str:
        """The image of a prompt with the map of one of its words drawn over it."""

        def act(session: Session) -> str:
            session.generate(str(prompt), *self._seed_and_steps({"seed": seed, "steps": steps}))
            path = self.outbox.folder() / "map.png"
            session.heat(str(word)).save(path)
            return str(path)

        return self._run(act, model)

    def sweep(self, prompt: Any, target: Any, crosses: Any, selves: Any, seed: Any, steps: Any, model: Any) -> str:
        """A sheet of edits over two windows, given as "0, 0.4, 0.8"."""

        def act(session: Session) -> str:
            columns, rows = numbers(crosses), numbers(selves)
            session.room(columns, rows)
            session.generate(str(prompt), *self._seed_and_steps({"seed": seed, "steps": steps}))
            made = session.sweep(Form(str(target)), columns, rows)
            path = self.outbox.folder() / "sweep.png"
            made.sheet().save(path)
            return str(path)

        return self._run(act, model)

    def _saved(self, session: Session) -> tuple[str, Any]:
        picture, _ = session.save(self.outbox.folder())
        return str(picture), _plain(session.shown.result.record)

    def _run(self, act: Callable[[Session], Any], model: Any) -> Any:
        """Do it in the thread of all runs; it ends at its next step if the caller leaves."""
        left = gone()
        return self._try(
            lambda: self.studio.begin(lambda: act(Session(self.studio, model, left, passing=True))).result()
        )

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from None


def _spans(listed: Listed) -> bool:
    return Window in get_args(listed.type)


def _given(kind: type, values: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a dataclass among the values, without empty and default ones."""
    found: dict[str, Any] = {}
    for listed in options_of(kind):
        value = values.get(listed.name)
        empty = value is None or (isinstance(value, str | list | tuple | dict) and not value)
        if listed.name not in without and not empty and value != listed.default:
            found[listed.name] = value
    return read_options(kind, found)


def _plain(record: Any) -> Any:
    """The record after a round trip through JSON."""
    return json.loads(as_json(record))
