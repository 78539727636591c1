"""How the heads that come with the package are trained on the embedded world."""

from __future__ import annotations

from promptweave.perception.scenes import CLASSES, FAR
from promptweave.perception.tasks import Plan
from promptweave.world.render import SIDE

SCENES = 3000  # of training
TEMPLATES = ("a photo of a {}",)
TIME = 100  # of 1000: the maps of the embedded model are sharper there than at 1
PHRASE_TOKENS = 20


def world_plan(task: str, *, maps: bool = True, fine_tuned: bool = False) -> Plan:
    """The plan of a task in the embedded model."""
    size = (SIDE, SIDE)
    if task == "refer":
        return Plan(task, tokens=PHRASE_TOKENS, t=TIME, width=64, size=size, maps=maps, fine_tuned=fine_tuned)
    return Plan(
        task, CLASSES, templates=TEMPLATES, text="word", sink=True, t=TIME, width=72 if task == "segment" else 80,
        size=size, farthest=FAR, maps=maps, fine_tuned=fine_tuned,
    )  # fmt: skip
