"""Training that resumes and stops, translators of what it makes, their experts, and the commands."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.core.files import CannotWrite
from promptweave.models.embedded import embedded_folder
from promptweave.models.load import load_cached
from promptweave.models.vector_readers import ClipReader, SentenceReader
from promptweave.translation import train_flows as training
from promptweave.translation.conditional_vae import ConditionalVae, VaeSizes
from promptweave.translation.experts import (
    DOMAINS,
    Expert,
    LabelExpert,
    LatentExpert,
    NotAnExpert,
    PromptExpert,
    SummaryExpert,
    read_tensors,
)
from promptweave.translation.flow import ConditionalFlow, FlowSizes
from promptweave.translation.foreign_experts import GeneratorExpert, ImageReaderExpert, TextReaderExpert
from promptweave.translation.joining import Shape, join
from promptweave.translation.pairs import Pairs, labels_of, one_thing
from promptweave.translation.train_flows import FlowTraining, train_flows
from promptweave.translation.translator import Translator, net2net
from promptweave.world.render import render
from promptweave.world.training import Diverged

SMALL = FlowTraining(scenes=24, summary_steps=3, flow_steps=4, batch=8, dim=6, width=16)
CAT, DOG = "a photo of a cat in the snow", "a photo of a dog in the snow"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("net2net")
    train_flows(made, SMALL, device="cpu")
    return made


@pytest.fixture(scope="module")
def text(folder: Path) -> Translator:
    return net2net("text", folder=folder, refine=False)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path)["model"]


def test_training_that_was_stopped_ends_as_if_it_had_not_been(folder, tmp_path, monkeypatch):
    """The checkpoint is that of the last whole step; the rest is seeded step by step."""
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)
    (tmp_path / "pairs.safetensors").write_bytes((folder / "pairs.safetensors").read_bytes())
    (tmp_path / "summary.pt").write_bytes((folder / "summary.pt").read_bytes())
    seen: list[float] = []

    def stop(values):
        seen.append(values["share"])
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_flows(tmp_path, SMALL, ["text"], "cpu", stop)
    assert torch.load(tmp_path / "text.pt")["step"] == 2 and not (tmp_path / "text.safetensors").exists()
    train_flows(tmp_path, SMALL, ["text"], "cpu", lambda values: seen.append(values["share"]))
    assert seen == [0.25, 0.5, 0.75, 0.75, 1.0]
    whole, again = weights(folder / "text.pt"), weights(tmp_path / "text.pt")
    apart = {name: float((whole[name].double() - again[name].double()).abs().max()) for name in whole}
    assert max(apart.values()) < 1e-6, apart  # sums of other memory, other rounding
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[0]["stage"] == "pairs"


def test_training_stops_at_the_first_number_that_is_none(folder, tmp_path):
    pairs, about = Pairs.load(folder / "pairs.safetensors")
    dataclasses.replace(pairs, latents=pairs.latents * float("nan")).save(tmp_path / "pairs.safetensors", about)
    with pytest.raises(Diverged, match=r"at step 1 of stage summary the loss is nan .* Lower the learning rate"):
        train_flows(tmp_path, SMALL, ["summary"], "cpu")
    assert not (tmp_path / "summary.pt").exists()


@pytest.mark.parametrize(
    "recipe, stages, rule",
    [
        (SMALL, ["words"], "Stages are pairs, summary, text, domains. Received words"),
        (dataclasses.replace(SMALL, scenes=25), ["text"], "A training folder belongs to one set of scenes"),
        (dataclasses.replace(SMALL, dim=8, summary_steps=9), ["summary"], "checkpoint of the same network"),
    ],
)
def test_training_that_does_not_fit_its_folder_is_refused(folder, recipe, stages, rule):
    with pytest.raises(ValueError, match=rule):
        train_flows(folder, recipe, stages, "cpu")


def test_flows_need_a_summary(folder, tmp_path):
    (tmp_path / "pairs.safetensors").write_bytes((folder / "pairs.safetensors").read_bytes())
    with pytest.raises(FileNotFoundError, match="Train the summary first"):
        train_flows(tmp_path, SMALL, ["text"], "cpu")


def test_pairs_are_scenes_with_their_captions_and_labels(folder):
    pairs, _ = Pairs.load(folder / "pairs.safetensors")
    scenes = [one_thing(random.Random(f"0 {number}"), domains=number < 12) for number in range(24)]
    assert pairs.labels[:12].sum(1).tolist() == [2.0] * 12
    unlabelled = [number for number, scene in enumerate(scenes) if scene.style not in DOMAINS[0]]
    assert unlabelled and pairs.labels[unlabelled].sum() == 0
    model = load_cached()
    picture = torch.from_numpy(render(scenes[20])[0][None].copy()).float() / 255
    assert float((model.to_latent(picture)[0] - pairs.latents[20].float()).abs().max()) < 0.05  # half precision
    said = PromptExpert(model).encode([pw_caption(scenes[20])])[0]
    assert float((said - pairs.prompts[20, 0].float()).abs().max()) < 0.01


def pw_caption(scene):
    from promptweave.world.caption import caption

    return caption(scene)


def test_a_column_has_one_residual_and_a_seed_one_result(text):
    made = text.sample(CAT, DOG, count=2, seed=5)
    assert made.pictures.shape == (2, 2, 128, 128, 3) and made.labels == ((CAT,) * 2, (DOG,) * 2)
    assert torch.equal(made.residuals[0], made.residuals[1]) and not torch.equal(made.codes[0], made.codes[1])
    assert np.array_equal(made.pictures, text.sample(CAT, DOG, count=2, seed=5).pictures)
    assert not np.array_equal(made.pictures, text.sample(CAT, DOG, count=2, seed=6).pictures)
    still = text.sample(CAT, count=2, temperature=0)
    assert np.abs(still.pictures[0, 0].astype(int) - still.pictures[0, 1]).max() <= 1
    back, _ = text.flow(made.codes[1], text.source.encode([DOG] * 2))
    assert float((back - made.residuals[1]).detach().abs().max()) < 1e-4  # single precision


def test_an_exchange_keeps_the_residual_of_an_image(text):
    picture = render(one_thing(random.Random(3)))[0]
    made = text.exchange(picture, CAT, DOG, "a cat")
    assert made.labels == (("given image", CAT, DOG, "a cat"),) and np.array_equal(made.pictures[0, 0], picture)
    held = text.target.encode([picture])
    assert float((made.codes[0, 1] - held[0]).abs().max()) < 1e-4
    v = text.residual([picture], [CAT])
    assert torch.equal(made.residuals[0, 2], v[0])
    assert torch.equal(made.codes[0, 2], text.code(v, [DOG])[0])
    drawn = text.exchange(None, CAT, DOG, seed=7, count=2)
    assert drawn.pictures.shape[:2] == (2, 2)
    again = text.sample(CAT, count=2, seed=7).pictures[0]  # another batch, another rounding
    assert np.abs(drawn.pictures[:, 0].astype(int) - again).max() <= 1


def test_what_a_translator_cannot_do_is_said(text, folder):
    with pytest.raises(pw.NoEffect, match="for itself changes nothing"):
        text.exchange(None, CAT, CAT)
    with pytest.raises(ValueError, match="takes a new condition. Received none"):
        text.exchange(None, CAT)
    with pytest.raises(ValueError, match="at least one condition, a count of at least 1"):
        text.sample(CAT, count=0)
    with pytest.raises(ValueError, match="Translators are text, domains. Received 'txt'"):
        net2net("txt")
    with pytest.raises(NotAnExpert, match="Train them with: promptweave net2net train"):
        net2net("text", folder=folder / "nowhere")
    with pytest.raises(NotAnExpert, match="joins the experts that it was trained with"):
        Translator(text.flow, LabelExpert(DOMAINS), text.target)
    with pytest.raises(NotAnExpert, match="must hold a flow. Received summary"):
        read_tensors(folder / "summary.safetensors", "flow")
    with pytest.raises(NotAnExpert, match="only reads"):
        text.source.decode(torch.zeros(1, 384))
    with pytest.raises(NotAnExpert, match=r"are \[n, 6\]. Received \[1, 7\]"):
        text.target.decode(torch.zeros(1, 7))


def test_a_translation_is_written_whole_and_once(text, tmp_path):
    made = text.sample(CAT, count=2)
    files = made.save(tmp_path / "run")
    assert [path.name for path in files] == ["1-1.png", "1-2.png", "net2net.json", "sheet.png"]
    assert json.loads((tmp_path / "run/net2net.json").read_text())["conditions"] == [CAT]
    with pytest.raises(FileExistsError, match="already holds a translation"):
        made.save(tmp_path / "run")
    text.sample(CAT, count=1).save(tmp_path / "run", force=True)
    assert not (tmp_path / "run/1-2.png").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite):
        made.save(tmp_path / "file")


def test_labels_are_one_of_each_group():
    expert = LabelExpert(DOMAINS)
    assert isinstance(expert, Expert)
    assert expert.encode(["photo, night", "day sketch"]).tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
    for wrong in ("photo", "photo, sketch, day", "photo, day, cat", ""):
        with pytest.raises(ValueError, match="one of photo, sketch and one of day, night"):
            expert.encode([wrong])
    assert labels_of(one_thing(random.Random(0)).with_(style="sketch", background="night")) == "sketch, night"


def test_the_prompt_expert_reads_words_and_nothing_else():
    expert, model = PromptExpert(), load_cached()
    one, both = expert.encode(["a cat"]), expert.encode(["a photo of a yellow car in the snow", "a cat"])
    assert float((one[0] - both[1]).abs().max()) < 1e-4 and expert.dim == 384
    tokens = model.encode(["a cat"], [""]).cond[0, 1:3].float()
    assert float((one[0] - torch.cat([tokens.mean(0), tokens[1]])).abs().max()) < 1e-5
    with pytest.raises(ValueError, match="at least one word"):
        expert.encode([""])


def test_the_latent_expert_is_the_autoencoder(folder):
    expert, picture = LatentExpert(), render(one_thing(random.Random(1)))[0]
    codes = expert.encode([picture])
    assert codes.shape == (1, expert.dim) == (1, 2048)
    error = np.square(expert.decode(codes)[0].astype(float) - picture).mean()
    assert -10 * np.log10(error / 255**2) > 25
    summary = SummaryExpert.load(folder / "summary.safetensors", expert)
    assert summary.encode([picture, picture]).shape == (2, 6) and summary.decode(torch.zeros(1, 6)).shape[1] == 128


class Generator(nn.Module):
    """A generator as a GAN has one: a code to an image of black, grey and white stripes."""

    def forward(self, code):
        return code[:, :, None, None].expand(-1, 3, 8, 8).clamp(-1, 1)


def test_a_generator_from_a_folder_is_an_expert(tmp_path):
    program = torch.export.export(
        Generator(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    torch.export.save(program, tmp_path / "decoder.pt2")
    (tmp_path / "expert.json").write_text(json.dumps({"dim": 3, "range": [-1, 1], "truncation": 0.7}))
    expert = GeneratorExpert(tmp_path)
    assert expert.decode(torch.tensor([[-1.0, 0.0, 1.0]]))[0, 0, 0].tolist() == [0, 128, 255]
    codes = expert.draw(500, torch.Generator().manual_seed(0))
    assert codes.abs().max() <= 0.7 and codes.std() > 0.3
    with pytest.raises(NotAnExpert, match="has no encoder"):
        expert.encode([np.zeros((8, 8, 3), np.uint8)])
    flow = ConditionalFlow(FlowSizes(dim=3, condition=384, hidden=8, blocks=1))
    made = Translator(flow, PromptExpert(), expert).sample(CAT, count=17)
    assert made.pictures.shape == (1, 17, 8, 8, 3)
    reader = ImageReaderExpert(ClipReader(clip_folder(tmp_path / "clip")))
    found = join(reader, expert, 40, tmp_path / "joined", recipe=FlowTraining(flow_steps=2, batch=8))
    assert found.sample(made.pictures[0, 0], count=2).labels == (("image 1",) * 2,)
    for wrong in ('{"dim": 0, "range": [-1, 1]}', '{"dim": 3}', "[]", '{"dim": 3, "range": [1, -1]}'):
        (tmp_path / "expert.json").write_text(wrong)
        with pytest.raises(NotAnExpert, match='Write {"dim": 128'):
            GeneratorExpert(tmp_path)
    (tmp_path / "decoder.pt2").unlink()
    with pytest.raises(NotAnExpert, match="lacks one of them"):
        GeneratorExpert(tmp_path)


def clip_folder(folder: Path) -> Path:
    """A CLIP of random weights, with toybox's tokenizer."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder() / "tokenizer")
    tokenizer.save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_and_sentence_encoders_from_a_folder_are_experts(tmp_path):
    reader = ClipReader(clip_folder(tmp_path))
    texts, images = TextReaderExpert(reader), ImageReaderExpert(reader)
    grey, wide = np.full((20, 20, 3), 90, np.uint8), np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 90  # all that is left of it in the middle
    with torch.no_grad():
        tokens = reader.tokenizer([CAT], return_tensors="pt")
        whole = reader.network(**tokens, pixel_values=torch.zeros(1, 3, 16, 16))
    assert float((texts.encode([DOG, CAT])[1] - whole.text_embeds[0]).abs().max()) < 1e-5
    codes = images.encode([grey, wide, np.zeros((16, 16, 3), np.uint8)])
    assert codes.shape == (3, images.dim) == (3, 12) and torch.allclose(codes[0], codes[1], atol=1e-5)
    assert torch.allclose(codes.norm(dim=1), torch.ones(3)) and not torch.allclose(codes[0], codes[2], atol=1e-3)
    for expert in (texts, images):
        with pytest.raises(NotAnExpert, match="only reads"):
            expert.decode(codes)
    sentences = tmp_path / "sentences"
    reader.tokenizer.save_pretrained(sentences)
    reader.network.text_model.save_pretrained(sentences)
    own = TextReaderExpert(SentenceReader(sentences))
    assert torch.allclose(own.encode([CAT, "a cat"])[1], own.encode(["a cat"])[0], atol=1e-5) and own.dim == 16
    with pytest.raises(pw.models.base.ModelError, match="never from the network"):
        SentenceReader(tmp_path / "nowhere")


def test_any_two_experts_can_be_joined(tmp_path, text):
    """Labels and a summary: what the labels say is learnt; it goes on from its checkpoint."""
    generator = torch.Generator().manual_seed(0)
    recipe = FlowTraining(flow_steps=60, batch=32, rate=1e-2)
    labels = LabelExpert((("dark", "bright"),))
    examples = [
        (word, np.clip(value + 8 * torch.randn(128, 128, 3, generator=generator).numpy(), 0, 255).astype(np.uint8))
        for word, value in (("dark", 40), ("bright", 215)) * 3
    ]
    made = join(labels, text.target, examples, tmp_path, recipe=recipe, shape=Shape(4, 2, 16))
    codes = text.target.encode([picture for _, picture in examples])
    v = made.residual([picture for _, picture in examples[:2]], ["dark", "bright"])
    assert torch.allclose(made.code(v, ["dark", "bright"]), codes[:2], atol=1e-3)
    drawn = made.sample("dark", "bright", count=4).codes
    (dark, bright), (near, far) = codes.unflatten(0, (3, 2)).mean(0), drawn.mean(1)
    assert float((near - dark).norm()) < float((near - bright).norm())
    assert float((far - bright).norm()) < float((far - dark).norm())
    seen: list[float] = []
    join(labels, text.target, examples, tmp_path, recipe=recipe, shape=Shape(4, 2, 16), watch=lambda v: seen.append(1))
    assert not seen
    with pytest.raises(ValueError, match="asks a generator for codes"):
        join(labels, text.target, 9, tmp_path)
    with pytest.raises(ValueError, match="at least two examples"):
        join(labels, text.target, examples[:1], tmp_path)


def test_the_conditional_autoencoder_has_the_size_of_the_flow():
    sizes = FlowSizes(dim=10, condition=7, embedding=5, blocks=3, hidden=32)
    rival = ConditionalVae(VaeSizes.like(sizes))
    have, want = (sum(p.numel() for p in one.parameters()) for one in (rival, ConditionalFlow(sizes)))
    assert have == pytest.approx(want, rel=0.05)
    z, c = torch.randn(50, 10), torch.randn(50, 7)
    optimiser = torch.optim.Adam(rival.parameters(), 1e-2)
    losses = []
    for step in range(60):
        loss = rival.loss(z, c, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5


def test_the_commands_train_sample_and_exchange(folder, tmp_path, capsys):
    assert run("net2net", "train", "--folder", str(folder), "--stage", "domains", "--scenes", "24", "--flow-steps", "4",
               "--dim", "6", "--width", "16", "--batch", "8", "--json") == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["stages"] == ["domains"]
    out = ["--folder", str(folder), "-o", str(tmp_path / "out"), "--json"]
    assert run("net2net", "sample", CAT, DOG, "--count", "1", "--no-refine", *out) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["conditions"] == [CAT, DOG] and len(told["files"]) == 4
    assert run("net2net", "sample", CAT, *out) == 2 and "--force" in capsys.readouterr().err
    picture = tmp_path / "picture.png"
    picture.write_bytes((tmp_path / "out/1-1.png").read_bytes())
    labels = ["photo, day", "sketch, day", "--translator", "domains", "--image", str(picture)]
    assert run("net2net", "exchange", *labels, *out, "--force") == 0
    assert json.loads(capsys.readouterr().out)["after"] == ["sketch, day"]
    assert run("net2net", "exchange", *labels, *out, "--force", "--seed", "3") == 2
    assert "--image brings one" in capsys.readouterr().err


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def test_the_refiner_gives_blurred_latents_their_details_back():
    """It knows the world: pooled latents come nearer to those that they were pooled from; equal ones stay equal."""
    from promptweave.translation.refining import Refiner

    scene = one_thing(random.Random(7)).with_(style="photo")
    latents = LatentExpert().latents([render(scene)[0]])
    blurred = 0.3 * latents + 0.7 * nn.functional.avg_pool2d(latents, 3, 1, 1, count_include_pad=False)
    made = Refiner()(blurred.expand(2, -1, -1, -1))
    assert torch.allclose(made[0], made[1], atol=1e-4)
    assert float((made[0] - latents[0]).square().mean()) < 0.7 * float((blurred[0] - latents[0]).square().mean())


def test_the_translators_that_ship_change_what_is_said_and_keep_the_rest():
    from promptweave.benchmarks.judging import oracle
    from promptweave.translation.translator import shipped
    from promptweave.world.scene import Scene, Thing

    assert sum(path.stat().st_size for path in shipped().iterdir()) <= 5e6
    scenes = [Scene("grass", "photo", "alone", (Thing("panda", x, 0.9, 0.6),), 3) for x in (0.35, 0.45, 0.55, 0.65)]
    pictures = [render(scene)[0] for scene in scenes]
    text = net2net("text").exchange(pictures, "a photo of a panda on the grass", "a photo of a panda in the desert")
    labels = net2net("domains", refine=False).exchange(pictures[1], "photo, day", "photo, night", "sketch, day")
    given, desert = oracle().look(text.pictures[:, 0]), oracle().look(text.pictures[:, 2])
    night, sketch = oracle().look(labels.pictures[0, 2:])
    assert all(sight.has("panda") for sight in (*given, *desert))
    assert all(sight.background == "desert" for sight in desert)
    places = np.array([[np.argwhere(sight.regions["panda"]).mean(0) for sight in row] for row in (given, desert)])
    moved = np.abs(places[0] - places[1]).max(1)
    assert moved.mean() < 5 and moved.max() < 10  # pixels of 128; their places are 12.5 apart
    assert night.background == "night" and sketch.style == "sketch"
