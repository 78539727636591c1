"""In double precision every number is: maps of any token counts, factors, guidance, latents, pictures, encodings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from families import build_flux, build_lcm
from references_p2p import dense_sample, refined, replaced
from references_words import refine_by_words, replace_matrix
from test_prompt_to_prompt import PHRASE, SOURCE, STEPS, dense_edit, ours, relative

import promptweave as pw
from promptweave import Replace, Reweight, load, noise_for, sample
from promptweave.editing.record import estimate

GUIDANCE, FACTOR, EXACT = 7.3, 1.3, 1e-12  # numbers that single precision does not hold
BY_TOKENS = {2: "bear", 3: "squid", 4: "horse", 5: "zebra", 6: "giraffe"}


def factors(words):
    made = torch.ones(77, dtype=torch.float64)
    made[list(words.find("bike"))] = FACTOR
    return made


@pytest.mark.parametrize("tokens", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("back", [False, True])
def test_swaps_of_one_token_for_several(tiny64, noise64, tokens, back):
    new = SOURCE.replace("cat", BY_TOKENS[tokens])
    words = tiny64.words(new)
    assert len(words.find(BY_TOKENS[tokens])) == tokens
    prompts = [new, SOURCE] if back else [SOURCE, new]
    mapper = np.array(replace_matrix(*prompts, tiny64.tokenizer, shift_the_tail=True))
    edit = dense_edit(lambda maps: replaced(maps, mapper), 3, 2, factors(tiny64.words(prompts[1])))
    want = dense_sample(tiny64, prompts, noise64, STEPS, GUIDANCE, edit)
    got = ours(tiny64, prompts, noise64, [Replace(0.6, 0.4), Reweight({"bike": FACTOR})], guidance=GUIDANCE)
    assert relative(got, want) <= EXACT


@pytest.mark.parametrize("kind", ["replace", "refine"])
def test_an_edit_keeps_the_latents_in_double_precision(tiny64, kind):
    """`pw.edit` from its seed to its latents, against the loop that is written out."""
    target = PHRASE if kind == "refine" else SOURCE.replace("cat", BY_TOKENS[3])
    source, new = tiny64.words(SOURCE), tiny64.words(target)
    if kind == "refine":
        pads = [min(source.length + k, 76) for k in range(77 - new.length)]
        mapper = [*refine_by_words(source, new), *pads]
        edit = dense_edit(lambda maps: refined(maps, mapper), 3, 2, factors(new))
    else:
        matrix = np.array(replace_matrix(SOURCE, target, tiny64.tokenizer, shift_the_tail=True))
        edit = dense_edit(lambda maps: replaced(maps, matrix), 3, 2, factors(new))
    settings = {"model": tiny64, "seed": 3, "steps": STEPS, "guidance": GUIDANCE}
    options = {"cross": 0.6, "self_attention": 0.4, "weights": {"bike": FACTOR}}
    made = pw.edit(SOURCE, target, **options, **settings).sample.latents
    want = dense_sample(tiny64, [SOURCE, target], noise_for(tiny64, 3).double(), STEPS, GUIDANCE, edit)
    assert made.dtype == torch.float64 and relative(made[:, 0], want) <= EXACT
    recording = pw.record(SOURCE, self_attention=0.4, **settings)
    again = pw.edit(recording, target, model=tiny64, **options).sample.latents
    assert recording.track.path[-1].dtype == again.dtype == torch.float64
    assert relative(again[:, 0], want) <= EXACT
    assert estimate(tiny64, recording.recipe, recording.track.kept) == recording.bytes


def test_latents_of_single_precision_models_stay_so(tiny):
    assert pw.edit(SOURCE, PHRASE, model=tiny, steps=2).sample.latents.dtype == torch.float32


def test_a_given_picture_is_read_in_double_precision(tiny64):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = pw.edit(SOURCE, PHRASE, model=tiny64, image=picture, steps=2, size=(32, 32)).sample.latents
    vae = tiny64.pipeline.vae
    pixels = torch.from_numpy(picture).double().permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        wanted = vae.encode(pixels * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
    assert made.dtype == torch.float64 and relative(made[0], wanted) <= EXACT


def test_guidance_as_an_input_of_the_network(tokenizer):
    """LCM embeds it as sines and cosines (Ho & Salimans' w is guidance - 1), FLUX takes it as it is."""
    model = load(build_lcm(tokenizer).to(torch.float64))
    rate = float(torch.log(torch.tensor(10000.0)) / 7)  # a constant of diffusers, in single precision
    angles = [1000 * (GUIDANCE - 1) * math.exp(-rate * k) for k in range(8)]
    wanted = torch.tensor([[*map(math.sin, angles), *map(math.cos, angles)]], dtype=torch.float64)
    torch.testing.assert_close(model._guidance_input(GUIDANCE, 1), wanted, atol=1e-10, rtol=0)  # angles up to 6300
    flux, seen = load(build_flux(tokenizer).to(torch.float64)), []
    hook = flux.transformer.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["guidance"]), with_kwargs=True
    )
    sample(flux, [SOURCE], noise=noise_for(flux, 0), steps=1, guidance=GUIDANCE)
    hook.remove()
    assert [float(x) for x in seen[0]] == [GUIDANCE]


def test_prompt_weights(tokenizer, tiny64):
    model = load(tiny64.pipeline, prompt_weights=True)
    text, word = "a cat riding a bike", "cat"
    plain, strong = (model.encode([prompt], [""]).keys[0] for prompt in (text, f"a ({word}:{FACTOR}) riding a bike"))
    (token,) = model.words(text).find(word)
    ratio = (strong / plain).median(-1).values
    assert float(ratio[token] / ratio[0]) == pytest.approx(FACTOR, rel=EXACT, abs=0)
