"""An exception in any hook of a control, at any step, leaves the network as it was: for every family."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from families import BUILDERS

import promptweave as pw
from promptweave.core.control import Control, Extra, Hooks

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
REPLACE = pw.Replace(1.0, 0.5, joint=0.5)
HOOKS = (
    "strength", "condition", "before_step", "observe", "attention", "feature", "extras", "prediction", "after_step"
)  # fmt: skip


class Injected(Exception):
    """Nothing but a test raises this."""


@dataclass(frozen=True)
class Failing(Control):
    """Raises in one of its hooks, at one of its calls. It asks for a further prediction, so that all are called."""

    hook: str
    call: int

    def bind(self, run):
        left, original = [self.call], getattr(Hooks, self.hook)

        def failing(hooks, *given):
            left[0] -= 1
            if left[0] < 0:
                raise Injected(self.hook)
            return original(hooks, *given)

        asking = {"extras": lambda hooks, step: {"more": Extra()}}
        return type("Fails", (Hooks,), {**asking, self.hook: failing})()


def state(model):
    """All that a run could leave behind: processors, hooks, modes and weights."""
    parts = {name: part for name, part in model.pipeline.components.items() if isinstance(part, torch.nn.Module)}
    modules = {f"{name}.{path}": each for name, part in parts.items() for path, each in part.named_modules()}
    found = {}
    for path, module in modules.items():
        hooks = [len(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        found[path] = (id(getattr(module, "processor", None)), hooks, module.training, "forward" in vars(module))
    weights = [x for part in parts.values() for x in part.state_dict().values()]
    return found, weights, [x.requires_grad for part in parts.values() for x in part.parameters()]


@pytest.mark.parametrize("family", BUILDERS)
def test_the_network_is_restored_after_an_exception_in_any_hook(family, tokenizer):
    model, draw = pw.load(BUILDERS[family](tokenizer)), random.Random(family)
    guidance = 3.0 if model.guided or model.defaults[1] != 1.0 else 1.0
    settings = {"model": model, "steps": 2, "guidance": guidance}
    wanted = pw.edit(SOURCE, TARGET, controls=[REPLACE], **settings).sample.latents
    before, weights, grads = state(model)
    kept = [x.clone() for x in weights]
    raised = 0
    for hook in HOOKS:
        if hook == "feature" and not model.blocks():
            continue
        with pytest.raises(Injected, match=hook):
            pw.edit(SOURCE, TARGET, controls=[REPLACE, Failing(hook, draw.randrange(2))], **settings)
        raised += 1
        after, now, flags = state(model)
        assert after == before and flags == grads, hook
        assert all(torch.equal(x, y) for x, y in zip(now, kept, strict=True)), hook
    assert raised >= len(HOOKS) - 1
    assert torch.equal(pw.edit(SOURCE, TARGET, controls=[REPLACE], **settings).sample.latents, wanted)
