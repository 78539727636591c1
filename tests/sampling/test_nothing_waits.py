"""Nothing in the loop waits for the device, seen without one: no number is read, and nothing is copied to or from it.

A stand-in for the device is "meta", whose tensors have a shape and no data: what would wait for a GPU fails there, and
what is left behind in main memory shows as a copy, or as an operation on tensors of two devices.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from families import BUILDERS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from promptweave import LocalBlend, RecordMaps, Refine, Replace, Reweight, load, noise_for, sample
from promptweave.core.control import Text
from promptweave.core.rows import Layout
from promptweave.core.schedule import Schedule
from promptweave.core.tapping import Tap
from promptweave.sampling.loop import Job
from promptweave.sampling.solver import Ddim
from promptweave.sampling.walk import drive, walk

PROMPTS = [
    "a photo of a cat riding a bike in the snow",
    "a photo of a dog riding a bike in the snow",
    "a photo of a red cat riding a bike in the snow",
]
STEPS = 5
META = torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select")  # what the host has to see
COPIES = ("_to_copy", "copy_", "_copy_from")


class Waits(TorchDispatchMode):
    """Counts, while it is `on`, what would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.seen = True, Counter[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made, name = func(*args, **(kwargs or {})), func.__name__
        given, out = ([x for x in tree_leaves(t) if isinstance(x, torch.Tensor)] for t in ((args, kwargs), made))
        # A tensor of one number from main memory is read by the host, which has it: nobody waits.
        host = any(x.device.type == "cpu" and (x.ndim or name.startswith(COPIES)) for x in given)
        if self.on and (name.startswith(READS) or (host and any(x.is_meta for x in [*given, *out]))):
            self.seen[name] += 1
        return made

    def __enter__(self):
        self.made = Made(self)
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)

    def watch(self, step, z) -> None:
        """From the end of the first step, which makes what is kept, to the beginning of the last."""
        self.on = step.index < STEPS - 1


class Made(TorchFunctionMode):
    """Counts tensors that are made of numbers for a device: `torch.tensor` copies them there."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        new = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        if self.waits.on and new and torch.device(kwargs.get("device") or "cpu") == META:
            self.waits.seen[func.__name__] += 1
        return func(*args, **kwargs)


def controls():
    return [
        Replace(targets=(1,)), Refine(targets=(2,)), Reweight({"bike": 2.0}),
        LocalBlend(("dog", "cat"), subtract=("snow",), mask=((1.0, 1.0), (0.0, 1.0)), start=0.0),
        RecordMaps(columns=(tuple(range(8)),) * 3),
    ]  # fmt: skip


def moved(text: Text) -> Text:
    def there(x):
        return None if x is None else x.to(META)

    return Text(*(there(x) for x in (text.cond, text.uncond, text.pooled, text.uncond_pooled)))


@pytest.fixture(scope="module", params=list(BUILDERS))
def models(request, tokenizer):
    """A family, and the same with networks that have no data."""
    pipeline = BUILDERS[request.param](tokenizer)
    for part in load(pipeline).parts:
        part.to(META)
    return load(BUILDERS[request.param](tokenizer)), load(pipeline)


def test_no_number_is_read_between_the_steps(models):
    model, _ = models
    if model.scheduler == "lcm":
        pytest.skip("diffusers' own scheduler of consistency models looks its tables up by number")
    with Waits() as waits:
        waits.on = False
        sample(
            model, PROMPTS, noise=noise_for(model, 0), steps=STEPS, guidance=3.0, controls=controls(),
            progress=waits.watch,
        )  # fmt: skip
    assert not waits.seen


@pytest.mark.parametrize("tapped", [False, True])
def test_what_a_network_is_given_is_on_its_device(models, tapped):
    model, away = models
    text, noise = moved(model.encode(PROMPTS[:1], [""])), noise_for(model, 0)
    tap = Tap.of(Layout(("cond",), 1), lambda site, rows: rows.put("cond", 0, v=2 * rows["cond"][0].v))
    with torch.no_grad():
        out = away.predict(
            noise.to(META), 500.0, text.cond, tap if tapped else None, pooled=text.pooled, guidance=3.0
        )  # fmt: skip
    assert out.is_meta and out.shape == noise.shape and out.dtype == noise.dtype


def test_nothing_is_copied_between_the_steps(models):
    """Whatever solver walks; the schedulers of diffusers would read their tables of times."""
    model, away = models
    if model.scheduler == "lcm":
        pytest.skip("diffusers embeds the guidance of consistency models in main memory")
    text, noise = moved(model.encode(PROMPTS, [""] * 3)), noise_for(model, 0)
    waits = Waits()
    solver = Ddim(Schedule(torch.linspace(1, 0.01, 1000).double()), STEPS)
    _, hooks = Job(PROMPTS, noise, STEPS, 3.0, controls()).bind(Unsolved(away, solver))
    waits.on = False
    with torch.no_grad(), waits:
        z = drive(away, [walk(away, solver, [text] * STEPS, noise.to(META), 3.0, hooks, progress=waits.watch)])[0]
    assert z.is_meta and not waits.seen


def test_a_copy_and_a_read_number_are_seen():
    with Waits() as waits:
        torch.zeros(3).to(META)
        torch.tensor([1.0], device=META)
        torch.zeros(()).item()
        torch.full((3,), 0.5, device=META) * torch.tensor(2.0)  # a number that the host has
    assert waits.seen == {"_to_copy.default": 1, "tensor": 1, "_local_scalar_dense.default": 1}


class Unsolved:
    """A model whose solver is another."""

    def __init__(self, model, solver) -> None:
        self._model, self._solver = model, solver

    def __getattr__(self, name):
        return getattr(self._model, name)

    def solver(self, *_):
        return self._solver
