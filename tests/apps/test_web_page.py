"""What the page's own Python decides: keys of sessions, who waits, suggestions, and errors in its words."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from promptweave.apps.web import suggestions
from promptweave.apps.web.asked import Asked
from promptweave.apps.web.history import strip_html
from promptweave.apps.web.keeper import Keeper
from promptweave.apps.web.limits import Limits, TooMuch
from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.page_errors import for_page
from promptweave.apps.web.presence import Presence
from promptweave.apps.web.presets import EXAMPLES
from promptweave.apps.web.run_details import details, in_words
from promptweave.apps.web.session import Session
from promptweave.apps.web.session_keys import SessionKeys
from promptweave.apps.web.settings import OWN_SIZE, Form
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.view import canvas_of
from promptweave.apps.web.waiting import NETWORK, Waiting, said
from promptweave.apps.web.word_sliders import read_words, sliders_of
from promptweave.apps.web.words import matched_html
from promptweave.apps.web.world_words import KNOWN, offered, unknown_words
from promptweave.editing.settings import Settings
from promptweave.models.load import load_cached
from promptweave.world.scene import ANIMALS, RIDES

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


@pytest.fixture()
def session(tiny) -> Session:
    return Session(Studio([tiny]))


def test_a_session_is_found_by_its_key_while_it_is_kept(tiny):
    studio, keys = Studio([tiny]), SessionKeys()
    one, other = Session(studio), Session(studio)
    key = keys.key(one, "ada")
    assert keys.key(one, "ada") == key and len(key) >= 43  # 256 bits
    assert keys.key(other) != key and keys.find(key, "ada") is one
    for wrong in (key[:-1], key + "a", "", None, ["a"], {"key": key}):
        assert keys.find(wrong, "ada") is None
    assert keys.find(key) is None and keys.find(key, "bob") is None  # another account's
    del one
    gc.collect()
    assert keys.find(key, "ada") is None and len(keys) == 1


def test_a_page_that_was_loaded_anew_goes_on_when_its_first_visit_is_freed(session):
    visits = {name: SimpleNamespace(state_data={1: session}) for name in ("before", "after")}
    holder = SimpleNamespace(session_data=visits, time_last_used={})
    keeper = Keeper(SimpleNamespace(state_holder=holder), session.studio, Outbox(), Presence())
    keeper.free("before")
    assert not session.stop.is_set() and set(visits) == {"after"}
    keeper.free("after")
    assert session.stop.is_set()


def test_who_waits_is_told_the_place_and_may_give_up(session):
    def event(number: str, visitor: str) -> SimpleNamespace:
        return SimpleNamespace(_id=number, session_hash=visitor, concurrency_id=NETWORK, alive=True)

    queue = SimpleNamespace(
        event_queue_per_concurrency_id={NETWORK: SimpleNamespace(queue=[event("b", "bob"), event("c", "eve")])},
        active_jobs=[None, [event("a", "ada")]],
    )
    parts = SimpleNamespace(status="status", clock="clock", stop="stop")
    waiting = Waiting(page := gr.Blocks(), parts)
    page._queue = queue  # type: ignore[assignment]

    def told(visitor: str) -> dict:
        return waiting.tick(gr.Request(session_hash=visitor))

    assert "2 runs come before yours" in told("eve")["status"] and "1 run comes" in told("bob")["status"]
    assert "status" not in told("ada") and "stop" not in told("ada")  # it runs: its progress is shown
    assert told("dan")["stop"]["interactive"] is False and told("dan")["clock"].active is False
    assert said(0) == "Waiting: yours is the next run."
    assert waiting.give_up(session, "eve") and session.skipped == {"c"}
    assert "status" not in told("eve")  # which would replace that it was stopped
    assert not waiting.give_up(session, "ada") and session.skipped == {"c"}
    begun = waiting.begin(gr.Request(session_hash="dan"))
    assert begun["stop"]["interactive"] is True and isinstance(begun["clock"], gr.Timer)
    assert "3 runs come before yours" in begun["status"]  # at once, not at the clock's first tick
    queue.event_queue_per_concurrency_id[NETWORK].queue.clear()
    assert "status" not in waiting.begin(gr.Request(session_hash="ada"))  # none but her own run


def test_the_sliders_of_words_are_as_many_as_the_words_and_read_with_care():
    names = [f"word{number}" for number in range(120)]
    value = sliders_of(names, {"word7": (2, 0.25, 1)}, single=True)
    strengths, windows = read_words(value)
    assert len(strengths) == 120 and strengths["word7"] == 2 and windows == {"word7": (0.25, 1)}
    assert read_words(None) == ({}, {}) and read_words("text") == ({}, {})
    for row in (["a", 9, 0, 1], ["a", True, 0, 1], ["a", float("nan"), 0, 1], ["a", 1], [3, 1, 0, 1], "a"):
        with pytest.raises(ValueError, match="Reload the page"):
            read_words({"words": [row]})


def test_words_that_the_world_does_not_know_are_found_and_others_offered(tiny):
    toybox, tiny_words = load_cached("toybox"), "a photo of a cat riding a bike"
    source, target = toybox.words(tiny_words), toybox.words("a photo of a giraffe riding a purple bicycle")
    found = {one.word: one for one in unknown_words(toybox, source, target)}
    assert set(found) == {"giraffe", "purple"}
    assert set(found["giraffe"].known) <= set(ANIMALS) - {"cat"} and found["giraffe"].known
    assert set(found["purple"].known) <= {"red", "yellow", "green", "blue"}
    assert offered("squirel")[0] == "squirrel" and offered("motorbyke", "bike")[0] == "motorbike"
    assert set(offered("tractor", "car")) <= set(RIDES) and "sketch" not in offered("tractor", "car")
    html = matched_html({"kind": "replace", "pairs": [{"kind": "swapped", "source": "cat", "target": "giraffe"}]},
                        list(found.values()))  # fmt: skip
    assert "pw-unknown" in html and 'data-from="giraffe" data-to="dog"' in html
    for example in EXAMPLES.values():  # the page's own examples are of words that the models know
        assert {word.lower() for word in f"{example.source} {example.target}".split()} <= KNOWN
    assert (
        unknown_words(tiny, tiny.words("a giraffe"), tiny.words("a whale")) == []
    )  # of other models, nothing is known


def test_a_photo_whose_edit_changed_most_of_it_is_offered_the_new_words(session):
    photo = Image.effect_noise((32, 32), 60).convert("RGB")
    base = session.bring(photo, SOURCE, 0, 2)
    node = session.edit(Form(TARGET, 0, 0))  # with no control at all
    assert not node.recipe.controls and Form.of(node.recipe).cross == Form.of(node.recipe).self_attention == 0
    assert node.result.report["distance"][0][0]["changed_pixels"] > suggestions.MUCH
    assert suggestions.swapped(session) == ("dog",)
    session.edit(Form(TARGET, 0, 0, blend=("dog",)))
    assert suggestions.swapped(session) == ()  # it is restricted already
    again, made = session.bring(photo, SOURCE, 0, 1), session.generate(SOURCE, 0, 2)
    assert canvas_of(base) == canvas_of(again)  # what was painted on it stays
    assert len({canvas_of(one) for one in (base, node, made)}) == 3
    session.edit(Form(TARGET, 0, 0))
    assert suggestions.swapped(session) == ()  # no photo


def test_several_images_have_seeds_one_after_the_other(session):
    first = session.several(SOURCE, 5, 3, 2, None, Settings(guidance=3, negative="a bus", size=(16, 32)))
    nodes = [session.tree.nodes[number] for number in session.batch]
    assert [node.recipe.seed for node in nodes] == [5, 6, 7] and session.shown is first is nodes[0]
    assert {(node.recipe.guidance, node.recipe.negative, node.recipe.size) for node in nodes} == {
        (3, "a bus", (16, 32))
    }
    strip = strip_html(session.tree, session.batch)
    assert strip.count("<button") == 3 and 'alt="Image with seed 6"' in strip and strip.count("aria-current") == 1
    assert strip_html(session.tree, session.batch[:1]) == ""
    with pytest.raises(TooMuch, match="1 to 4 images"):
        session.several(SOURCE, 0, 5, 2)


def test_a_scheduler_is_chosen_and_found_again(tiny):
    studio = Studio([tiny])
    name = studio.variant("tiny", "euler")
    assert studio.variant("tiny", "ddim") == "tiny" == studio.variant(name, None) and studio.names == ("tiny",)
    assert studio.parts(name) == ("tiny", "euler") and "euler" in studio.schedulers("tiny")
    session = Session(studio, name)
    node = session.generate(SOURCE, 0, 2)
    assert node.recipe.scheduler == "euler" and studio.named(node.recipe) == name
    plain = Session(studio).generate(SOURCE, 0, 2)
    assert tiny.scheduler == "ddim" and not np.array_equal(plain.pixels, node.pixels)
    assert "scheduler euler" in details(session)


def test_the_fields_of_the_source_are_read():
    values = {
        "guidance": 3.5,
        "size": "96 × 128",
        "negative": " a bus ",
        "truncate": True,
        "shape": "crop",
        "keep": True,
    }
    settings = Asked(values).settings
    assert (settings.guidance, settings.size, settings.negative, settings.truncate) == (3.5, (96, 128), "a bus", True)
    assert Asked({**values, "size": OWN_SIZE}).size is None and Asked({**values, "size": "64"}).size == (64, 64)
    opened = Asked(values).of_upload
    assert opened.size == (96, 128) and opened.keep_original and opened.negative == "a bus"
    with pytest.raises(ValueError, match="The size"):
        _ = Asked({**values, "size": "wide"}).size
    with pytest.raises(ValueError, match="keeps its shape has a size of its own"):
        _ = Asked({**values, "shape": "auto"}).of_upload


def test_errors_speak_of_the_fields_of_the_page(tiny):
    with pytest.raises(ValueError) as caught:
        Session(Studio([tiny], limits=Limits())).generate("a cat " * 60, 0, 2)
    text = for_page(str(caught.value))
    assert text.endswith('or check "Cut prompts that are too long".') and "--" not in text and "truncate=" not in text
    assert for_page("Give image=... (--image), or a mask.") == "Open an image, or a mask."
    assert "Choose the scheduler ddim" in for_page('Load the model with scheduler="ddim" (--scheduler ddim).')
    assert "--" not in for_page("Received 3 (--blend). Leave out --self-attention.") and for_page("A cat.") == "A cat."


def test_details_are_for_people(session):
    session.generate(SOURCE, 0, 4)
    session.edit(Form(TARGET, 0.5, 0.25, weights={"dog": 2, "bike": 0.5}, blend=("dog",)))
    text = details(session)
    assert not any(mark in text for mark in "{}[]'") and "Words swapped" in text and "dog 2, bike 0.5" in text
    assert "cross attention in 2 of 4 steps" in text and "the region covers" in text
    assert in_words({"cat": [0.2, 0.8], "all": True}) == "cat 0.2, 0.8, all yes"
