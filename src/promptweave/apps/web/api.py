"""The page's HTTP API: every call stands alone, and edits of the same source share its recording."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Settings
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.uploads import read_upload
from promptweave.apps.web.view import numbers
from promptweave.apps.web.work import sentence
from promptweave.editing.plan import recipe_for


def add(studio: Studio) -> None:
    """Attach /generate, /edit, /words, /maps and /sweep."""
    calls = Calls(studio)
    with gr.Group(visible=False):
        prompt, target = gr.Textbox(label="prompt"), gr.Textbox(label="target")
        seed, steps = gr.Number(0, precision=0, label="seed"), gr.Number(25, precision=0, label="steps")
        cross, kept = gr.Number(0.8, label="cross"), gr.Number(0.4, label="self_attention")
        weights, blend = gr.JSON({}, label="weights"), gr.JSON([], label="blend")
        model, joint = gr.Textbox(studio.names[0], label="model"), gr.Number(0.2, label="joint")
        crosses, selves = gr.Textbox("0, 0.4, 0.8", label="crosses"), gr.Textbox("0, 0.4", label="selves")
        word, picture, data = gr.Textbox(label="word"), gr.File(label="picture"), gr.JSON(label="data")
        run: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        made = [prompt, seed, steps, model]
        options = [cross, kept, weights, blend]
        gr.Button().click(calls.generate, made, [picture, data], api_name="generate", **run)
        image = gr.File(label="image", type="filepath")
        edit = [prompt, target, seed, steps, *options, model, joint, image]
        gr.Button().click(calls.edit, edit, [picture, data], api_name="edit", **run)
        gr.Button().click(calls.words, [prompt, target, model], data, api_name="words", queue=False)
        gr.Button().click(calls.maps, [prompt, word, seed, steps, model], picture, api_name="maps", **run)
        swept = [prompt, target, crosses, selves, seed, steps, model]
        gr.Button().click(calls.sweep, swept, picture, api_name="sweep", **run)


class Calls:
    """The functions behind the names."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.outbox = studio, Outbox()

    def generate(self, prompt: Any, seed: Any, steps: Any, model: Any) -> tuple[str, Any]:
        """A picture as a PNG that carries its recipe, and the record of its making."""
        return self._try(lambda: self._saved(self._source(prompt, seed, steps, model)))

    def edit(
        self, prompt: Any, target: Any, seed: Any, steps: Any, cross: Any, self_attention: Any, weights: Any,
        blend: Any, model: Any, joint: Any, image: Any = None,
    ) -> tuple[str, Any]:  # fmt: skip
        """The picture of `prompt` edited to show `target`; `weights` is {word: factor}, `blend` a list of words.

        `joint` is the window of models with joint attention, which heed no other. `image`: a picture that `prompt`
        describes, which is edited instead of one that is made.
        """

        def act() -> tuple[str, Any]:
            given = None if image is None else read_upload(image, self.studio.limits).picture
            network = self.studio.network(model)
            recipe = recipe_for(network, str(prompt), seed=int(seed), steps=int(steps), image=given)
            chosen = weights or {}, {}, tuple(blend or ())
            settings = Settings(str(target), cross, self_attention, joint, *chosen)
            with self.studio.lock:
                result = self.studio.edited(model, recipe, 0, settings.target, settings.options())
            path = self.outbox.folder() / "edit.png"
            result.save_picture(path, 1, 0)
            return str(path), _plain(result.record)

        return self._try(act)

    def words(self, prompt: Any, target: Any, model: Any) -> Any:
        """What becomes of each word: {"kind": ..., "pairs": [...]}."""
        return self._try(lambda: Session(self.studio, model).matched(str(prompt), str(target)))

    def maps(self, prompt: Any, word: Any, seed: Any, steps: Any, model: Any) -> str:
        """The picture of a prompt under the map of one of its words."""

        def act() -> str:
            path = self.outbox.folder() / "map.png"
            self._source(prompt, seed, steps, model).heat(str(word)).save(path)
            return str(path)

        return self._try(act)

    def sweep(self, prompt: Any, target: Any, crosses: Any, selves: Any, seed: Any, steps: Any, model: Any) -> str:
        """A sheet of the edit over two windows, given as "0, 0.4, 0.8"."""

        def act() -> str:
            path = self.outbox.folder() / "sweep.png"
            session = self._source(prompt, seed, steps, model)
            session.sweep(Settings(str(target)), numbers(crosses), numbers(selves)).sheet().save(path)
            return str(path)

        return self._try(act)

    def _source(self, prompt: Any, seed: Any, steps: Any, model: Any) -> Session:
        session = Session(self.studio, model)
        session.generate(str(prompt), int(seed), int(steps))
        return session

    def _saved(self, session: Session) -> tuple[str, Any]:
        picture, _ = session.save(self.outbox.folder())
        return str(picture), _plain(session.shown.result.record)

    def _try(self, act: Any) -> Any:
        try:
            return act()
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from None


def _plain(record: Any) -> Any:
    """As it reads after a journey as JSON."""
    return json.loads(json.dumps(record))
