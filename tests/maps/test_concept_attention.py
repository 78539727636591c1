"""ConceptAttention against its equations, written out from the inputs of each block; it changes no bit of the image."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from families import build_flux, build_sd3

import promptweave as pw
from promptweave.maps.concept_attention import ConceptAttention, place_of
from promptweave.maps.look import look
from promptweave.models.load import load

PROMPT, CONCEPTS = "a black cat next to a red car", ("cat", "snow", "bike")
FAMILIES = {
    "sd3": build_sd3,
    "sd3.5, dual": partial(build_sd3, dual=(0, 1)),
    "sd3, no T5": partial(build_sd3, t5=False),
    "flux": build_flux,
}


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def flat(x):
    return x.transpose(1, 2).flatten(2)


def normed(norm, x):
    return x if norm is None else norm(x)


def softmax_attention(q, k, v):
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def naive(network, concepts, inputs, times, flux):
    """The maps' logits of each block, for the last row of the batch: {(space, block): [pixels, concepts]}."""
    emb = network.time_text_embed(*times[:-1], torch.zeros_like(times[-1]))[-1:]
    c = network.context_embedder(concepts)[None]
    found = {}
    for number, block in enumerate(network.transformer_blocks):
        given = inputs[number]
        x, text, temb = (given[name][-1:] for name in ("hidden_states", "encoder_hidden_states", "temb"))
        attn, last = block.attn, getattr(block, "context_pre_only", False)
        normed_x = block.norm1(x, emb=temb)[0]
        normed_text = block.norm1_context(text, temb) if last else block.norm1_context(text, emb=temb)[0]
        made = block.norm1_context(c, emb) if last else block.norm1_context(c, emb=emb)
        normed_c, gates = (made, ()) if last else (made[0], made[1:])
        queries, keys, values = {}, {}, {}
        for name, y in (("x", normed_x), ("text", normed_text), ("c", normed_c)):
            image = name == "x"
            q, k, v = (
                (attn.to_q, attn.to_k, attn.to_v) if image else (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            )
            norms = (attn.norm_q, attn.norm_k) if image else (attn.norm_added_q, attn.norm_added_k)
            queries[name] = normed(norms[0], heads(q(y), attn.heads))
            keys[name] = normed(norms[1], heads(k(y), attn.heads))
            values[name] = heads(v(y), attn.heads)
        if flux:
            cos, sin = given["image_rotary_emb"]
            size = text.shape[1]
            for part, where in (("text", slice(0, size)), ("x", slice(size, None))):
                turn = (cos[where], sin[where])
                queries[part], keys[part] = (apply_rotary_emb(y[part], turn) for y in (queries, keys))
        together = [torch.cat([y["x"], y["text"]], 2) for y in (keys, values)]
        image = flat(softmax_attention(queries["x"], *together))[0]
        own = [torch.cat([y["c"], y["x"]], 2) for y in (keys, values)]
        output = flat(softmax_attention(queries["c"], *own))
        found["output", number] = image @ output[0].T
        dots = torch.einsum("hpd,hcd->pc", queries["x"][0], keys["c"][0])
        found["cross", number] = dots / attn.heads * queries["x"].shape[-1] ** -0.5
        if gates:
            gate, shift, scale, gate_further = (y[:, None] for y in gates)
            c = c + gate * attn.to_add_out(output)
            c = c + gate_further * block.ff_context(block.norm2_context(c) * (1 + scale) + shift)
    return found


@pytest.mark.parametrize("name", ["sd3", "sd3.5, dual", "flux"])
@torch.no_grad()
def test_equals_its_equations_and_changes_no_bit(tokenizer, name):
    model = load(FAMILIES[name](tokenizer).to(torch.float64))
    network, flux = model.transformer, name == "flux"
    sites = pw.Sites("joint")  # all layers: those of single blocks have no text of their own, and are left out
    inputs, times = [], []

    def block_input(module, args, kwargs):
        inputs.append(dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments))

    handles = [block.register_forward_pre_hook(block_input, with_kwargs=True) for block in network.transformer_blocks]
    handles.append(network.time_text_embed.register_forward_pre_hook(lambda module, args: times.append(args)))
    noise = pw.noise_for(model, 1, size=(24, 32)).double()
    run = partial(pw.sample, model, [PROMPT], noise=noise, steps=2, guidance=3.0)
    plain = run(controls=[pw.RecordMaps()]).latents  # in double precision, our attention rounds otherwise than theirs
    depth = len(network.transformer_blocks)
    inputs.clear(), times.clear()
    controls = [ConceptAttention(CONCEPTS, sites, space) for space in ("output", "cross")]
    made = run(controls=controls)
    for handle in handles:
        handle.remove()
    assert torch.equal(made.latents, plain)
    encoded = model.encode(CONCEPTS, [""] * len(CONCEPTS)).cond
    places = [place_of(model.words(concept)) for concept in CONCEPTS]
    tokens = encoded[range(len(places)), places]
    logits = [naive(network, tokens, inputs[i * depth : (i + 1) * depth], times[i], flux) for i in range(2)]
    for space, hooks in zip(("output", "cross"), made.hooks, strict=True):
        maps = [one[space, block].softmax(-1) for one in logits for block in range(depth)]
        want = torch.stack(maps).mean(0)
        got = hooks.mean(0)[0].flatten(0, 1)
        assert got.shape == want.shape and (got - want).abs().max() < 1e-12
        torch.testing.assert_close(got.sum(-1), torch.ones_like(got[:, 0]))
        assert want.std(0).max() > 1e-4, "maps that are flat could not differ"


@pytest.mark.parametrize("name", ["sd3.5, dual", "flux"])
def test_the_image_is_the_same_bit_for_bit(tokenizer, name):
    model = load(FAMILIES[name](tokenizer))
    run = partial(
        pw.sample, model, [PROMPT, "a red cat next to a red car"], noise=pw.noise_for(model, 1, size=(24, 32))
    )
    controls = [] if name == "flux" else [pw.Replace(joint=0.5)]
    riding = [*controls, ConceptAttention(CONCEPTS)]
    assert torch.equal(run(steps=2, controls=riding).latents, run(steps=2, controls=controls).latents)
    assert [type(layer.processor).__name__ for layer in model.layers.values()].count("JointTap") == 0
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.transformer.transformer_blocks)


def test_a_permutation_of_the_concepts_permutes_the_maps(tokenizer):
    model = load(build_sd3(tokenizer))
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    way = {"image": picture, "size": (24, 32), "times": (0.5,), "noises": 1, "model": model}
    seen = [look(PROMPT, concepts=order, **way).concepts for order in (CONCEPTS, CONCEPTS[::-1])]
    for concept in CONCEPTS:
        torch.testing.assert_close(seen[0].of(concept), seen[1].of(concept))
    assert seen[0].strip().height > 100


def test_two_prompts_and_two_images_are_those_of_each_alone(tokenizer):
    model = load(build_flux(tokenizer))
    prompts, noise = [PROMPT, "a lion wearing a crown"], pw.noise_for(model, 4, 2, (24, 24))
    control = ConceptAttention(CONCEPTS)
    both = pw.sample(model, prompts, noise=noise, steps=2, controls=[control]).hooks[0]
    for row, prompt in enumerate(prompts):
        for image in range(2):
            alone = pw.sample(model, [prompt], noise=noise[image : image + 1], steps=2, controls=[control]).hooks[0]
            torch.testing.assert_close(both.mean(row)[image], alone.mean(0)[0], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"the prompts \(0, 1\). Received 2"):
        both.mean(2)


def test_the_token_of_a_concept(tokenizer):
    clip, both, t5 = (load(build(tokenizer)) for build in (FAMILIES["sd3, no T5"], build_sd3, build_flux))
    long = "giraffe"
    own = clip.words(long).words[-1].tokens
    assert place_of(clip.words(long)) == own[-1] != own[0]
    assert place_of(both.words(long)) == both.clip_length and place_of(t5.words(long)) == 0
    phrase = clip.words("red car")
    assert place_of(phrase) == phrase.find("car")[-1]


def test_what_cannot_be_recorded_is_refused_before_the_run(tiny, tokenizer):
    model = load(build_sd3(tokenizer))
    for concepts in (("cat",), ("cat", "Cat"), ("cat", " ")):
        with pytest.raises(ValueError, match="at least two different ones"):
            look(PROMPT, model=model, concepts=concepts)
    with pytest.raises(ValueError, match="This network reads text by cross-attention"):
        look(PROMPT, model=tiny, concepts=CONCEPTS)
    with pytest.raises(ValueError, match="sites must be layers"):
        ConceptAttention(CONCEPTS, pw.Sites(names=("stream_joint_9",))).bind(_run(model))
    with pytest.raises(ValueError, match='"output" or "cross"'):
        ConceptAttention(CONCEPTS, space="keys").bind(_run(model))


def _run(model):
    from promptweave.sampling.loop import Job

    return Job([PROMPT], pw.noise_for(model, 0, size=(24, 24)), 2).bind(model)[0]
