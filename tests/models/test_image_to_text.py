"""Captions: by the oracle of the world for what it drew, else by an image-to-text model that is on this machine."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.models.image_to_text import NoCaptioner, cached
from promptweave.perception.captioning import captioned
from promptweave.world.caption import caption as caption_of_scene
from promptweave.world.render import render
from promptweave.world.scene import random_scene

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "cat", "dog", "on", "grass", "the", "red"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner") / "blip"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0, "sep_token_id": 3}
    text = BlipTextConfig(
        vocab_size=len(WORDS), encoder_hidden_size=16, projection_dim=16, max_position_embeddings=64, **tokens, **small
    )
    vision = BlipVisionConfig(image_size=32, patch_size=8, **small)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def test_what_the_world_drew_is_described_in_its_words(capsys, tmp_path):
    scenes = [random_scene(random.Random(seed)) for seed in range(100, 116)]
    found = [pw.caption(render(scene)[0]) for scene in scenes]
    assert sum(text == caption_of_scene(scene) for text, scene in zip(found, scenes, strict=True)) >= 15
    assert captioned(render(scenes[0])[0], "toybox-fast")[1] == "the oracle of the embedded world"
    with pytest.raises(NoCaptioner, match="sees none of its things"):
        pw.caption(np.full((128, 128, 3), 128, np.uint8))


def test_a_model_of_the_machine_says_it(blip, monkeypatch):
    """Random weights say nonsense, but always the same, in words of their vocabulary, and depending on the image."""
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    text = pw.caption(image, captioner=blip)
    assert text == pw.caption(Image.fromarray(image), captioner=str(blip)) and set(text.split()) <= set(WORDS[5:])
    monkeypatch.setattr("promptweave.perception.captioning.cached", lambda: str(blip))
    assert captioned(image, "some/model") == (text, str(blip))


def test_what_is_not_there_is_said(tmp_path, tiny_folder, monkeypatch):
    image = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr("promptweave.perception.captioning.cached", lambda: None)
    with pytest.raises(NoCaptioner, match="No image-to-text model is on this machine.*Type what the image shows"):
        captioned(image, "some/model")
    with pytest.raises(NoCaptioner, match="nothing is downloaded. nobody/has-this is neither"):
        pw.caption(image, captioner="nobody/has-this")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(NoCaptioner, match="blip, blip-2, git, florence2. Received .* which is bert"):
        pw.caption(image, captioner=tmp_path)
    assert cached() is None or isinstance(cached(), str)


def test_commands_without_a_source_prompt(blip, tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("promptweave.models.image_to_text.TOKENS", 4)
    scene = random_scene(random.Random(1))
    Image.fromarray(render(scene)[0]).save(tmp_path / "drawn.png")
    image = ["--image", str(tmp_path / "drawn.png"), "--caption"]

    def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        said = capsys.readouterr()
        return end.value.code, said.out + said.err

    assert run("caption", str(tmp_path / "drawn.png")) == (0, caption_of_scene(scene) + "\n")
    quick = ["--steps", "2", "-m", str(tiny_folder), "--captioner", str(blip)]
    text = pw.caption(tmp_path / "drawn.png", captioner=blip)
    for command, prompts in (("edit", ["a dog"]),):
        code, said = run(command, *prompts, *image, *quick, "-o", str(tmp_path / command))
        assert code == 0 and "source prompt, by " in said, said
        record = pw.editing.result.read_record(tmp_path / command / "edit.json")
        assert record["recipe"]["source"] == text and record["recipe"]["targets"] == ["a dog"]
    code, said = run("invert", str(tmp_path / "drawn.png"), "--caption", *quick, "-o", str(tmp_path / "i.safetensors"))
    assert code == 0 and pw.InvertedImage.load(tmp_path / "i.safetensors").prompt == text
    for wrong, cure in (
        (["edit", "a dog", "--caption"], "Give --image FILE"),
        (["edit", "a cat", "a dog", "--captioner", "x"], "Give --caption, too"),
        (["pnp", "a dog", *quick[:4]], "takes a source prompt and a target"),
        (["invert", str(tmp_path / "drawn.png"), *quick[:4]], "or with --caption"),
    ):
        code, said = run(*wrong, "-o", str(tmp_path / "never.safetensors"))
        assert code and cure in " ".join(said.split()), said
