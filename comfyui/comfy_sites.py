"""The attention layers of ComfyUI's networks, and the way from its attention function to the library's controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from promptweave.core.site import Kind, Place, Site
from promptweave.core.tapping import Tap
from promptweave.models.joint import FLUX_ROLES, roles_of

Grid = tuple[int, int]


def unet_sites(network: Any, latent_grid: Grid) -> tuple[Site, ...]:
    """The sites of a UNet of ComfyUI in execution order, with the library's names."""
    grid, skipped = latent_grid, [latent_grid]
    sites: list[Site] = []
    counts: dict[tuple[str, str], int] = {}
    for place, block, path in _blocks(network):
        for number, module in enumerate(block):
            called = type(module).__name__
            if called == "Downsample":  # stride 2 and padding 1, which rounds up
                grid = (grid[0] + 1) // 2, (grid[1] + 1) // 2
            elif called == "Upsample":
                grid = next(size for size in reversed(skipped) if size[0] > grid[0] or size[1] > grid[1])
            for depth, inner in enumerate(getattr(module, "transformer_blocks", ())):
                kinds: tuple[tuple[str, Any, Kind], ...] = (
                    ("attn1", inner.attn1, "self"),
                    ("attn2", inner.attn2, "cross"),
                )
                for name, layer, sort in kinds:
                    order = counts[place, sort] = counts.get((place, sort), -1) + 1
                    side = str(grid[0]) if grid[0] == grid[1] else f"{grid[0]}x{grid[1]}"
                    where = f"{path}.{number}.transformer_blocks.{depth}.{name}"
                    name_of = f"{place}_{sort}_{order}_res_{side}"
                    sites.append(Site(name_of, sort, place, len(sites), layer.heads, grid, where, dim=layer.dim_head))
        if place == "down":
            skipped.append(grid)
    return tuple(sites)


def _blocks(network: Any) -> Iterator[tuple[Place, Any, str]]:
    for index, block in enumerate(network.input_blocks):
        yield "down", block, f"input_blocks.{index}"
    yield "mid", network.middle_block, "middle_block"
    for index, block in enumerate(network.output_blocks):
        yield "up", block, f"output_blocks.{index}"


def flux_sites(network: Any, latent_grid: Grid, tokens: int) -> tuple[Site, ...]:
    """The sites of FLUX in ComfyUI in execution order: the text's `tokens`, then those of the image."""
    patch = network.patch_size
    grid = latent_grid[0] // patch, latent_grid[1] // patch
    text, image = slice(0, tokens), slice(tokens, tokens + grid[0] * grid[1])
    known = FLUX_ROLES.get((len(network.double_blocks), len(network.single_blocks)), {})
    sites: list[Site] = []
    for sort, blocks in (("double", network.double_blocks), ("single", network.single_blocks)):
        for number, block in enumerate(blocks):
            name, dim = f"{sort}_{number}", network.hidden_size // block.num_heads
            path = f"{sort}_blocks.{number}"
            sites.append(
                Site(
                    f"stream_{name}", "joint", "stream", len(sites), block.num_heads, grid, path, text, image, dim,
                    roles_of(name, known),
                )
            )  # fmt: skip
    return tuple(sites)


class AttentionOverride:
    """ComfyUI's `optimized_attention_override` of one forward pass under a tap; the n-th call is that of the n-th site.

    Layers in which no control changes a row are left to the function that ComfyUI has chosen.
    """

    def __init__(self, sites: Sequence[Site], tap: Tap, tokens: int) -> None:
        self.sites, self.tap, self.tokens = sites, tap, tokens
        self.calls = 0

    def __call__(self, attend: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **named: Any) -> Tensor:
        site = self._next(q, k, heads)
        split = not named.get("skip_reshape")
        by_head = (x.unflatten(-1, (heads, -1)).transpose(1, 2) if split else x for x in (q, k, v))
        queries, keys, values = by_head
        output = self.tap.attend(site, queries, keys, values)
        if output is None:
            return attend(q, k, v, heads, *args, **named)
        if named.get("mask") is not None or (args and args[0] is not None):
            raise ValueError(
                f"Attention under a mask cannot be edited. Received one in layer {site.name}. Remove the node that "
                "masks attention."
            )
        output = output.to(q.dtype)
        return output if named.get("skip_output_reshape") else output.transpose(1, 2).flatten(2)

    def finish(self) -> None:
        """Raise unless every layer has passed."""
        if self.calls != len(self.sites):
            raise ValueError(_other(f"{self.calls} of {len(self.sites)} attention layers were called"))

    def _next(self, q: Tensor, k: Tensor, heads: int) -> Site:
        if self.calls >= len(self.sites):
            raise ValueError(_other(f"more than {len(self.sites)} attention layers were called"))
        site = self.sites[self.calls]
        self.calls += 1
        queries = site.queries + (0 if site.text is None else self.tokens)
        wanted = queries, self.tokens if site.kind == "cross" else queries, site.heads
        found = q.shape[-2], k.shape[-2], heads
        if found != wanted:
            raise ValueError(_other(f"layer {site.name} has (queries, keys, heads) {found}, not {wanted}"))
        return site


def _other(what: str) -> str:
    return (
        f"The network's attention must run as ComfyUI's own does, layer by layer. Received a MODEL in which {what}. "
        "Connect the MODEL from before the node that changes its attention."
    )


def check_tap(tap: Tap) -> None:
    """Raise ValueError for what a control may ask for elsewhere and cannot have here."""
    asked = {
        "a text of its own for the values": tap.values is not None,
        "features of residual blocks": tap.features,
        "concepts that read the image": bool(tap.riding()),
        "passes that skip blocks": any(part.skip is not None for part in tap.parts),
    }
    for what, wanted in asked.items():
        if wanted:
            raise ValueError(f"In ComfyUI, controls act on attention and latents. Received one that needs {what}.")


def rows_of(t: int | float | Tensor, rows: int, device: torch.device) -> Tensor:
    """A noise level for each row."""
    if isinstance(t, Tensor):
        return t.to(device, torch.float32).expand(rows)
    return torch.full((rows,), t, dtype=torch.float32, device=device)
