"""The joint-attention stage: short texts are the same attention, fine tokens begin as coarse ones, it goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0

import promptweave as pw
from promptweave.benchmarks import bench_edits
from promptweave.models.sd3 import T5_LENGTH
from promptweave.world import build_joint, train
from promptweave.world.train_diffusion import Diffusion, tokenizer_of
from promptweave.world.train_joint import CountedAttention, JointDiffusion, counts, optimisers_of, teacher_of
from promptweave.world.training import Training

SMALL = Training(scenes=6, coloured_scenes=2, batch=2, vae_batch=2, joint_batch=2, coarse_share=0.4, grid_steps=1)
MOMENT = 0.02  # minutes


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Two of the eight blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_joint, "BLOCKS", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder whose joint stage saw coarse tokens, then fine ones with a teacher."""
    made = tmp_path_factory.mktemp("joint")
    train.train(made, SMALL, {"vae": MOMENT, "diffusion": MOMENT}, "cpu")
    train.train(made, SMALL, {"joint": 0.1}, "cpu")
    return made


def louder(model: JointDiffusion) -> JointDiffusion:
    """Blocks begin as the identity; random ones see more."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.transformer.named_parameters():
        if "norm" in name or "proj_out" in name:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.double()


def test_one_token_stands_for_many(folder):
    """A key with the logarithm of n added to its logits is n equal keys, through all blocks."""
    model = louder(JointDiffusion(folder, 2))
    x, text = torch.randn(2, 8, 16, 16).double(), torch.randn(2, 5, build_joint.JOINT_WIDTH).double()
    pooled, time = torch.randn(2, build_joint.JOINT_WIDTH).double(), torch.tensor([300.0, 800.0]).double()
    many = torch.tensor(counts(4, T5_LENGTH)).double()
    assert many.tolist() == [1, 1, 1, 74, T5_LENGTH] and many.sum() == 77 + T5_LENGTH
    attention = CountedAttention()
    attention.bias = torch.cat([torch.zeros(64), many.log()]).double()
    results = []
    for processor, words in ((attention, text), (JointAttnProcessor2_0(), text.repeat_interleave(many.long(), 1))):
        for block in model.transformer.transformer_blocks:
            block.attn.processor = processor
        with torch.no_grad():
            results.append(model.transformer(x, words, pooled, time).sample)
    assert results[0].std() > 0.1
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_training_and_the_pipeline_predict_the_same(folder):
    """What was trained with short texts is what the saved pipeline computes with 77 + 256 tokens."""
    model = louder(JointDiffusion(folder, 1)).float().eval()
    prompts = ["a photo of a cat riding a bike", "a sketch of a red car in the snow"]
    build_joint.save_joint_pipeline(folder / "same", model.transformer, (model.first, model.second), model.tokenizer)
    loaded = pw.load(folder / "same", device="cpu")
    x, sigma = torch.randn(2, 8, 16, 16), torch.tensor([0.3, 0.9])
    assert loaded.t5_length == 0, "ours leaves out the places of T5; diffusers fills them with zeros"
    for places in (0, T5_LENGTH):
        loaded.t5_length = places
        text = loaded.encode(prompts, ["", ""])
        with torch.no_grad():
            ours = model.velocity(x, sigma, prompts, places)
            theirs = loaded.predict(x, 1000 * sigma, text.keys, pooled=text.pooled)
        assert text.keys.shape == (2, 77 + places, build_joint.JOINT_WIDTH)
        # Measured: 1e-3 of the answer's size. Paddings differ by their position, and the folder is in half precision.
        assert (ours - theirs).abs().max() < 0.01 * ours.abs().max()


def test_padding_says_nothing(folder):
    """The pooled vector and the padding are the same for all prompts: words reach the picture by attention alone."""
    model = JointDiffusion(folder, 1)
    with torch.no_grad():
        text, pooled, _ = model.read(["a cat", "a red car in the snow"], 0)
    likeness = torch.nn.functional.cosine_similarity
    assert likeness(pooled[0], pooled[1], dim=0) > 0.999
    assert likeness(text[0, 6, :], text[1, 7, :], dim=0) > 0.999, "end token and padding"
    assert likeness(text[0, 2, :], text[1, 2, :], dim=0) < 0.98, "words"


def test_fine_tokens_begin_as_coarse_ones(folder):
    """On latents that are alike in each patch the embeddings agree; positions lie in the same places."""
    coarse = JointDiffusion(folder, 2).transformer
    fine = build_joint.finer(coarse)
    small = torch.randn(1, 8, 8, 8)
    x = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        one, other = coarse.pos_embed(x).unflatten(1, (8, 8)), fine.pos_embed(x).unflatten(1, (16, 16))
    torch.testing.assert_close(one, other[:, ::2, ::2], rtol=1e-4, atol=1e-4)
    said = torch.randn(3, build_joint.WIDTH)
    per_patch = coarse.proj_out(said).unflatten(1, (2, 2, 8))
    torch.testing.assert_close(per_patch.mean((1, 2)), fine.proj_out(said))
    same = {name for name, value in coarse.state_dict().items() if torch.equal(value, fine.state_dict()[name])}
    assert all(name in same for name in fine.state_dict() if "blocks" in name)


def test_the_loss_is_that_of_the_velocity(folder, monkeypatch):
    """A network that answers noise - code has no loss; a teacher that knows the code asks for the same."""
    model = JointDiffusion(folder, 1)
    z = torch.randn(16, 8, 16, 16)
    seen = []

    def perfect(x, sigma, captions, places):
        assert places in (0, T5_LENGTH)
        level = sigma.view(-1, 1, 1, 1)
        seen.extend(sigma.tolist())
        return (x - (1 - level) * z) / level - z

    monkeypatch.setattr(model, "velocity", perfect)
    texts = ["a cat"] * 16
    assert model.loss(z, texts, torch.Generator().manual_seed(0)).item() < 1e-6
    assert 0.5 < sum(seen) / len(seen) < 0.7 and 0 < min(seen) < max(seen) < 1

    class Knows(torch.nn.Module):
        def forward(self, x, t, context):
            a = model.alpha_bar[t].view(-1, 1, 1, 1)
            return type("Out", (), {"sample": (a.sqrt() * x - z) / (1 - a).sqrt()})

    teacher = Diffusion(folder)
    teacher.unet = Knows()
    assert model.loss(z, texts, torch.Generator().manual_seed(0), teacher).item() < 1e-6
    wrong = Diffusion(folder)
    assert model.loss(z, texts, torch.Generator().manual_seed(0), wrong).item() > 0.1


def test_every_weight_has_one_optimiser(folder):
    model = JointDiffusion(folder, 1)
    held = [id(p) for o, _ in optimisers_of(model, SMALL) for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_the_stage_ends_in_a_pipeline_that_loads(folder):
    state = torch.load(folder / "joint.pt")
    assert state["patch"] == 1 and state["steps"] < state["samples"] / SMALL.joint_batch, "coarse, then fine"
    model = pw.load(folder / "toybox-dit", device="cpu")
    assert model.default_size == (128, 128) and model.map_grid((16, 16)) == (16, 16)
    made = pw.edit("a photo of a cat", "a photo of a dog", model=model, steps=5)
    assert made.source.size == (128, 128)
    assert list((folder / "grids").glob("toybox-dit-*.webp"))
    with pytest.raises(ValueError, match="Stages are vae, .*Received nonsense"):
        train.train(folder, SMALL, {"nonsense": 1.0}, "cpu")


def test_it_goes_on_from_its_checkpoint(folder):
    before = torch.load(folder / "joint.pt")
    train.train(folder, SMALL, {"joint": 0.05}, "cpu")
    assert torch.load(folder / "joint.pt")["samples"] == before["samples"], "the minutes are those of all runs together"
    seen = []
    longer = dataclasses.replace(SMALL, coarse_share=0.0)
    train.train(folder, longer, {"joint": before["spent"] * 2 + 0.1}, "cpu", seen.append)
    assert seen[0]["samples"] == before["samples"] + SMALL.joint_batch and seen[0]["patch"] == 1
    after = torch.load(folder / "joint.pt")
    assert after["steps"] > before["steps"]
    drift = max(float((after["model"][k] - before["model"][k]).abs().max()) for k in after["model"])
    assert 0 < drift < 0.5, "it goes on from the weights, not from the start"


def test_a_new_folder_may_begin_with_the_weights_of_a_joint_model(folder, tmp_path):
    further = tmp_path / "further"
    train.begin_with(further, str(folder / "toybox-dit"))
    kept, laid = pw.load(folder / "toybox-dit", device="cpu").pipeline, torch.load(further / "joint.pt")
    assert torch.equal(laid["average"]["transformer.proj_out.weight"], kept.transformer.proj_out.weight.float())
    assert torch.equal(laid["model"]["second.text_projection.weight"], kept.text_encoder_2.text_projection.weight)
    assert teacher_of(further, "cpu") is not None, "toybox, whose codes the model speaks"
    seen = []
    train.train(further, dataclasses.replace(SMALL, bf16=True), {"joint": 0.05}, "cpu", seen.append)
    steps = [values for values in seen if values["stage"] == "joint"]
    assert {values["patch"] for values in steps} == {1}, "it is beyond coarse tokens"
    assert all(np.isfinite(values["loss"]) for values in steps)
    weights = torch.load(further / "joint.pt")["model"]
    assert weights["transformer.proj_out.weight"].dtype == torch.float32
    drift = max(float((weights[name] - value).abs().max()) for name, value in laid["model"].items())
    assert 0 < drift < 0.5, "it goes on from the weights"
    with pytest.raises(FileExistsError, match="leave out --begin-with"):
        train.begin_with(further, "toybox-dit")


def test_without_a_diffusion_stage_there_is_no_teacher(tmp_path):
    assert teacher_of(tmp_path, "cpu") is None
    tokenizer_of(tmp_path)
    assert optimisers_of(JointDiffusion(tmp_path, 2), SMALL)


def test_install_copies_what_the_stages_made(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "embedded_folder", lambda name="toybox": tmp_path / "models" / name)
    assert train.install(folder, ("joint",)) == [tmp_path / "models" / "toybox-dit"]
    (tmp_path / "evaluate").mkdir()
    assert [path.name for path in train.install(folder)] == ["toybox", "toybox-dit"]


def test_edits_of_a_flow_model_are_measured_with_its_own_methods_too(folder):
    """FlowEdit wherever prompts differ; Consist wherever the source names the thing that changes."""
    model = pw.load(folder / "toybox-dit", device="cpu")
    figures, rows = bench_edits.bench_edits(model, pairs=1, steps=5)
    own = {
        kind: [name for name in ("FlowEdit", "Consist") if f"{name}: success" in found]
        for kind, found in figures.items()
    }
    assert own == {
        "object swap": ["FlowEdit", "Consist"],
        "colour change": ["FlowEdit", "Consist"],
        "background change": ["FlowEdit"],
        "worn thing added": ["FlowEdit"],
        "style change": ["FlowEdit"],
        "thing added": ["FlowEdit"],
        "thing removed": ["FlowEdit", "Consist"],
        "re-weighting to -2": [],
    }
    swap = rows["object swap"][0]
    free, flow = swap.pictures[bench_edits.FREE], swap.pictures[bench_edits.FREE + 1]
    assert len(swap.pictures) == 6 and not np.array_equal(free, flow)
    assert bench_edits.examples([swap]).width > 900
