"""How much memory a gradient through a network takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GradientMemory:
    """Bytes of a gradient through the network, for one image: `weights` of all parts of the model, and what the
    forward pass keeps for the backward pass, all of it (`kept`) or under gradient checkpointing (`checkpointed`).

    Working memory of single operations and what a GPU's libraries take for themselves come on top.
    """

    weights: int
    kept: int
    checkpointed: int

    def peak(self, *, checkpointing: bool) -> int:
        """The bytes of weights and activations together."""
        return self.weights + (self.checkpointed if checkpointing else self.kept)

    def told(self) -> str:
        """
        >>> GradientMemory(2 * 10**9, 3 * 10**9, 5 * 10**8).told()
        'about 5.0 GB (2.0 GB of weights, 3.0 GB of activations), 2.5 GB with checkpointing=true'
        """
        parts = (self.peak(checkpointing=False), self.weights, self.kept, self.peak(checkpointing=True))
        all_, weights, kept, less = (_size(part) for part in parts)
        return f"about {all_} ({weights} of weights, {kept} of activations), {less} with checkpointing=true"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
