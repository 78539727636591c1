"""A CLIP tokenizer learnt here: byte-level pieces, so that any text can be spelt, and the words of a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from promptweave.words import Words

SENTENCES = [
    "a photo of a cat riding a bike", "a squirrel eats a burger", "a red car, a blue sky and a black dog",
    "soup with pea croutons", "the mirror of a castle", "children drawing of a landscape",
]  # fmt: skip
START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="session")
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own normaliser and pre-tokenizer over a small vocabulary; 77 tokens."""
    blank = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=700, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(SENTENCES, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


@pytest.fixture(scope="session")
def read(clip_tokenizer: CLIPTokenizer) -> Callable[[str], Words]:
    """Words of a prompt."""
    return lambda prompt: Words(prompt, clip_tokenizer)
