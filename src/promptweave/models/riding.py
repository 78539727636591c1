"""Riders in joint networks: a further stream of tokens, which reads the image and is read by none.

As the text's, the stream is normalised, projected and updated by the text's weights of each block; its queries attend
to its own tokens and to the image's. The network's own pass stays what it is, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.core.riders import Ride, Riders
from promptweave.core.site import Site
from promptweave.core.tapping import Tap, outside_graphs
from promptweave.models.joint_heads import of_text
from promptweave.models.switched import shown


class Stream:
    """Riders in one pass: their `states` [rows, riders, channels] between blocks; `rows`: of the batch.

    The rest is what a block makes of them on its way: normalised states, the gates of its updates, and the attention's
    output.
    """

    def __init__(self, rows: slice, riders: Riders, states: Tensor) -> None:
        self.rows, self.riders, self.states = rows, riders, states
        self.normed, self.output = states, states
        self.gates: tuple[Tensor, ...] = ()


class Riding:
    """The riders of a forward pass, block by block."""

    def __init__(self, network: Any, tap: Tap) -> None:
        self.network, self.wanted = network, tap.riding()
        self.time: Tensor | None = None  # what modulates the stream: the time, without the prompt's pooled vector
        self.streams: list[Stream] = []

    @outside_graphs
    def begin(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the network embeds time, guidance and pooled text: the same without the text (zeros), as the authors
        have it; the riders are embedded like a text."""
        *times, pooled = args
        self.time = module.forward(*times, torch.zeros_like(pooled))
        weight = self.network.context_embedder.weight
        self.streams = []
        for rows, riders in self.wanted:
            states: Tensor = self.network.context_embedder(riders.tokens.to(output.device, weight.dtype))
            self.streams.append(Stream(rows, riders, states.expand(rows.stop - rows.start, *states.shape)))

    @outside_graphs
    def enter(self, block: Any, args: Any, kwargs: Any) -> None:
        """Before a block: the states are normalised and modulated. A block that ends the text's stream has no gates."""
        assert self.time is not None
        for stream in self.streams:
            time = self.time[stream.rows]
            if getattr(block, "context_pre_only", False):
                stream.normed, stream.gates = block.norm1_context(stream.states, time), ()
            else:
                stream.normed, *gates = block.norm1_context(stream.states, emb=time)
                stream.gates = tuple(gate.unsqueeze(1) for gate in gates)

    def attend(self, attn: Any, site: Site, whole: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """At the attention layer of a block: `whole` queries, keys and values of text and image, and their `output`."""
        for stream in self.streams:
            q, k, v = of_text(attn, stream.normed)  # of position 0 where positions turn them: as they are
            rows, image = stream.rows, site.image
            image_q, image_k, image_v = (x[rows][:, :, image] for x in whole)
            made = F.scaled_dot_product_attention(q, torch.cat([k, image_k], 2), torch.cat([v, image_v], 2))
            stream.output = made.transpose(1, 2).flatten(2).to(q.dtype)
            seen = output[rows][:, :, image].transpose(1, 2).flatten(2)
            stream.riders.look(site, Ride(stream.output, k, seen, image_q))

    @outside_graphs
    def leave(self, block: Any, args: Any, kwargs: Any, output: Any) -> None:
        """After a block: the states are updated as the text's are."""
        for stream in self.streams:
            if not stream.gates:
                continue
            gate, shift, scale, gate_further = stream.gates
            states = stream.states + gate * block.attn.to_add_out(stream.output)
            further = block.ff_context(block.norm2_context(states) * (1 + scale) + shift)
            states = states + gate_further * further
            stream.states = states.clip(-65504, 65504) if states.dtype == torch.float16 else states


@contextmanager
def riding(network: Any, tap: Tap) -> Iterator[Riding | None]:
    """Inside, the riders of a tap go through the network; None if there are none."""
    if not tap.riding():
        yield None
        return
    shown(network, "the text's stream of transformer blocks")
    made, handles = Riding(network, tap), list[Any]()
    try:
        handles.append(network.time_text_embed.register_forward_hook(made.begin))
        for block in network.transformer_blocks:
            handles.append(block.register_forward_pre_hook(made.enter, with_kwargs=True))
            handles.append(block.register_forward_hook(made.leave, with_kwargs=True))
        yield made
    finally:
        for handle in handles:
            handle.remove()
