"""The conditional invertible network: an exact, invertible map between codes and residuals, given a condition.

Network-to-Network Translation with Conditional Invertible Neural Networks (Rombach, Esser and Ommer, 2020,
arXiv:2005.13580), section 3. A code z of one network and a condition c of another give the residual v = T(z | c). T is
trained so that v is Gaussian noise that says nothing about c (equations 5 and 6); then z = T^-1(v | c) samples codes
for a condition, and T^-1(T(z | c) | c') keeps what c does not say (section 4).

A block is ActNorm, an optional activation, an affine coupling of both halves and a fixed permutation, in that order.

Differs from the authors' code:
- The leaky activation has its log-determinant, log(slope) for each negative value; theirs says 0, which is wrong for
  every slope but 1.
- The embedder normalises each sample (LayerNorm), not the batch: training and use compute the same, and a batch of one
  can be trained on.
- ActNorm's data-dependent initialisation is a call of its own, `ConditionalFlow.initialise`, not a side effect of the
  first forward pass; whether it took place is saved with the weights.
- Codes may have an odd size; the last layers of the couplings start at zero, so that an untrained network is a
  permutation and a scale.
FrEIA 0.2 has such blocks, too, but seeds NumPy's global generator for its permutations and initialises ActNorm in
whatever pass comes first, the inverse one included.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

Codes = Float[Tensor, "batch dim"]
Conditions = Float[Tensor, "batch condition"]
LogDet = Float[Tensor, "batch"]

EPSILON = 1e-6  # added to standard deviations, as published


@dataclass(frozen=True)
class FlowSizes:
    """The sizes of a network. The paper's text-to-image network has embedding 256, 24 blocks and hidden 1024.

    `dim`: size of a code. `condition`, `embedding`: sizes of a condition, and of what the couplings see of it.
    `blocks`: number of flow blocks. `hidden`, `depth`: width and number of hidden-to-hidden layers in the couplings.
    `slope`: of the leaky activation on negative values; 1 for none.
    """

    dim: int
    condition: int
    embedding: int = 64
    blocks: int = 8
    hidden: int = 128
    depth: int = 1
    slope: float = 1.0

    def __post_init__(self) -> None:
        least = {"dim": 2, "condition": 1, "embedding": 1, "blocks": 1, "hidden": 1, "depth": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"The {name} of a flow is a whole number of at least {low}. Received {asdict(self)}.")
        if not 0 < self.slope <= 1:
            raise ValueError(f"The slope of a flow is above 0 and at most 1 (none). Received {self.slope}.")


def perceptron(inputs: int, hidden: int, outputs: int, depth: int) -> nn.Sequential:
    """A network of `depth` + 2 linear layers with leaky activations between them; the last starts at zero."""
    sizes = [inputs, *[hidden] * (depth + 1)]
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.01)]
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class ActNorm(nn.Module):
    """A scale and a shift of each component: y = scale (z + shift)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialise(self, z: Codes) -> None:
        """Give these codes mean 0 and standard deviation 1."""
        self.shift.copy_(-z.mean(0))
        self.log_scale.copy_(-(z.std(0) + EPSILON).log())

    def forward(self, z: Codes) -> tuple[Codes, LogDet]:
        return (z + self.shift) * self.log_scale.exp(), self.log_scale.sum().expand(len(z))

    def inverse(self, y: Codes) -> Codes:
        return y * (-self.log_scale).exp() - self.shift


class Leaky(nn.Module):
    """Negative values times a slope; its log-determinant is the number of negative values times log(slope)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, z: Codes) -> tuple[Codes, LogDet]:
        scale = torch.where(z < 0, self.slope, torch.ones_like(z))
        return z * scale, scale.log().sum(1)

    def inverse(self, y: Codes) -> Codes:
        return torch.where(y < 0, y / self.slope, y)


class Half(nn.Module):
    """One half of a coupling: y = x exp(s(other, e)) + t(other, e), with s in (-1, 1)."""

    def __init__(self, given: int, changed: int, sizes: FlowSizes) -> None:
        super().__init__()
        inputs = given + sizes.embedding
        self.s = perceptron(inputs, sizes.hidden, changed, sizes.depth)
        self.t = perceptron(inputs, sizes.hidden, changed, sizes.depth)

    def forward(self, x: Tensor, other: Tensor, e: Tensor) -> tuple[Tensor, LogDet]:
        seen = torch.cat([other, e], 1)
        s = self.s(seen).tanh()
        return x * s.exp() + self.t(seen), s.sum(1)

    def inverse(self, y: Tensor, other: Tensor, e: Tensor) -> Tensor:
        seen = torch.cat([other, e], 1)
        return (y - self.t(seen)) * (-self.s(seen).tanh()).exp()


class Coupling(nn.Module):
    """The two-sided conditional coupling: the second half changes given the first, then the first given the second.

    The halves come out in changed order, as published.
    """

    def __init__(self, sizes: FlowSizes) -> None:
        super().__init__()
        self.first, self.second = sizes.dim // 2, sizes.dim - sizes.dim // 2
        self.halves = nn.ModuleList([Half(self.first, self.second, sizes), Half(self.second, self.first, sizes)])

    def forward(self, z: Codes, e: Tensor) -> tuple[Codes, LogDet]:
        a, b = z.split([self.first, self.second], 1)
        b, change_b = self.halves[0](b, a, e)
        a, change_a = self.halves[1](a, b, e)
        return torch.cat([b, a], 1), change_a + change_b

    def inverse(self, y: Codes, e: Tensor) -> Codes:
        b, a = y.split([self.second, self.first], 1)
        a = self.halves[1].inverse(a, b, e)  # pyright: ignore[reportCallIssue]
        b = self.halves[0].inverse(b, a, e)  # pyright: ignore[reportCallIssue]
        return torch.cat([a, b], 1)


class Shuffle(nn.Module):
    """A fixed permutation of the components."""

    order: Tensor

    def __init__(self, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(dim, generator=generator))

    def forward(self, z: Codes) -> Codes:
        return z[:, self.order]

    def inverse(self, y: Codes) -> Codes:
        return y[:, self.order.argsort()]


class Block(nn.Module):
    """ActNorm, activation, coupling, permutation."""

    def __init__(self, sizes: FlowSizes, generator: torch.Generator) -> None:
        super().__init__()
        self.norm, self.leaky = ActNorm(sizes.dim), Leaky(sizes.slope)
        self.coupling, self.shuffle = Coupling(sizes), Shuffle(sizes.dim, generator)

    def forward(self, z: Codes, e: Tensor) -> tuple[Codes, LogDet]:
        z, norm = self.norm(z)
        z, leaky = self.leaky(z)
        z, coupling = self.coupling(z, e)
        return self.shuffle(z), norm + leaky + coupling

    def inverse(self, y: Codes, e: Tensor) -> Codes:
        return self.norm.inverse(self.leaky.inverse(self.coupling.inverse(self.shuffle.inverse(y), e)))


class Embedder(nn.Sequential):
    """What the couplings see of a condition: three layers of width `hidden`, then one to the embedding."""

    def __init__(self, condition: int, embedding: int, hidden: int) -> None:
        sizes = [condition, hidden, hidden, hidden]
        layers: list[nn.Module] = []
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.LeakyReLU(0.01)]
        super().__init__(*layers, nn.Linear(hidden, embedding))


class ConditionalFlow(nn.Module):
    """v = T(z | c) and z = T^-1(v | c), with the log-determinant of T."""

    initialised: Tensor

    def __init__(self, sizes: FlowSizes, seed: int = 0) -> None:
        super().__init__()
        self.sizes = sizes
        generator = torch.Generator().manual_seed(seed)
        self.embedder = Embedder(sizes.condition, sizes.embedding, sizes.hidden)
        self.blocks = nn.ModuleList([Block(sizes, generator) for _ in range(sizes.blocks)])
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, z: Tensor, c: Tensor) -> tuple[Codes, LogDet]:
        """The residuals of codes under conditions, and the log-determinant log |det dv/dz| of each."""
        self._check(z, c)
        e, total = self.embedder(c), z.new_zeros(len(z))
        for block in self.blocks:
            z, change = block(z, e)
            total = total + change
        return z, total

    def inverse(self, v: Tensor, c: Tensor) -> Codes:
        """The codes of residuals under conditions."""
        self._check(v, c)
        e = self.embedder(c)
        for block in reversed(self.blocks):
            v = block.inverse(v, e)  # pyright: ignore[reportCallIssue]
        return v

    @torch.no_grad()
    def initialise(self, z: Tensor, c: Tensor) -> None:
        """Set each ActNorm so that these codes leave it with mean 0 and standard deviation 1. Once, before training."""
        if len(z) < 2:
            raise ValueError(f"A flow is initialised with at least two codes, for their spread. Received {len(z)}.")
        self._check(z, c)
        e = self.embedder(c)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.norm.initialise(z)
            z, _ = block(z, e)
        self.initialised.fill_(True)

    def loss(self, z: Tensor, c: Tensor) -> Float[Tensor, ""]:
        """Negative log-likelihood of codes in nats per sample, without the constant dim/2 log(2 pi) (equation 6)."""
        v, change = self(z, c)
        return (0.5 * v.square().sum(1) - change).mean()

    def _check(self, z: Tensor, c: Tensor) -> None:
        want = (self.sizes.dim, self.sizes.condition)
        if z.ndim != 2 or c.ndim != 2 or (z.shape[1], c.shape[1]) != want or len(z) != len(c):
            raise ValueError(
                f"This flow takes codes [n, {want[0]}] and conditions [n, {want[1]}]. Received {list(z.shape)} and "
                f"{list(c.shape)}. Encode both with the experts that it was trained with."
            )
