"""Nothing in the loop waits for the device, seen without one: no number is read, and nothing is copied to or from it.

A stand-in for the device is "meta", whose tensors have a shape and no data: what would wait for a GPU fails there, and
what is left behind in main memory shows as a copy, or as an operation on tensors of two devices. Networks are in half
precision there: what is left in another one fails at the first layer that reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from families import BUILDERS, build_flux_fill, build_inpainting, build_inpainting_xl
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import promptweave as pw
from promptweave import LocalBlend, RecordMaps, Refine, Replace, Reweight, load, methods, noise_for, sample
from promptweave.core.control import FirstPass
from promptweave.core.rows import Layout
from promptweave.core.schedule import Schedule
from promptweave.core.tapping import Tap
from promptweave.models import autoencoder
from promptweave.sampling.loop import Job, begun
from promptweave.sampling.solver import Ddim
from promptweave.sampling.walk import drive

PROMPTS = [
    "a photo of a cat riding a bike in the snow",
    "a photo of a dog riding a bike in the snow",
    "a photo of a red cat riding a bike in the snow",
]
STEPS = 3
META = torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select")  # what the host has to see
COPIES = ("_to_copy", "copy_", "_copy_from")


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.entered = Counter[str](), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made, name = func(*args, **(kwargs or {})), func.__name__
        given, out = ([x for x in tree_leaves(t) if isinstance(x, torch.Tensor)] for t in ((args, kwargs), made))
        # A tensor of one number from main memory is read by the host, which has it: nobody waits.
        host = any(x.device.type == "cpu" and (x.ndim or name.startswith(COPIES)) for x in given)
        if name.startswith(READS) or (host and any(x.is_meta for x in [*given, *out])):
            self.seen[name] += 1
        return made

    def __enter__(self):
        self.made, self.entered = Made(self), True
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)
        self.entered = False

    def watch(self, step, z) -> None:
        """From the end of the first step, which makes what is kept, to that of the last."""
        if step.index == 0:
            self.__enter__()
        elif step.index == STEPS - 1:
            self.__exit__(None, None, None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around a run that tells `watch` of its steps, and may fail between them."""
        try:
            yield
        finally:
            if self.entered:
                self.__exit__(None, None, None)


class Made(TorchFunctionMode):
    """Counts tensors that are made of numbers for a device: `torch.tensor` copies them there."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        new = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        if new and torch.device(kwargs.get("device") or "cpu") == META:
            self.waits.seen[func.__name__] += 1
        return func(*args, **kwargs)


def controls():
    return [
        Replace(targets=(1,), joint=0.7), Refine(targets=(2,), joint=0.7), Reweight({"bike": 2.0}),
        LocalBlend(("dog", "cat"), subtract=("snow",), mask=((1.0, 1.0), (0.0, 1.0)), start=0.0),
        RecordMaps(columns=(tuple(range(8)),) * 3),
    ]  # fmt: skip


def emptied(pipeline, dtype: torch.dtype):
    """The model of a pipeline whose networks have no data."""
    for part in load(pipeline).parts:
        part.to(META, dtype)
    return load(pipeline)


@pytest.fixture(scope="module", params=list(BUILDERS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def away(family, tokenizer):
    """A family whose networks have no data."""
    return emptied(BUILDERS[family](tokenizer), torch.bfloat16)


def test_no_number_is_read_between_the_steps(family, tokenizer):
    """With the family's own solver."""
    model, waits = load(BUILDERS[family](tokenizer)), Waits()
    with waits.watching():
        sample(
            model, PROMPTS, noise=noise_for(model, 0), steps=STEPS, guidance=3.0, controls=controls(),
            progress=waits.watch,
        )  # fmt: skip
    own = model.scheduler == "lcm"  # diffusers' own scheduler of consistency models looks its tables up by number
    assert not waits.seen or own


@contextmanager
def inputs_of(model) -> Iterator[list[torch.Tensor]]:
    """The tensors that networks are given inside."""
    found: list[torch.Tensor] = []
    hooks = [
        part.register_forward_pre_hook(
            lambda _, args, named: found.extend(x for x in tree_leaves((args, named)) if isinstance(x, torch.Tensor)),
            with_kwargs=True,
        )
        for part in model.parts
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def fed(model, prompts) -> None:
    """What a network is given, from the text on, is on its device, and its numbers in its precision or a finer one."""
    noise = noise_for(model, 0)
    edit = Tap.of(Layout(("cond",), 1), lambda site, rows: rows.put("cond", 0, v=2 * rows["cond"][0].v))
    with torch.no_grad(), inputs_of(model) as given:
        text = model.encode(prompts, [""])
        z = model.to_latent(torch.rand(1, *model.default_size, 3))
        out = [
            model.predict(noise.to(META), 500.0, text.cond, tap, pooled=text.pooled, guidance=3.0)
            for tap in (None, edit)
        ]
    assert all(x.is_meta and x.shape == noise.shape and x.dtype == noise.dtype for x in (z, *out))
    assert len(given) > 4 and all(x.is_meta for x in given)
    assert {text.cond.dtype, text.uncond.dtype} == {model.dtype}
    precise = [x.dtype for x in given if x.is_floating_point() and x.ndim > 1]
    assert precise and set(precise) == {model.dtype}, "all but times and scales, which networks embed in full"


@pytest.fixture
def sound(monkeypatch):
    """An image without data is taken to be finite."""
    monkeypatch.setattr(autoencoder, "finite", lambda x: True)


def test_what_a_network_is_given_is_its_own(away, sound):
    fed(away, PROMPTS[:1])


@pytest.mark.parametrize("build", [build_inpainting, build_inpainting_xl, build_flux_fill])
def test_what_an_inpainting_network_is_given_is_its_own(build, tokenizer, sound):
    model = emptied(build(tokenizer), torch.float16)
    noise = noise_for(model, 0).to(META)
    with torch.no_grad(), inputs_of(model) as given:
        picture = torch.rand(1, *model.default_size, 3)
        more = model.masked(picture, torch.ones(model.default_size, dtype=torch.bool))
        text = model.encode(PROMPTS[:1], [""])
        z = torch.cat([noise, more.to(noise)], 1)
        out = model.predict(z, 500.0, text.cond, pooled=text.pooled, guidance=3.0)
    assert out.is_meta and all(x.is_meta for x in given)
    assert {x.dtype for x in given if x.is_floating_point() and x.ndim > 1} == {torch.float16}


def walked(away, prompts, wanted) -> Counter[str]:
    """What waits in a run with these controls, whatever its solver: diffusers' would read their tables of times."""
    noise, waits = noise_for(away, 0), Waits()
    model = Unsolved(away, Ddim(Schedule(torch.linspace(1, 0.01, 1000).double()), STEPS))
    job = Job(prompts, noise, STEPS, 3.0, wanted)
    with torch.no_grad(), waits.watching():
        run, hooks = job.bind(model)
        needs = {need for control in wanted for need in control.needs}
        if needs & {"latents", "maps"}:
            seen = [RecordMaps(control.first_pass_sites(run)) for control in wanted if "maps" in control.needs]
            alone = replace(job, prompts=prompts[:1], controls=seen)
            recorders = alone.bind(model)[1]
            z = drive(model, [begun(model, alone, recorders)])[0]
            _, hooks = job.bind(model, FirstPass(z[0], recorders[0].maps if seen else None))
        z = drive(model, [begun(model, replace(job, progress=waits.watch), hooks)])[0]
    assert z.is_meta and z.dtype == noise.dtype
    return waits.seen


def test_nothing_is_copied_between_the_steps(away):
    assert not walked(away, PROMPTS, controls())


MASK, WORD = ((1.0, 0.0), (0.0, 1.0)), "bike"
SELF, JOINT = "down_self_0", "stream_joint_0"
UNET = {
    "guidance": [
        pw.PerturbedAttentionGuidance(layers=SELF), pw.SmoothedEnergyGuidance(sigma=2.0, layers=SELF),
        pw.SkipLayerGuidance(layers=(1,), window=1.0), pw.SemanticGuidance({"a dog": 5}, warmup=0.0, attention=True),
    ],
    "layout": [
        pw.SharedStart(0.7), pw.DirectedDiffusion({WORD: (0, 0, 0.5, 0.5)}, share=1.0), pw.PlugAndPlay(),
        pw.StructuredDiffusion(("a bike",), "values"), pw.Inpaint(MASK),
    ],
    "appearance": [
        pw.PromptMixing("cat", "dog", 1.0, WORD, 1.0, background=0.0), pw.StructuredDiffusion(("a bike",), "keys"),
        pw.MasaCtrl(start=0, words=WORD), pw.MasaCtrl(start=0, masks=(MASK, MASK)), pw.MasaCtrl(start=0, union=True),
    ],
    "gradients": [pw.AttendAndExcite((WORD,), 1.0, thresholds=()), pw.Pix2PixZero("cat", "dog")],
    "differences": [pw.DeltaDenoising(rounds=1)],
    "contrasts": [pw.ContrastiveDenoising(rounds=1)],
    "two passes": [Refine(two_pass=True)],
}  # fmt: skip
FLOW = {
    "guidance": [
        Replace(joint=0.7), pw.UniEdit(), pw.DirectEdit(inject=0.7), pw.PerturbedAttentionGuidance(layers=JOINT),
        pw.SmoothedEnergyGuidance(sigma=2.0, layers=JOINT), pw.SkipLayerGuidance(layers=(1,), window=1.0),
    ],
    "regions": [pw.Consist(("cat",))],
    "background": [pw.KVEdit(MASK, reinitialise=True)],
    "path": [pw.FlowEdit(strength=1.0)],
}  # fmt: skip
# What is drawn on the way is drawn by the host, so that a seed gives the same image on every device, and copied.
DRAWN = {"differences", "contrasts", "path"}


@pytest.fixture(scope="module")
def networks(tokenizer):
    return {
        "UNet": emptied(BUILDERS["Stable Diffusion 1.x"](tokenizer), torch.bfloat16),
        "MM-DiT": emptied(BUILDERS["Stable Diffusion 3"](tokenizer), torch.bfloat16),
    }


@pytest.mark.parametrize("kind, name", [*(("UNet", name) for name in UNET), *(("MM-DiT", name) for name in FLOW)])
def test_no_control_waits(networks, kind, name):
    wanted = (UNET if kind == "UNet" else FLOW)[name]
    same = kind == "UNet" and name in ("gradients", "appearance")  # which need the source's own prompt
    seen = walked(networks[kind], [PROMPTS[0], PROMPTS[0 if same else 2]], wanted)
    assert set(seen) == ({"_to_copy.default"} if name in DRAWN else set())


def test_every_control_is_among_them():
    every = {kind for kind in vars(methods).values() if isinstance(kind, type) and issubclass(kind, pw.Control)}
    seen = {type(one) for runs in ([controls()], UNET.values(), FLOW.values()) for wanted in runs for one in wanted}
    assert seen >= every


def test_only_a_threshold_reads_a_number(networks):
    """Attend-and-Excite repeats its moves until a subject has enough attention."""
    with pytest.raises(RuntimeError, match="item"):
        walked(networks["UNet"], PROMPTS[:1], [pw.AttendAndExcite((WORD,), thresholds=((0.4, 0.5),))])


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
