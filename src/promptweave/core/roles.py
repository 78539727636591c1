"""Layers by name or by role: which blocks of a network do what in editing, as far as it was measured and published.

"masked": blocks in which the source's features outside the edit keep the background; "global": those in which they,
everywhere, keep the object's structure (LayerVerse, Zhirnov et al., ECCV 2026). "vital": blocks without which an image
falls apart (Stable Flow, Avrahami et al. 2024, arXiv 2411.14430). The blocks of each model are in `models/joint.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from promptweave.core.control import Run

ROLES = ("masked", "global", "vital")


def joint_names(run: Run, who: str, instead: str) -> tuple[str, ...]:
    """The names of all joint layers. Raises ValueError for a network without any; `instead`: what to use there."""
    names = tuple(site.name for site in run.sites if site.kind == "joint")
    if not names:
        raise ValueError(
            f"{who} controls joint attention (Stable Diffusion 3, FLUX), and this model has none. Use {instead}."
        )
    return names


def joint_layers(given: Sequence[str], run: Run, who: str) -> tuple[str, ...]:
    """The names of the joint layers that `given` names, by name or by role, in execution order.

    Raises ValueError for anything else; `who` names the control.
    """
    layers = [site for site in run.sites if site.kind == "joint"]
    known = [role for role in ROLES if any(role in site.roles for site in layers)]
    names = {site.name for site in layers}
    for name in given:
        if name in ROLES and name not in known:
            roles = f"has the roles {', '.join(known)}" if known else "is none of those whose roles are known"
            raise ValueError(
                f"blocks of {who} names the role {name!r}, and this model {roles}. (Published are those of FLUX.1-dev "
                f"and Stable Diffusion 3.5 medium.) Name layers: {', '.join(site.name for site in layers)}."
            )
        if name not in names and name not in known:
            roles = f", or roles: {', '.join(known)}" if known else ""
            raise ValueError(
                f"blocks of {who} must name joint layers: {', '.join(site.name for site in layers)}{roles}. "
                f"Received {name!r}."
            )
    return tuple(site.name for site in layers if site.name in given or set(site.roles) & set(given))
