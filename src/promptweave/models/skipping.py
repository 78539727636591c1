"""Transformer blocks that some rows of a batch skip, so that their input is their output (Skip-Layer Guidance)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from promptweave.core.site import Site
from promptweave.core.tapping import Tap, outside_graphs
from promptweave.models.switched import shown


def block_path(site: Site) -> str:
    """The path of the transformer block that an attention layer belongs to.

    >>> block_path(Site("stream_joint_7", "joint", "stream", 7, 2, (8, 8), "transformer_blocks.7.attn"))
    'transformer_blocks.7'
    """
    return site.path.rpartition(".")[0]


@contextmanager
def skipped(network: Any, sites: Sequence[Site], tap: Tap) -> Iterator[None]:
    """Inside, parts of a tap's batch that skip a block get the block's input as its output."""
    blocks: dict[str, list[slice]] = {}
    for site in sites:
        rows = tap.skipping(site)
        if rows:
            blocks[block_path(site)] = rows
    if blocks:
        shown(network, "the inputs of transformer blocks")

    @outside_graphs
    def passed(rows: list[slice], module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        image = given["hidden_states"]
        if isinstance(output, Tensor):
            return _with(output, image, rows)
        text, made = output  # as joint blocks return them; the last block returns no text
        return None if text is None else _with(text, given["encoder_hidden_states"], rows), _with(made, image, rows)

    handles: list[Any] = []
    try:
        for path, rows in blocks.items():
            block = network.get_submodule(path)
            handles.append(block.register_forward_hook(partial(passed, rows), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with(output: Tensor, given: Tensor, rows: list[slice]) -> Tensor:
    output = output.clone()
    for where in rows:
        output[where] = given[where]
    return output
