"""What diffusers lets users switch on leaves an edit what it is, or is refused by name; and the table that says so."""

from __future__ import annotations

import ast
from functools import cache
from importlib import util
from pathlib import Path

import matrix
import numpy as np
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from families import build_flux, build_sd3, build_sdxl
from tiny import build_tiny

import promptweave as pw
from promptweave.models.tap import ForeignProcessor

ROOT = Path(__file__).parents[2]
SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
BUILDERS = {"sd": build_tiny, "sdxl": build_sdxl, "sd3": build_sd3, "flux": build_flux}


def edited(model) -> pw.sampling.loop.Sample:
    controls = [pw.Replace(joint=0.6)]
    noise = pw.noise_for(model, 0)
    return pw.sample(model, [SOURCE, TARGET], noise=noise, steps=2, guidance=3.0, controls=controls)


@pytest.fixture(scope="module")
def plain(tokenizer):
    """The edit of a family with nothing switched on."""
    return cache(lambda family: edited(pw.load(BUILDERS[family](tokenizer))))


def of(pipeline):
    return getattr(pipeline, "unet", None) or pipeline.transformer


@pytest.mark.parametrize("family", BUILDERS)
def test_vae_tiling_and_slicing(family, tokenizer, plain):
    pipeline = BUILDERS[family](tokenizer)
    pipeline.vae.enable_slicing()
    pipeline.vae.enable_tiling()
    made = edited(pw.load(pipeline))
    assert torch.equal(made.latents, plain(family).latents)
    assert np.array_equal(made.pictures, plain(family).pictures), "smaller than a tile"
    assert pipeline.vae.use_slicing and pipeline.vae.use_tiling


@pytest.mark.parametrize("family", BUILDERS)
def test_channels_last(family, tokenizer, plain):
    pipeline = BUILDERS[family](tokenizer)
    of(pipeline).to(memory_format=torch.channels_last)
    torch.testing.assert_close(edited(pw.load(pipeline)).latents, plain(family).latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", BUILDERS)
def test_group_offload(family, tokenizer, plain):
    """On one device, where its hooks run as they would between two."""
    pipeline, cpu = BUILDERS[family](tokenizer), torch.device("cpu")
    apply_group_offloading(of(pipeline), onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    hooked = [name for name, module in of(pipeline).named_modules() if hasattr(module, "_diffusers_hook")]
    assert any(name.endswith("to_q") for name in hooked)
    assert torch.equal(edited(pw.load(pipeline)).latents, plain(family).latents)


@pytest.mark.parametrize("family", BUILDERS)
def test_fused_projections(family, tokenizer, plain):
    """Of FLUX the unfused ones are still there, and are read."""
    pipeline = BUILDERS[family](tokenizer)
    of(pipeline).fuse_qkv_projections()
    if family == "flux":
        torch.testing.assert_close(edited(pw.load(pipeline)).latents, plain(family).latents)
        return
    with pytest.raises(ForeignProcessor, match=r"Fused.*unfuse_qkv_projections"):
        edited(pw.load(pipeline))


def torchao(network, folder):
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    config = TorchAoConfig(Int8WeightOnlyConfig())
    return type(network).from_pretrained(folder, quantization_config=config, torch_dtype=torch.float32)


def quanto(network, folder):
    from diffusers import QuantoConfig

    return type(network).from_pretrained(folder, quantization_config=QuantoConfig(weights_dtype="int8"))


def gguf(network, folder):
    import gguf as packing
    from diffusers.quantizers.gguf.utils import GGUFParameter, _replace_with_gguf_linear

    kind = packing.GGMLQuantizationType.Q8_0
    found = {name: module for name, module in network.named_modules() if type(module) is torch.nn.Linear}
    linear = {name: module for name, module in found.items() if module.in_features % 32 == 0}
    packed = {
        f"{name}.weight": GGUFParameter(
            torch.from_numpy(packing.quants.quantize(module.weight.detach().numpy(), kind)), quant_type=kind
        )
        for name, module in linear.items()
    }
    _replace_with_gguf_linear(network, torch.float32, packed)
    for name, module in linear.items():
        new = network.get_submodule(name)
        new._parameters["weight"], new._parameters["bias"] = packed[f"{name}.weight"], module.bias
    return network


QUANTISED = {"torchao": torchao, "optimum.quanto": quanto, "gguf": gguf}


def installed(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
@pytest.mark.parametrize("library", QUANTISED)
def test_quantised_networks(library, family, tokenizer, plain, tmp_path):
    """With their real kernels. What does not need them, the formats, test_switched.py tests everywhere."""
    if not installed(library):
        pytest.skip(f"the kernels of {library} are not installed: pip install torchao optimum-quanto gguf")
    pipeline = BUILDERS[family](tokenizer)
    network = of(pipeline)
    network.save_pretrained(tmp_path)
    setattr(pipeline, "unet" if family == "sd" else "transformer", QUANTISED[library](network, tmp_path))
    model = pw.load(pipeline)
    assert model.dtype is torch.float32
    made, exact = edited(model).latents, plain(family).latents
    assert 0 < (made - exact).norm() / exact.norm() < 0.01, "eight bits"


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_is_what_the_tests_say():
    """It is written by `--support-matrix` from their outcomes, which are all as declared."""
    for switch in matrix.SWITCHES:
        assert switch.test in functions(switch.file), switch
    committed = (ROOT / "docs" / "models.md").read_text().split(matrix.BEGIN_SWITCHES)[1].split(matrix.END_SWITCHES)[0]
    lines = [matrix.switches(dict.fromkeys(matrix.cells(), found)).splitlines() for found in ("passed", "skipped")]
    skipped = [None, None, *(switch.skipped for switch in matrix.SWITCHES)]
    for line, *possible, may_be_skipped in zip(committed.strip().splitlines(), *lines, skipped, strict=True):
        assert line in (possible if may_be_skipped else possible[:1])


def test_a_cell_is_filled_by_its_test_alone():
    nodeid = "tests/models/test_offload_and_compile.py::test_model_offload[sd3]"
    assert matrix.cell(nodeid) == ("Model CPU offload", "SD 3")
    assert matrix.cell(nodeid.replace("model_offload", "sequential_offload")) == ("Sequential CPU offload", "SD 3")
    assert matrix.cell("tests/models/test_switched.py::test_a_run_is_stopped_before_any_pass") is None
    line = matrix.switches({("Model CPU offload", "SD 3"): "failed"}).splitlines()[2]
    assert line == "| Model CPU offload |  |  | ✗ |  |"
