"""A course: examples, plan, training and measuring of a task in one call, as the command perceive-train runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from promptweave.models.base import Model
from promptweave.perception.learning import FILE, Watch, learn
from promptweave.perception.lessons import Lessons
from promptweave.perception.perceiver import Perceiver
from promptweave.perception.readers import ADE20K, NYUv2, RefCOCO
from promptweave.perception.recipes import SCENES, world_plan
from promptweave.perception.samples import Examples
from promptweave.perception.scenes import UNSEEN, Scenes
from promptweave.perception.tasks import Plan

WIDTHS = {"segment": 256, "refer": 640, "depth": 1536}  # of the published heads
TOKENS = {"refcoco": 40, "refcoco+": 40, "refcocog": 77}  # read of a phrase, as published
TEMPLATES = ("{}", "a photo of a {}", "a photo of the {}", "a photo of one {}", "a picture with a {} in it")
MEASURED = 400  # unseen scenes
ONLY_DATA = ("split", "measured", "width", "size", "time", "published_scale")
ONLY_REFER = ("collection", "split_by")


@dataclass(frozen=True)
class Course:
    """What to train on, for which task, with which head. `data`: a data set's folder; None: scenes of the world, of
    which `scenes` are drawn. `unseen`: how many examples of the split `measured` are measured."""

    task: str
    data: Path | None = None
    split: str = "train"
    measured: str | None = None
    collection: str = "refcoco"
    split_by: str = "unc"
    scenes: int = SCENES
    unseen: int | None = None
    width: int | None = None
    size: tuple[int, int] | None = None
    time: int | float = 1
    published_scale: bool = False
    maps: bool = True

    def check(self) -> None:
        """Raise ValueError for settings that cannot act."""
        idle = ONLY_DATA if self.data is None else ("scenes",)
        idle += () if self.task == "refer" and self.data is not None else ONLY_REFER
        usual = {one.name: one.default for one in fields(self)}
        for name in idle:
            if getattr(self, name) != usual[name]:
                where = "scenes of the world" if name == "scenes" else "a data set" if name in ONLY_DATA else "RefCOCO"
                raise ValueError(f"{name} acts only with {where}. Received {getattr(self, name)!r}. Leave it out.")

    def examples(self, unseen: bool = False) -> Examples:
        """The examples to train on, or those to measure."""
        if self.data is None:
            return Scenes(self.task, self.unseen or MEASURED, UNSEEN) if unseen else Scenes(self.task, self.scenes)
        split = (self.measured or "val") if unseen else self.split
        if self.task == "segment":
            return ADE20K(self.data, split)
        if self.task == "refer":
            return RefCOCO(self.data, split, self.collection, self.split_by)
        return NYUv2(self.data, split)

    def plan(self, model: Model, examples: Examples, lessons: Lessons) -> Plan:
        """The plan of the head in a model."""
        # Examples are mirrored in the steps through the network alone; a head that ends with other steps forgets them.
        fine_tuned, mirrored = bool(lessons.fine_tune), self.task != "refer" and not lessons.steps
        if self.data is None:
            return replace(world_plan(self.task, maps=self.maps, fine_tuned=fine_tuned), mirrored=mirrored)
        classes = tuple(examples.classes)
        time = int(self.time) if self.time == int(self.time) else self.time
        return Plan(
            self.task, classes if self.task == "segment" else (), classes if self.task == "depth" else (), TEMPLATES,
            maps=self.maps, t=time, published_scale=self.published_scale, tokens=TOKENS.get(self.collection, 40),
            width=self.width or WIDTHS[self.task], size=self.size or model.default_size,
            fine_tuned=fine_tuned, mirrored=mirrored,
        )  # fmt: skip


def run_course(
    model: Model, course: Course, lessons: Lessons, folder: Path | None = None, watch: Watch | None = None
) -> dict[str, float]:
    """Train a perceiver, write it to `folder`, and return its figures on unseen examples (empty with `unseen=0`)."""
    course.check()
    lessons.check()
    unseen = None if course.unseen == 0 else course.examples(unseen=True)  # a split that is missing raises here
    examples = course.examples()
    with torch.random.fork_rng():
        torch.manual_seed(lessons.seed)
        perceiver = Perceiver(model, course.plan(model, examples, lessons))
    learn(perceiver, examples, lessons, folder, watch)
    if unseen is None:
        return {}
    if folder is not None:  # the file's half precision is what will be used
        perceiver = Perceiver.load(folder / FILE, model)
    told = None if watch is None else lambda share: watch({"stage": "measuring", "share": share})
    return judge(perceiver, unseen, course.unseen, told)


def judge(
    perceiver: Perceiver, examples: Examples, count: int | None = None, told: Callable[[float], object] | None = None
) -> dict[str, float]:
    """The figures of a perceiver's answers, with windows and mirror images, on the first `count` examples."""
    measure, number = perceiver.plan.measure(), min(count or len(examples), len(examples))
    for index in range(number):
        sample = examples[index]
        picture = torch.from_numpy(np.array(sample.picture)).float() / 255
        measure.add(perceiver.answer(picture, phrase=sample.phrase, kind=sample.kind).cpu().numpy(), sample.target)
        if told:
            told((index + 1) / number)
    return measure.figures()
