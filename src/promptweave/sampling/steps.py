"""Single steps as pure functions. a is alpha_bar where we are, b where we go (DDIM, Song et al. 2021, eq. 12, eta = 0)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from promptweave.core.schedule import Prediction

Latent = Float[Tensor, "*shape"]


def clean_and_noise(output: Latent, z: Latent, a: float, prediction: Prediction) -> tuple[Latent, Latent]:
    """The network's opinion of the clean latent x0 and of the noise e, from any kind of prediction."""
    if prediction == "epsilon":
        return (z - (1 - a) ** 0.5 * output) / a**0.5, output
    if prediction == "v_prediction":
        return a**0.5 * z - (1 - a) ** 0.5 * output, a**0.5 * output + (1 - a) ** 0.5 * z
    return output, (z - a**0.5 * output) / (1 - a) ** 0.5


def ddim_step(output: Latent, z: Latent, a: float, b: float, prediction: Prediction = "epsilon") -> Latent:
    """z at level b: sqrt(b) x0 + sqrt(1 - b) e. Both ways: with b < a it inverts."""
    clean, noise = clean_and_noise(output, z, a, prediction)
    return b**0.5 * clean + (1 - b) ** 0.5 * noise


def guide(uncond: Latent, cond: Latent, guidance: float) -> Latent:
    """Classifier-free guidance (Ho & Salimans 2022): e_u + w (e_c - e_u)."""
    return uncond + guidance * (cond - uncond)
