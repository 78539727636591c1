"""Attention of a layer of which it is known which rows it reads: the fewest operations and calls that give it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.core.memory import Layer
from promptweave.core.routes import Gather, Plan, Route, Watched
from promptweave.core.rows import Row
from promptweave.core.site import Site
from promptweave.core.tapping import Tap


def plain(attn: Any) -> bool:
    """Whether a layer does nothing beside attention to tokens and the projections around it."""
    return (
        attn.spatial_norm is None
        and attn.group_norm is None
        and not attn.norm_cross
        and attn.norm_q is None
        and attn.norm_k is None
        and not attn.residual_connection
        and attn.rescale_output_factor == 1
    )


Project = Callable[[Tensor], Tensor]


def attention(
    attn: Any, x: Tensor, layer: Layer | None, plan: Plan, tap: Tap, site: Site, project: Project | None = None
) -> Tensor:
    """The layer's output for tokens [rows, tokens, dim]. `layer`: keys and values of a text; None: those of `x`.
    `project`: a text to keys, for hooks that watch."""
    parts, heads = attn._modules, attn.heads  # a module's own look-up of its parts takes longer than a part's call
    route = plan if isinstance(plan, Route) else None
    if route is None:
        q = _by_head(parts["to_q"](x), heads)
        k, v = (_by_head(parts["to_k"](x), heads), _by_head(parts["to_v"](x), heads)) if layer is None else layer.both
        if isinstance(plan, Watched):
            tap.watched(site, q, k, v, project, layer)
            route = plan.route
            if route is not None:
                q, k, v = _gathered(q, k, v, layer, route, tap, site)
    elif layer is None:
        q, k, v = _of_itself(parts, x, heads, route, tap, site)
    else:
        q = _rows(parts["to_q"], x, heads, route.q, _asked(tap, site, route.q), "q")
        k, v = _of_text(layer, route, tap, site)
    output = F.scaled_dot_product_attention(q, k, v)
    if route is not None:
        output = route.summed(output)
    return _projected(parts["to_out"], output.transpose(1, 2).flatten(2))


def _of_text(layer: Layer, route: Route, tap: Tap, site: Site) -> tuple[Tensor, Tensor]:
    """Keys and values of cross-attention, gathered once."""
    keys = [row.k for row in _asked(tap, site, route.k)]
    return layer.rows(route, keys, lambda: (route.k(layer.k, keys), route.values(layer.v)))


def _gathered(
    q: Tensor, k: Tensor, v: Tensor, layer: Layer | None, route: Route, tap: Tap, site: Site
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that are read, of queries, keys and values of the batch."""
    q = route.q(q.transpose(1, 2), [row.q.transpose(1, 2) for row in _asked(tap, site, route.q)]).transpose(1, 2)
    if layer is not None:
        return q, *_of_text(layer, route, tap, site)
    return q, route.k(k, [row.k for row in _asked(tap, site, route.k)]), route.values(v)


def _of_itself(parts: Any, x: Tensor, heads: int, route: Route, tap: Tap, site: Site) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of self-attention."""
    same = route.q.pieces == route.k.pieces
    if same and not route.q.prompts:  # what both read is gathered once
        read = route.q(x)
        q, k = _by_head(parts["to_q"](read), heads), _by_head(parts["to_k"](read), heads)
    elif route.v.pieces == route.k.pieces and not (route.tokens or route.k.prompts):
        read = route.k(x)
        q = _rows(parts["to_q"], x, heads, route.q, _asked(tap, site, route.q), "q")
        return q, _by_head(parts["to_k"](read), heads), _by_head(parts["to_v"](read), heads)
    else:
        asked = _asked(tap, site, route.q)
        q = _rows(parts["to_q"], x, heads, route.q, asked, "q")
        k = _rows(parts["to_k"], x, heads, route.k, asked if same else _asked(tap, site, route.k), "k")
    if route.tokens or route.v.whole or route.v.pieces != route.k.pieces:
        return q, k, route.values(_by_head(parts["to_v"](x), heads))
    return q, k, _rows(parts["to_v"], x, heads, route.v, [], "v")


def _asked(tap: Tap, site: Site, gather: Gather) -> list[Row]:
    return tap.recorded(site, gather.prompts) if gather.prompts else []


def _rows(project: Any, x: Tensor, heads: int, gather: Gather, recorded: list[Row], name: str) -> Tensor:
    """The projection of the rows that are read, gathered; in memory [rows, tokens, heads, dim] as all others."""
    needed, own = gather.needed, None
    if needed is not None:
        made = project(x[needed])
        own = made.view(*made.shape[:2], heads, -1)
    more = [getattr(row, name).transpose(1, 2) for row in recorded]
    return gather.narrowed(own, more).transpose(1, 2)


def _by_head(x: Tensor, heads: int) -> Tensor:
    rows, tokens, width = x.shape
    return x.view(rows, tokens, heads, width // heads).transpose(1, 2)


def _projected(out: Any, x: Tensor) -> Tensor:
    """The output projection; a dropout that is off drops nothing."""
    if out is None:
        return x
    for part in out._modules.values():
        if type(part) is not nn.Dropout or part.training:
            x = part(x)
    return x
