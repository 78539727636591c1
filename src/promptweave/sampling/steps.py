"""Single steps as pure functions (DDIM, Song et al. 2021, eq. 12). a: alpha_bar before the step, b: after it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.schedule import Prediction

Latent = Float[Tensor, "*shape"]


def roots(a: float, z: Latent) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """sqrt(a) and sqrt(1 - a), rounded to the precision of `z` as in diffusers, so that steps are equal bit for bit."""
    level = torch.tensor(a, dtype=z.dtype)
    return level**0.5, (1 - level) ** 0.5


def clean_and_noise(output: Latent, z: Latent, a: float, prediction: Prediction) -> tuple[Latent, Latent]:
    """The clean latent x0 and the noise e that a network's output implies, for any kind of prediction."""
    signal, noise = roots(a, z)
    if prediction == "epsilon":
        return (z - noise * output) / signal, output
    if prediction == "v_prediction":
        return signal * z - noise * output, signal * output + noise * z
    return output, (z - signal * output) / noise


def output_of(clean: Latent, z: Latent, a: float, prediction: Prediction) -> Latent:
    """The network's output that implies the clean latent x0; the inverse of `clean_and_noise`."""
    signal, noise = roots(a, z)
    if prediction == "epsilon":
        return (z - signal * clean) / noise
    return (signal * z - clean) / noise if prediction == "v_prediction" else clean


def ddim_step(output: Latent, z: Latent, a: float, b: float, prediction: Prediction = "epsilon") -> Latent:
    """z at level b: sqrt(b) x0 + sqrt(1 - b) e. With b < a it is a step of the inversion."""
    clean, noise = clean_and_noise(output, z, a, prediction)
    signal_next, noise_next = roots(b, z)
    return signal_next * clean + noise_next * noise


def guide(uncond: Latent, cond: Latent, guidance: int | float | Tensor) -> Latent:
    """Classifier-free guidance (Ho & Salimans 2022): e_u + w (e_c - e_u)."""
    return uncond + guidance * (cond - uncond)
