"""Heads, losses and training: closed forms, gradients under checkpointing, resuming, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptweave.perception.batches import augmented
from promptweave.perception.heads import DepthHead, FpnHead, ReferHead
from promptweave.perception.learning import CHECKPOINT, FILE, LOG, PLOT, learn
from promptweave.perception.lessons import Lessons, indices
from promptweave.perception.perceive import perceive
from promptweave.perception.perceiver import BadWeights, Perceiver, places
from promptweave.perception.samples import IGNORED, Sample
from promptweave.perception.tasks import Plan, silog

SIZE = (32, 32)
PLANS = {
    "segment": Plan("segment", ("cat", "dog", "car"), width=16, size=SIZE),
    "refer": Plan("refer", tokens=9, width=16, size=SIZE),
    "depth": Plan("depth", kinds=("snow", "night"), width=16, size=SIZE),
}
SHORT = Lessons(steps=4, through=2, batch=3, batch_through=2, warm_up=1, rate=1e-3)


class Few:
    """Six examples in which the answer is the colour."""

    classes = ("cat", "dog", "car")

    def __init__(self, task: str) -> None:
        self.task = task

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        labels = np.repeat(rng.integers(0, 3 if self.task == "segment" else 2, (2, 2)), 16, 0).repeat(16, 1)
        picture = (np.eye(3)[labels] * 255).astype(np.uint8)
        if self.task == "depth":
            return Sample(picture, (labels * 4 + 1).astype(np.float32), None, "snow" if index % 2 else "night")
        return Sample(picture, labels.astype(np.int64), "the cat" if self.task == "refer" else None)


def made(model, task: str, seed: int = 0, **changes) -> Perceiver:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Perceiver(model, replace(PLANS[task], **changes))


def test_heads_take_any_number_of_levels_and_odd_grids():
    for grids in (((9, 7), (5, 4), (3, 2), (2, 1)), ((8, 8), (8, 8))):
        levels = [torch.randn(2, 16 * (i + 1), *grid) for i, grid in enumerate(grids)]
        channels = [x.shape[1] for x in levels]
        assert FpnHead(channels, 5, 12)(levels).shape == (2, 5, *grids[0])
        assert ReferHead(channels, 12)(levels).shape == (2, 2, *grids[0])
        depth = DepthHead(channels, 32, 10.0)(levels)
        assert depth.shape == (2, 1, 8 * grids[-2][0], 8 * grids[-2][1]) and ((depth > 0) & (depth < 10)).all()


def test_the_depth_head_has_the_published_layers():
    """320 channels at 64 are lowered twice, 640 at 32 once; all 3520 channels are joined on the grid of 16."""
    head = DepthHead((320, 640, 1280, 1280), 1536, 10)
    strides = [[m.stride for m in lower if isinstance(m, torch.nn.Conv2d)] for lower in head.lower]
    assert strides == [[(2, 2), (2, 2)], [(2, 2)], [], []]
    assert head.join[0].in_channels == 3520 and head.join[0].out_channels == 1536
    assert sum(isinstance(m, torch.nn.ConvTranspose2d) for m in head.decode) == 3


def test_silog_is_its_formula_and_ignores_what_is_unknown():
    found, target = torch.rand(2, 4, 5, dtype=torch.float64) + 0.5, torch.rand(2, 4, 5, dtype=torch.float64) + 0.5
    target[0, :2] = 0
    d = np.log(target[target > 0].numpy()) - np.log(found[target > 0].numpy())
    assert silog(found, target).item() == pytest.approx(np.sqrt((d**2).mean() - 0.5 * d.mean() ** 2), rel=1e-12)
    assert silog(found * 3, target * 3).item() == pytest.approx(silog(found, target).item())
    assert silog(found, torch.zeros_like(found)).item() == 0


def test_the_loss_of_referring_weighs_mask_and_ground():
    output = torch.tensor([[[[0.3, -1.0]], [[0.5, 2.0]]]])
    target = torch.tensor([[[0, 1]]])
    log = output.log_softmax(1)
    expected = -(0.9 * log[0, 0, 0, 0] + 1.1 * log[0, 1, 0, 1]) / 2.0
    assert PLANS["refer"].loss(output, target).item() == pytest.approx(float(expected), rel=1e-6)
    output, target = torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), IGNORED)
    target[0, 0, 0] = 2
    assert PLANS["segment"].loss(output, target).item() == pytest.approx(
        -output.log_softmax(1)[0, 2, 0, 0].item(), rel=1e-5
    )


@pytest.mark.parametrize("task", list(PLANS))
def test_training_lowers_the_loss_and_leaves_the_network(tiny, task, tmp_path):
    before = {k: v.clone() for k, v in tiny.unet.state_dict().items()}
    perceiver, losses = made(tiny, task), []
    learn(perceiver, Few(task), replace(SHORT, steps=24, rate=1e-2), tmp_path, lambda v: losses.append(v.get("loss")))
    losses = [loss for loss in losses if loss is not None]
    assert len(losses) == 26 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert all(torch.equal(v, before[k]) for k, v in tiny.unet.state_dict().items())
    assert not any(p.requires_grad for p in tiny.unet.parameters())
    assert {p.name for p in tmp_path.iterdir()} == {CHECKPOINT, FILE, LOG, PLOT}
    shown = Few(task)[0]
    given = {"phrase": shown.phrase} if task == "refer" else {}
    answers = [
        perceive(shown.picture, task, weights=source, model=tiny, **given).answer
        for source in (perceiver, tmp_path / FILE)
    ]
    assert answers[0].shape == SIZE and (answers[0] == answers[1]).mean() > 0.95 or task == "depth"
    if task == "depth":
        np.testing.assert_allclose(answers[0], answers[1], rtol=0.02)  # half precision


def test_training_that_was_stopped_goes_on_as_if_it_never_was(tiny, tmp_path):
    whole = learn(made(tiny, "segment"), Few("segment"), SHORT, tmp_path / "whole")

    def stop(values):
        if values.get("step") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(made(tiny, "segment"), Few("segment"), SHORT, tmp_path / "part", stop, save_seconds=-1)
    resumed = learn(made(tiny, "segment", seed=5), Few("segment"), SHORT, tmp_path / "part")
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    with pytest.raises(ValueError, match="other settings"):
        learn(made(tiny, "segment"), Few("segment"), replace(SHORT, rate=2e-3), tmp_path / "part")


def test_checkpointing_gives_the_same_gradients_and_fine_tuning_moves_the_network(tokenizer):
    from tiny import build_tiny

    from promptweave.models.load import load

    found = {}
    for checkpointing in (False, True):
        model = load(build_tiny(tokenizer))
        before = model.unet.conv_in.weight.clone()
        lessons = Lessons(steps=0, through=1, batch_through=2, warm_up=0, fine_tune=0.1, checkpointing=checkpointing)
        perceiver = learn(made(model, "segment", fine_tuned=True), Few("segment"), lessons)
        assert (model.unet.conv_in.weight != before).any()
        found[checkpointing] = {**perceiver.weights()}
    moved = found[False]["network.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
    assert moved.shape == (48, 24)
    for name, value in found[False].items():
        torch.testing.assert_close(value, found[True][name], rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_reach_the_adapter_through_the_maps(tiny64):
    perceiver = made(tiny64, "segment").double()
    z = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    context = perceiver.adapted(perceiver.context(1).double())
    perceiver.extractor.see(z, context, lambda seen: seen.maps[0][:, 0].square().sum().backward())
    assert perceiver.adapter.gamma.grad is not None and perceiver.adapter.gamma.grad.abs().max() > 0


def test_bfloat16_trains(tiny):
    learn(made(tiny, "depth"), Few("depth"), replace(SHORT, bf16=True))


def test_a_fine_tuned_file_carries_the_network(tokenizer, tmp_path):
    from tiny import build_tiny

    from promptweave.models.load import load

    model, other = load(build_tiny(tokenizer)), load(build_tiny(tokenizer, seed=3))
    learn(made(model, "refer", fine_tuned=True), Few("refer"), Lessons(steps=0, through=1, fine_tune=0.1), tmp_path)
    shown = Few("refer")[1]
    there = perceive(shown.picture, "refer", phrase="the dog", weights=tmp_path / FILE, model=other)
    assert there.answer.shape == SIZE
    torch.testing.assert_close(other.unet.conv_in.weight, model.unet.conv_in.weight.half().float())


def test_files_of_other_models_and_other_files_are_refused(tiny, tmp_path, tokenizer):
    from tiny import build_tiny

    from promptweave.models.load import load

    path = made(tiny, "segment").save(tmp_path / "a.safetensors")
    with pytest.raises(BadWeights, match="features of another model"):
        Perceiver.load(path, load(build_tiny(tokenizer, seed=1)))
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(BadWeights, match="no complete"):
        Perceiver.load(tmp_path / "b.safetensors", tiny)
    with pytest.raises(FileNotFoundError, match="perceive-train"):
        Perceiver.load(tmp_path / "c.safetensors", tiny)
    with pytest.raises(ValueError, match="trained for 'segment'. Received task 'depth'"):
        perceive(np.zeros((32, 32, 3), np.uint8), "depth", weights=path, model=tiny)
    with pytest.raises(ValueError, match="for the model toybox"):
        perceive(np.zeros((32, 32, 3), np.uint8), "depth", model=tiny)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "refer"}, "A phrase belongs to the task refer"),
        ({"task": "segment", "phrase": "the cat"}, "Choose --task refer"),
        ({"task": "count"}, "task must be one of"),
        ({"task": "segment", "kind": "snow"}, "no class of the scene"),
    ],
)
def test_arguments_of_another_task_are_refused(tiny, tmp_path, given, said):
    weights = made(tiny, "segment").save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=said):
        perceive(np.zeros((32, 32, 3), np.uint8), weights=weights, model=tiny, **given)


def test_windows_cover_images_of_any_shape(tiny):
    perceiver = made(tiny, "segment").eval()
    picture = torch.rand(32, 32, 3)
    with torch.no_grad():
        alone = perceiver.output(picture[None]).argmax(1)[0]
    assert torch.equal(perceiver.answer(picture, flip=False), alone)
    assert torch.equal(perceiver.answer(picture), alone), "the head has not learned from mirror images"
    both = perceiver.answer(picture, flip=True)
    assert torch.equal(perceiver.answer(picture.flip(1), flip=True).flip(1), both), "an answer mirrors with its image"
    perceiver.plan = replace(perceiver.plan, mirrored=True)
    assert torch.equal(perceiver.answer(picture), both), "asked for by the head"
    for shape in ((20, 50), (45, 33), (1, 2)):
        assert perceiver.answer(torch.rand(*shape, 3)).shape == shape
    with pytest.raises(ValueError, match="windows, and at most 256"):
        perceiver.answer(torch.rand(1, 20000, 3))
    assert places(1000, 512) == [0, 341, 488] and places(512, 512) == [0]


def test_every_epoch_sees_every_example_once_in_its_own_order():
    lessons = Lessons(seed=3)
    seen = [i for step in range(10) for i in indices(lessons, step, 3, 10)]
    epochs = [seen[begin : begin + 10] for begin in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]


def test_augmentation_moves_image_and_answer_together():
    import random

    labels = np.arange(24)[:, None].repeat(40, 1) // 8 + 3 * (np.arange(40)[None] // 20)
    sample = Sample((labels[..., None] * 40).repeat(3, -1).astype(np.uint8), labels.astype(np.int64))
    for seed in range(8):
        one = augmented(sample, (32, 32), (0.5, 2.0), random.Random(seed))
        known = one.target != IGNORED
        assert one.picture.shape == (32, 32, 3) and known.any()
        wrong = np.abs(one.picture[..., 0].astype(int) - one.target * 40)[known] > 20
        assert wrong.mean() < 0.15  # the edges, which are resized differently
        assert (one.picture[~known] == 0).all()
    with_phrase = augmented(Sample(sample.picture, sample.target, "left"), (32, 32), (0.5, 2.0), random.Random(0))
    assert with_phrase.target[0, 0] == 0 and with_phrase.target[0, -1] == 3, "a phrase may say left"


@pytest.mark.parametrize(
    ("lessons", "said"),
    [
        (Lessons(steps=0, through=0), "at least one step"),
        (Lessons(fine_tune=0.1, through=0), "--through"),
        (Lessons(checkpointing=True, through=0), "--through"),
        (Lessons(smallest=0.5, largest=2.0), "--steps 0"),
        (Lessons(smallest=2.0, largest=0.5), "at most the largest"),
    ],
)
def test_lessons_that_contradict_each_other_are_refused(lessons, said):
    with pytest.raises(ValueError, match=said):
        lessons.check()
