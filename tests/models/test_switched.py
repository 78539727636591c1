"""What users switch on in diffusers: formats of storage, caches, attention backends; and threads on one network."""

from __future__ import annotations

import sys
from threading import Barrier, Thread

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.hooks import apply_layer_skip, apply_pyramid_attention_broadcast
from diffusers.hooks.layer_skip import LayerSkipConfig
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry, attention_backend
from families import build_flux, build_sd3, build_sdxl
from tiny import build_tiny

import promptweave as pw
from promptweave.core.pattern import Pattern
from promptweave.methods import Consist, PlugAndPlay, Replace
from promptweave.models.base import ModelError
from promptweave.models.switched import Formats, stoppable

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
BUILDERS = {"sd": build_tiny, "sdxl": build_sdxl, "sd3": build_sd3, "flux": build_flux}
STORED = torch.float8_e4m3fn


def edited(model, *, controls=None, steps=2, seed=0) -> torch.Tensor:
    controls = [Replace(joint=0.6)] if controls is None else controls
    noise = pw.noise_for(model, seed)
    return pw.sample(model, [SOURCE, TARGET], noise=noise, steps=steps, guidance=3.0, controls=controls).latents


@pytest.mark.parametrize("family", BUILDERS)
def test_layerwise_casting_is_the_network_with_rounded_weights(family, tokenizer):
    stored, rounded = (pw.load(BUILDERS[family](tokenizer)) for _ in range(2))
    stored.network.enable_layerwise_casting(storage_dtype=STORED, compute_dtype=torch.float32)
    cast = [name for name, module in stored.network.named_modules() if hasattr(module, "_diffusers_hook")]
    assert cast
    for name in cast:
        for parameter in rounded.network.get_submodule(name).parameters():
            parameter.data = parameter.data.to(STORED).float()
    assert stored.dtype is torch.float32
    torch.testing.assert_close(edited(stored), edited(rounded))


def test_a_quantised_network_computes_in_what_its_norms_are_kept_in(tokenizer):
    network = build_tiny(tokenizer).unet.bfloat16().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "norm" not in name:  # as the classes of bitsandbytes and GGUF keep them
            parameter.data = parameter.data.to(torch.int8)
    assert Formats(network).dtype is torch.bfloat16
    declared = type("Config", (), {"compute_dtype": torch.float16})
    network.hf_quantizer = type("Quantizer", (), {"quantization_config": declared})
    assert Formats(network).dtype is torch.float16
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.int8)
    del network.hf_quantizer
    with pytest.raises(ModelError, match="weights in int8 alone"):
        _ = Formats(network).dtype


CACHES = {
    "FirstBlockCache": FirstBlockCacheConfig(threshold=0.1),
    "TaylorSeerCache": TaylorSeerCacheConfig(),
    "PyramidAttentionBroadcast": PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    ),
}


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_is_refused_before_anything_runs(cache, tokenizer):
    pipeline = build_flux(tokenizer)
    plain = edited(pw.load(pipeline))
    pipeline.transformer.enable_cache(CACHES[cache])
    calls = []
    handle = pipeline.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ModelError, match=rf"{cache}.*pipeline\.transformer\.disable_cache\(\)"):
        edited(pw.load(pipeline))
    assert not calls
    handle.remove()
    pipeline.transformer.disable_cache()
    assert torch.equal(edited(pw.load(pipeline)), plain)


def test_a_cache_that_was_put_on_by_hand_is_named_too(tokenizer):
    pipeline = build_tiny(tokenizer)
    apply_pyramid_attention_broadcast(pipeline.unet, CACHES["PyramidAttentionBroadcast"])
    with pytest.raises(ModelError, match="PyramidAttentionBroadcast, which is on in UNet2DConditionModel"):
        edited(pw.load(pipeline))
    pipeline = build_flux(tokenizer)
    apply_layer_skip(pipeline.transformer, LayerSkipConfig(indices=[0], fqn="transformer_blocks"))
    with pytest.raises(ModelError, match="LayerSkip"):
        edited(pw.load(pipeline))


@pytest.fixture
def counted(monkeypatch):
    """A backend that counts its calls, under the name of PyTorch's plain kernel."""
    name, calls = AttentionBackendName._NATIVE_MATH, []
    kernel = _AttentionBackendRegistry._backends[name]

    def counting(**options):
        calls.append(options["query"].shape)
        return kernel(**options)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, counting)
    return calls


def test_the_chosen_backend_serves_tapped_layers(counted, tokenizer):
    model = pw.load(build_flux(tokenizer))
    plain = edited(model)
    assert not counted and model.kernels() == {}
    model.network.set_attention_backend("_native_math")
    torch.testing.assert_close(edited(model), plain)
    assert len(counted) >= 2 * len(model.layers)  # every layer in both steps
    assert model.kernels() == {"attention": [{"backend": "_native_math", "computed_by_pytorch": []}]}
    model.network.reset_attention_backend()
    counted.clear()
    with attention_backend("_native_math"):
        torch.testing.assert_close(edited(model), plain)
    assert counted


def test_what_a_backend_cannot_do_is_said(counted, tokenizer):
    model = pw.load(build_flux(tokenizer))
    model.network.set_attention_backend("_native_math")
    steps = {"steps": 2, "guidance": 3.0, "seed": 0, "compare": False}
    report = pw.edit(SOURCE, TARGET, model=model, controls=[Biased()], **steps).report
    assert report["attention"][0]["computed_by_pytorch"] == ["a bias"]
    report = pw.edit(SOURCE, TARGET, model=model, controls=[Replace(joint=0.6)], **steps).report
    assert report["attention"][0]["computed_by_pytorch"] == [], "of this run, not of those before"


class Biased(pw.Control):
    """Adds a bias to the target's attention."""

    def bind(self, run):
        class Bound(pw.Hooks):
            def attention(self, site, step, rows):
                row = rows["cond"][1]
                bias = torch.zeros(row.k.shape[-2])
                return rows.put("cond", 1, pattern=Pattern.of(row.q, row.k, bias))

        return Bound()


def test_a_backend_that_fails_is_named(monkeypatch, tokenizer):
    def broken(**_):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(_AttentionBackendRegistry._backends, AttentionBackendName._NATIVE_MATH, broken)
    model = pw.load(build_flux(tokenizer))
    model.network.set_attention_backend("_native_math")
    with pytest.raises(ModelError, match="'_native_math' failed on torch.float32 on cpu.*reset_attention_backend"):
        edited(model)


PAIRS = {
    "sd": (lambda: [], lambda: [Replace()], lambda: [PlugAndPlay()]),
    "sd3": (lambda: [], lambda: [Replace(joint=0.6)], lambda: [Consist("cat")]),
}


@pytest.mark.parametrize("family", PAIRS)
def test_threads_on_one_model_make_what_one_thread_makes(family, tokenizer):
    model = pw.load(BUILDERS[family](tokenizer))
    kinds = PAIRS[family]
    alone = [edited(model, controls=make(), seed=seed) for seed, make in enumerate(kinds)]
    made: dict[int, torch.Tensor | Exception] = {}
    begin = Barrier(2 * len(kinds))

    def work(number: int) -> None:
        begin.wait()
        try:
            made[number] = edited(model, controls=kinds[number % len(kinds)](), seed=number % len(kinds))
        except Exception as error:  # noqa: BLE001 - it is compared below
            made[number] = error

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [Thread(target=work, args=(number,)) for number in range(2 * len(kinds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    for number, found in made.items():
        assert not isinstance(found, Exception), found
        assert torch.equal(found, alone[number % len(kinds)]), number


def test_a_run_is_stopped_before_any_pass(tokenizer):
    model = pw.load(build_tiny(tokenizer))
    begun = []

    class Stopped(Exception):
        pass

    def stop() -> None:
        if len(begun) == 3:
            raise Stopped
        begun.append(1)

    plain = edited(model)
    with stoppable(stop), pytest.raises(Stopped):
        edited(model, steps=8)
    assert len(begun) == 3
    assert torch.equal(edited(model), plain)
