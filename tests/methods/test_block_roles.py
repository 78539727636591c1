"""Blocks by role: the published lists, what a role stands for, and what is said of roles that nobody knows."""

from __future__ import annotations

import pytest
from families import build_flux, build_sd3

import promptweave as pw
from promptweave.core.roles import ROLES
from promptweave.models import sd3
from promptweave.models.joint import FLUX_ROLES, SD3_ROLES
from promptweave.sampling.loop import Job

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"


@pytest.fixture(scope="module")
def model(tokenizer):
    pipeline = build_sd3(tokenizer, t5=False)
    setattr(pipeline, sd3.T5_ATTRIBUTE, 0)
    return pw.load(pipeline)


def blocks_of(sites, role: str) -> list[str]:
    return [site.name for site in sites if role in site.roles]


def test_the_published_lists(tokenizer):
    """LayerVerse's table of default configurations and Stable Flow's vital layers, on networks of true depth."""
    flux = build_flux(tokenizer)
    config = {**flux.transformer.config, "num_layers": 19, "num_single_layers": 38}
    flux.transformer = type(flux.transformer).from_config(config)
    sites = pw.load(flux).sites((4, 4))
    assert blocks_of(sites, "masked") == ["stream_double_1", *(f"stream_single_{n}" for n in range(32, 38))]
    assert blocks_of(sites, "global") == ["stream_double_2"]
    vital = {*(f"stream_double_{n}" for n in (0, 1, 17, 18)), *(f"stream_single_{n}" for n in (9, 34, 35, 37, 6))}
    assert set(blocks_of(sites, "vital")) == vital
    medium = build_sd3(tokenizer)
    config = {**medium.transformer.config, "num_layers": 24, "dual_attention_layers": tuple(range(13))}
    medium.transformer = type(medium.transformer).from_config(config)
    sites = pw.load(medium).sites((4, 4))
    masked = [f"stream_joint_{n}" for n in (0, 1, 3, 4, 12, 14, 17, 18, 19)]
    assert blocks_of(sites, "masked") == masked
    assert blocks_of(sites, "global") == [f"stream_joint_{n}" for n in range(20, 24)]
    assert all(site.roles == () for site in sites if site.kind == "self")
    named = {role for known in (SD3_ROLES, FLUX_ROLES) for roles in known.values() for role in roles}
    assert named == set(ROLES)


CONTROLS = {
    "joint injection": lambda blocks: pw.Replace(joint=1.0, blocks=blocks),
    "Consist": lambda blocks: pw.Consist("cat", blocks=blocks),
    "DirectEdit": lambda blocks: pw.DirectEdit(1.0, blocks=blocks),
    "KVEdit": lambda blocks: pw.KVEdit(((1.0, 0.0),) * 2, blocks=blocks),
}


def bound(model, name, *blocks):
    """The layers in which a control acts."""
    return Job([SOURCE, TARGET], pw.noise_for(model, 1), 10, 3.0, [CONTROLS[name](blocks)]).bind(model)[1][0].names


@pytest.mark.parametrize("name", list(CONTROLS))
def test_a_role_stands_for_its_blocks(model, monkeypatch, name):
    monkeypatch.setitem(sd3.SD3_ROLES, (4, False), {"masked": (0, 1), "global": (3,)})
    assert bound(model, name, "global") == {"stream_joint_3"}
    expected = {"stream_joint_0", "stream_joint_1", "stream_joint_3"}
    assert bound(model, name, "masked", "global") == bound(model, name, "stream_joint_3", "masked") == expected


@pytest.mark.parametrize("name", list(CONTROLS))
def test_roles_and_blocks_that_are_not_there(model, monkeypatch, name):
    def refused(blocks, message):
        with pytest.raises(ValueError, match=message):
            bound(model, name, *blocks)

    refused(("masked",), r"this model is none of those whose roles are known.*Name layers: stream_joint_0, stream")
    refused(("stream_joint_7",), r"must name joint layers: stream_joint_0.*stream_joint_3\. Received 'stream_joint_7'")
    monkeypatch.setitem(sd3.SD3_ROLES, (4, False), {"masked": (0, 1)})
    refused(("vital",), "names the role 'vital', and this model has the roles masked")
    refused(("mask",), r"or roles: masked\. Received 'mask'")
