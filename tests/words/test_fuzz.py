"""Any prompt and any selector, factor and window: an answer, or an error of ours that says what was received.

`PROMPTWEAVE_FUZZ=10000` tries as many prompts; the suite tries a few of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import bert_tokenizer, t5_tokenizer
from transformers import CLIPTokenizer

import promptweave as pw
from promptweave.core.clock import Window
from promptweave.editing.plan import listed_controls
from promptweave.models.unet import UNetModel
from promptweave.words import (
    Words,
    alignment,
    counterparts,
    refine_map,
    replace_map,
    suggest,
    word_weights,
    word_windows,
)  # fmt: skip
from promptweave.words.chunks import in_chunks

COUNT = int(os.environ.get("PROMPTWEAVE_FUZZ", "200"))
LIMIT = 77  # tokens that a model reads
PIECES = (
    "a", "cat", "Dog", "don't", "t-shirt", "1.5", "猫", "草地", "カメラ", "แมวนั่ง", "고양이가", "قطة", "חתול", "हिन्दी",
    "🐱", "👩\u200d🚀", "🇩🇪", "\u200b", "\u00a0", "\u3000", "“x”", "«chat»", "e\u0301", "ß", "İ", "ﬁ", "#2", "cat#2",
    "<|endoftext|>", "</s>", "[SEP]", "[UNK]", "<unk>", "\ufeff", "\u202e", "\x00", "\n", "，", "。", "!!!", "(", "[",
    "]", ":", "\\", "_", "-", "’", "Ａ", "\U00012000", "\ufdfa", "\u0300", "ᄀ", "ᅡ", "\ud800",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    0, 1, -1, 10**400, -(10**400), 10**5000, 1e300, -1e300, float("nan"), float("inf"), 0.5, 1.5, 1j, True, None, b"x",
    "", "x", (), (1,), (0, 1), (1, 0), (0, 2, 3), (0, "x"), (None, 1), (0.0, 1.0), (True, False), (10**5000, 1), [0, 1],
    [0.2, 0.8], {}, {"a": 1}, object(), float, len, range(2), "9" * 5000, "cat#" + "9" * 5000, np.int64(1),
    np.float32(0.5), np.float64("nan"), np.bool_(True), np.array([0, 1]), torch.tensor(1.0), torch.tensor([1, 2]),
    Window(0, 0.5),
)  # fmt: skip


def text(draw: random.Random) -> str:
    count = draw.choice([0, 1, 2, 3, 5, 8, 20, 60])
    pieces = [draw.choice(PIECES) if draw.random() < 0.9 else chr(draw.randrange(32, 0x30000)) for _ in range(count)]
    return draw.choice([" ", "", " "]).join(pieces)


def selector(draw: random.Random, prompt: str) -> Any:
    kind = draw.random()
    if kind < 0.3 and prompt:
        start = draw.randrange(len(prompt))
        return prompt[start : start + draw.randrange(1, 12)]
    if kind < 0.5:
        return draw.randrange(-3, 40), draw.randrange(-3, 40)
    return value(draw)


def value(draw: random.Random) -> Any:
    return draw.choice(VALUES) if draw.random() < 0.7 else text(draw)


def word(draw: random.Random, prompt: str) -> Any:
    """A selector that can be a key."""
    made = selector(draw, prompt)
    return made if made.__hash__ is not None else str(type(made))


def tried(outcomes: Counter[str], name: str, call: Callable[[], Any]) -> Any:
    """The answer; None after an error of ours. Any other exception fails the test."""
    try:
        made = call()
    except ValueError as error:
        assert "Received" in str(error) or type(error).__module__.startswith("promptweave"), (name, str(error))
        outcomes[f"{name} refused"] += 1
        return None
    outcomes[name] += 1
    return made


def pair(draw: random.Random, outcomes: Counter[str], tokenizer: Any, other: Any) -> None:
    """Two prompts, and everything that is asked of them."""
    source, target = (tried(outcomes, "words", lambda: Words(text(draw), tokenizer, at_most=LIMIT)) for _ in range(2))
    if source is None or target is None:
        return
    one = selector(draw, source.prompt)
    found = tried(outcomes, "find", lambda: source.find(one))
    assert found is None or all(0 <= token < source.limit for token in found)
    tried(outcomes, "weights", lambda: word_weights(source, {word(draw, source.prompt): value(draw)}))
    tried(outcomes, "weights", lambda: word_weights(source, value(draw)))
    windows = {word(draw, source.prompt): value(draw), "default": value(draw)}
    tried(outcomes, "windows", lambda: word_windows([source, target], windows, 4))
    tried(outcomes, "windows", lambda: word_windows([source, target], value(draw), 4))
    tried(outcomes, "window", lambda: Window.of(value(draw)))
    tried(outcomes, "replace", lambda: replace_map(source, target))
    tried(outcomes, "replace", lambda: replace_map(source, target, reference_compat=True))
    tried(outcomes, "refine", lambda: refine_map(source, target))
    tried(outcomes, "refine", lambda: refine_map(source, target, reference_compat=True))
    rows = [token for row in alignment(source, target) for token in row.source_tokens]
    assert rows == [token for unit in source.units for token in unit.tokens], "every token has its place in the table"
    assert suggest(source, target) in ("replace", "refine", "same")
    if isinstance(one, str):
        tried(outcomes, "counterparts", lambda: counterparts(one, source, target))
    both = source.beside(Words(source.prompt, other, at_most=LIMIT))
    tried(outcomes, "both", lambda: both.find(one))
    if isinstance(tokenizer, CLIPTokenizer):
        longer = tried(outcomes, "chunks", lambda: in_chunks(source, tokenizer, 75, 1 + LIMIT // 75).find(one))
        assert (longer is None) == (found is None)


def test_any_prompt_selector_factor_and_window(clip_tokenizer: CLIPTokenizer) -> None:
    draw, outcomes = random.Random(0), Counter[str]()
    tokenizers = (clip_tokenizer, bert_tokenizer(), t5_tokenizer())
    for number in range(COUNT // 2):
        pair(draw, outcomes, tokenizers[number % 3], tokenizers[draw.randrange(3)])
    assert outcomes["find"] > COUNT / 40 and outcomes["find refused"] > COUNT / 20, "both ends are met"
    assert outcomes["refine"] > COUNT / 5 and outcomes["window"] and outcomes["weights refused"]


def test_a_factor_that_no_precision_holds_is_refused_where_it_is_given(tiny: UNetModel) -> None:
    prompts = ("a cat rides a bike", "a dog rides a bike")
    with pytest.raises(ValueError, match="weights must be .* at most 10000. Received {'dog': 1e\\+300}"):
        pw.edit(*prompts, model=tiny, steps=1, weights={"dog": 1e300})
    with pytest.raises(ValueError, match="factor of 'dog' must be a finite number from -10000 to 10000"):
        pw.edit(*prompts, model=tiny, steps=1, controls=[pw.Reweight({"dog": 1e300})])
    with pytest.raises(ValueError, match="controls are a list of controls"):
        listed_controls([tiny])
    for window in ((np.float32(0.5), 1e300), (0.5, 10**400), ("x", 1), (None, 0.5)):
        with pytest.raises(ValueError, match="A window"):
            Window.of(window)
