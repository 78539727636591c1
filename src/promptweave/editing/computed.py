"""How a run was computed: what its last bits depend on beside the recipe, so that `replay` can do the same passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from promptweave.editing.values import BadValue, read_value
from promptweave.sampling.beside import Beside, Others

ROWS = 4096  # of others in one forward pass, in a file of a stranger
DEEP = 100  # recordings of recordings
LINES = tuple[tuple[int, Others, Others, bool], ...]


@dataclass(frozen=True)
class Computed:
    """`watched`: whether recorders read along. `beside`: the other runs that shared its forward passes, `plain`: those
    beside the run without controls, if it was compared with one. `recording`: how the recording of the source was made,
    if the run used one.

    Of a recording: `whole`: whether both halves of guidance were computed though edits read one; `prompts`: of its run.
    """

    watched: bool = False
    beside: tuple[Beside, ...] = ()
    plain: tuple[Beside, ...] | None = None
    recording: Computed | None = None
    whole: bool = False
    prompts: int = 1

    def as_dict(self) -> dict[str, Any]:
        """What differs from a run of its own, as values that JSON can hold."""
        recording = None if self.recording is None else self.recording.as_dict()
        values = {
            "watched": self.watched, "beside": _lines(self.beside), "whole": self.whole, "recording": recording,
            "plain": None if self.plain is None else _lines(self.plain), "prompts": self.prompts,
        }  # fmt: skip
        usual = {"watched": False, "beside": [], "plain": None, "whole": False, "recording": None, "prompts": 1}
        return {name: value for name, value in values.items() if value != usual[name]}

    @classmethod
    def from_dict(cls, values: Any, depth: int = 1) -> Computed:
        """The inverse of `as_dict`, for data that anybody may have written. Raises BadValue."""
        read = read_value(Mapping[str, Any], values, "computed")
        if depth > DEEP:
            raise BadValue(f"computed must be a chain of at most {DEEP} recordings. This one is longer.")
        given, plain = read.get("recording"), read.get("plain")
        prompts = read_value(int, read.get("prompts", 1), "computed.prompts")
        if not 1 <= prompts <= ROWS:
            raise BadValue(f"computed.prompts must be from 1 to {ROWS}. Received {prompts}.")
        return cls(
            read_value(bool, read.get("watched", False), "computed.watched"),
            _read(read.get("beside", []), "computed.beside"),
            None if plain is None else _read(plain, "computed.plain"),
            None if given is None else cls.from_dict(given, depth + 1),
            read_value(bool, read.get("whole", False), "computed.whole"),
            prompts,
        )

    @property
    def rows(self) -> int:
        """The most rows of other runs that stood beside it in a forward pass."""
        sizes = [sum(rows for rows, _ in (*one.before, *one.after)) for one in (*self.beside, *(self.plain or ()))]
        below = 0 if self.recording is None else max(self.recording.rows, self.recording.prompts)
        return max([below, *sizes])


def _lines(beside: tuple[Beside, ...]) -> list[Any]:
    return [[one.times, list(map(list, one.before)), list(map(list, one.after)), one.tapped] for one in beside]


def _read(lines: Any, name: str) -> tuple[Beside, ...]:
    found = tuple(Beside(*line) for line in read_value(LINES, lines, name))
    for one in found:
        others = (*one.before, *one.after)
        fits = all(copies >= 1 and rows >= copies and rows % copies == 0 for rows, copies in others)
        if one.times < 1 or not fits or sum(rows for rows, _ in others) > ROWS:
            raise BadValue(f"{name} must list forward passes of at most {ROWS} rows. Received {one}.")
    return found


def machine(device: torch.device) -> dict[str, str]:
    """What of a machine decides how sums round."""
    if device.type == "cuda":
        return {"the device": torch.cuda.get_device_name(device)}
    said = {"the device": device.type}
    if device.type == "cpu":
        said["the CPU's instruction set"] = torch.backends.cpu.get_cpu_capability()
        said["the number of threads"] = str(torch.get_num_threads())
    return said
