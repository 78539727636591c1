"""How alike two images are to the eye: distances of the features of a given network.

The features are those of any network that looks at images, as a list of tensors [1, channels, rows, columns].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Perceptual distance: the squared difference of features of unit length, averaged over places and layers (LPIPS,
    Zhang et al. 2018, equation 1, with equal weights); 0 for equal images."""
    layers = [
        (F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(1).mean()
        for a, b in zip(first, second, strict=True)
    ]
    return float(torch.stack(layers).mean())


def structure_distance(first: Tensor, second: Tensor) -> float:
    """Distance of self-similarities: how differently the places of two images resemble each other, whatever their
    colours (Tumanyan et al. 2022, equation 2). The mean squared difference of the two matrices of cosines between all
    places of a layer's features [1, channels, rows, columns]; 0 for equal images."""
    one, two = (_cosines(features) for features in (first, second))
    return float((one - two).square().mean())


def _cosines(features: Tensor) -> Tensor:
    places = F.normalize(features.double().flatten(2), dim=1)[0]
    return places.T @ places
