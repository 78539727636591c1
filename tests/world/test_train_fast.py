"""The fast stage: what a lesson is, against closed forms; and a moment of training that ends in a model."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import promptweave as pw
from promptweave.models import low_rank
from promptweave.models.embedded import FAST, embedded_folder
from promptweave.models.load import load_cached
from promptweave.sampling.steps import ddim_step, guide
from promptweave.world import train, train_fast
from promptweave.world.train_fast import GUIDANCE, STEPS, Lessons, Student, teacher_of, turn, turning
from promptweave.world.training import Training

SMALL = Training(fast_batch=2)
MOMENT = 0.03  # minutes


def lessons_of(model, student=None, count: int = 2) -> Lessons:
    student = student or Student(nn.Linear(3, 5))
    return Lessons(model, student, count, random.Random(0), torch.Generator().manual_seed(0))


class OnePicture(nn.Module):
    """The network of a world with one picture: v is known, and guidance leads nowhere."""

    config = SimpleNamespace(sample_size=4)

    def __init__(self, picture: torch.Tensor, alpha_bar: torch.Tensor) -> None:
        super().__init__()
        self.picture, self.alpha_bar = picture, alpha_bar

    def forward(self, z, t, context):
        signal, noise = (part.sqrt().float().view(-1, 1, 1, 1) for part in (self.alpha_bar[t], 1 - self.alpha_bar[t]))
        return SimpleNamespace(sample=signal * (z - signal * self.picture) / noise - noise * self.picture)


class Perfect(Student):
    """A student that knows the network's answer."""

    def __init__(self, unet: nn.Module) -> None:
        nn.Module.__init__(self)
        self.unet = unet

    def forward(self, z, t, context):
        return self.unet(z, t, context).sample


def test_a_world_of_one_picture():
    """Its paths are circles: one step of the student is two of the teacher's, and all end at the picture."""
    model = copy.copy(load_cached("toybox"))
    picture = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(5))
    model.unet = OnePicture(picture, model.schedule().alpha_bar)
    lessons = lessons_of(model, Perfect(model.unet), count=3)
    for _ in range(STEPS):
        lessons.walk()
    assert len(lessons.kept) == 3 * STEPS and all(walk.step == 0 for walk in lessons.walks)
    assert float(lessons.loss(3 * STEPS)) < 1e-8
    for lesson in list(lessons.kept)[-3:]:
        assert lesson.step == STEPS - 1
        torch.testing.assert_close(lesson.end[0], picture, rtol=0, atol=1e-4)  # single precision, 16 steps


def test_turning_is_the_inverse_of_a_turn():
    z, v = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind()
    angle = torch.tensor([0.1, 1.3])
    torch.testing.assert_close(turning(z, turn(z, v, angle), angle), v, rtol=1e-4, atol=1e-5)


def test_the_teacher_walks_as_the_sampler_does():
    """A lesson's end is that of two steps of DDIM under the step's guidance."""
    model, k = load_cached("toybox"), 3
    lessons, alpha_bar = lessons_of(model), model.schedule().alpha_bar
    z, context = pw.noise_for(model, 1), model.encode(["a photo of a cat on the grass"], [""]).keys
    expected = z
    with torch.no_grad():
        for t, t_next in ((624, 561), (561, 499)):  # 62.5 apart
            parts = model.predict(expected.repeat(2, 1, 1, 1), t, torch.cat([lessons.empty, context])).chunk(2)
            levels = float(alpha_bar[t]), float(alpha_bar[t_next])
            expected = ddim_step(guide(*parts, GUIDANCE[k]), expected, *levels, "v_prediction")
        made = lessons.taught(z, torch.tensor([k]), context)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)  # rotations in place of roots


def test_a_student_begins_as_the_network_and_is_what_is_written(tmp_path):
    model = load_cached("toybox")
    torch.manual_seed(0)
    student = Student(model.unet, rank=3)
    z, context = torch.randn(2, 8, 16, 16), torch.randn(2, 77, 192)
    t = torch.tensor([999, 124])
    with torch.no_grad():
        plain = model.unet(z, t, context).sample
        torch.testing.assert_close(student(z, t, context), plain, rtol=0, atol=1e-5)
        for up in student.ups:
            up.normal_(std=0.02)
        low_rank.save(tmp_path, student.pairs())
        merged = copy.deepcopy(model.unet)
        low_rank.merge(merged, tmp_path)
        made, other = student(z, t, context), merged(z, t, context).sample
    assert float((made - plain).abs().max()) > 0.1
    torch.testing.assert_close(other, made, rtol=0, atol=0.02)  # what is written is in half precision
    student(z, t, context).square().mean().backward()
    assert all(p.grad is not None for p in student.parameters()) and model.unet.conv_in.weight.grad is None


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_merging_adds_the_scaled_product(tmp_path, alpha):
    """W + alpha / rank B A, for matrices and kernels."""
    network = nn.ModuleDict({"line": nn.Linear(5, 7), "conv": nn.Conv2d(5, 7, 3)})
    before = copy.deepcopy(network)
    pairs = {
        "line": (torch.randn(2, 5), torch.randn(7, 2)),
        "conv": (torch.randn(2, 5, 3, 3), torch.randn(7, 2, 1, 1)),
    }
    low_rank.save(tmp_path, pairs)
    if alpha is not None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(tmp_path / low_rank.FILE)
        tensors |= {f"unet.{name}.alpha": torch.tensor(alpha) for name in pairs}
        save_file(tensors, tmp_path / low_rank.FILE)
    low_rank.merge(network, tmp_path)
    scale = 1 if alpha is None else alpha / 2
    (a, b), (c, d) = ([part.half().float() for part in pair] for pair in pairs.values())
    line = before["line"].weight + scale * torch.einsum("or,ri->oi", b, a)
    conv = before["conv"].weight + scale * torch.einsum("or,rihw->oihw", d[..., 0, 0], c)
    torch.testing.assert_close(network["line"].weight, line)
    torch.testing.assert_close(network["conv"].weight, conv)
    assert torch.equal(network["conv"].bias, before["conv"].bias)


def test_a_moment_of_the_stage(tmp_path, monkeypatch):
    """It learns from the pipeline that ships, goes on from its checkpoint, logs, and installs a model that loads."""
    known, seen = load_cached("toybox").fingerprint(), []
    monkeypatch.setattr(train_fast, "GRID", train_fast.GRID[:1])
    train.train(tmp_path, SMALL, {"fast": MOMENT}, "cpu", seen.append)
    first = torch.load(tmp_path / "fast.pt")
    assert first["samples"] == seen[-1]["samples"] > 0 and seen[-1]["stage"] == "fast"
    assert all(math.isfinite(values["loss"]) for values in seen)
    seen.clear()
    train.train(tmp_path, SMALL, {"fast": 2.5 * first["spent"]}, "cpu", seen.append)
    again = torch.load(tmp_path / "fast.pt")
    assert seen[0]["samples"] == first["samples"] + SMALL.fast_batch
    drift = max(float((again["student"][k] - first["student"][k]).abs().max()) for k in first["student"])
    assert 0 < drift < 0.2, "it goes on from the weights, not from the start"
    assert {json.loads(line)["stage"] for line in (tmp_path / "log.jsonl").read_text().splitlines()} == {"fast"}
    assert list((tmp_path / "grids").glob("fast-*.webp"))
    place = tmp_path / "models" / FAST
    monkeypatch.setattr(train, "embedded_folder", lambda *_: place)
    assert train.install(tmp_path, ("fast",)) == [place]
    assert sum(path.stat().st_size for path in place.iterdir()) <= 4e6
    monkeypatch.setattr(
        "promptweave.models.embedded.embedded_folder",
        lambda name="toybox": place if name == FAST else embedded_folder(name),
    )
    assert pw.load(FAST, device="cpu").fingerprint() != known
    with pytest.raises(FileNotFoundError, match="Train first"):
        train.install(tmp_path / "nothing", ("fast",))


def test_the_folders_own_pipeline_teaches(tmp_path):
    shutil.copytree(embedded_folder(), tmp_path / "pipeline")
    assert teacher_of(tmp_path, "cpu").name == str(tmp_path / "pipeline")
