"""Prompt mixing against its equations written out over a whole run, and its invariants."""

from __future__ import annotations

import pytest
import torch
from families import BUILDERS, build_flux, build_sd3
from torch import Tensor

from promptweave import (
    LocalBlend,
    NoEffect,
    PromptMixing,
    Recipe,
    Replace,
    Reweight,
    edit,
    load,
    noise_for,
    record,
    sample,
)
from promptweave.core.rows import NotRecorded

PROMPT = "a photo of a cat riding a bike in the snow"
STEPS, WINDOW, KEPT, BLENDED = 6, range(1, 4), range(5), range(4, 6)
LEVEL = 0.95  # random weights look nearly everywhere alike
SPANS = {"window": (1 / 6, 2 / 3), "self_attention": 5 / 6, "background": 4 / 6, "threshold": LEVEL}


def made(model, *controls, prompts=(PROMPT, PROMPT), steps=STEPS, images=1, **options):
    noise = noise_for(model, 0, images).to(model.dtype)
    return sample(model, list(prompts), noise=noise, steps=steps, guidance=3.0, controls=controls, **options)


class WrittenOut:
    """Every layer of a run with the source and targets of the same prompt: each attention matrix in full.

    `values` [targets, tokens, dim]: what V is made of, in the target's conditional rows. `word` and `kept`: tokens.
    """

    def __init__(self, model, values: Tensor, word: list[int], kept: list[int]) -> None:
        self.model, self.values, self.word, self.kept = model, values, word, kept
        self.step, self.heat, self.changed = 0, dict[tuple[int, str], Tensor](), 0

    def run(self, noise: Tensor) -> Tensor:
        """DDIM with guidance 3, latents [1 + targets, ...]."""
        unet, count = self.model.unet, 1 + len(self.values)
        text = self.model.encode([PROMPT] * count, [""] * count)
        alphas, stride = self.model.pipeline.scheduler.alphas_cumprod.double(), 1000 // STEPS
        z, before = noise.expand(count, -1, -1, -1), unet.attn_processors
        for site in self.model.sites((16, 16)):
            unet.get_submodule(site.path).set_processor(self.layer(site))
        for self.step in range(STEPS):
            t = (STEPS - 1 - self.step) * stride + 1
            with torch.no_grad():
                e = unet(torch.cat([z, z]), t, encoder_hidden_states=torch.cat([text.uncond, text.cond])).sample
            e = e[:count] + 3 * (e[count:] - e[:count])
            a, b = alphas[t], alphas[t - stride] if t >= stride else alphas[0]
            z = b.sqrt() * (z - (1 - a).sqrt() * e) / a.sqrt() + (1 - b).sqrt() * e
            if self.step in BLENDED:
                outside = [~(self.region(0, "word", 16) | self.region(row, "word", 16)) for row in range(1, count)]
                z = torch.stack([z[0], *(torch.where(o, z[0], z[row]) for row, o in enumerate(outside, 1))])
        unet.set_attn_processor(before)
        return z

    def region(self, row: int, what: str, side: int) -> Tensor:
        """B: 3 x 3 maxima, enlarged or reduced, above the threshold of the maximum."""
        heat = self.heat[row, what]
        padded = torch.nn.functional.pad(heat, (1, 1, 1, 1))
        largest = torch.stack([padded[y : y + 16, x : x + 16] for y in range(3) for x in range(3)]).amax(0)
        every = 16 // side
        return largest[::every, ::every] > LEVEL * largest.max()

    def layer(self, site):
        def processor(attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
            cross = encoder_hidden_states is not None
            context = encoder_hidden_states if cross else hidden_states
            written, count = context.clone(), len(hidden_states) // 2
            if cross and self.step in WINDOW:
                written[count + 1 :] = self.values
            q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(written)
            q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
            maps = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
            if cross and site.grid == (16, 16):
                for row in range(count):
                    for what, tokens in (("word", self.word), ("kept", self.kept)):
                        seen = maps[count + row].mean(0)[:, tokens].sum(-1).view(16, 16)
                        self.heat[row, what] = self.heat.get((row, what), 0) + seen
            if not cross and self.kept and self.step in KEPT and self.heat:
                o, p = (self.region(0, what, site.grid[0]).flatten() for what in ("word", "kept"))
                for i in (~o).nonzero().flatten().tolist():
                    columns = [j for j in range(len(o)) if (p[i] or p[j]) and not o[j]]
                    maps[count + 1 :, :, i, columns] = maps[count, :, i, columns]
                    self.changed += 0 < len(columns) < len(o)
            return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))

        return processor


@pytest.mark.parametrize("preserve", ["cat", ()])
def test_it_is_the_equations_over_a_whole_run(tiny64, preserve):
    """Two proxies in one run: "crown" has as many tokens as "bike", "hat" has two, and what follows moves back."""
    control = PromptMixing("bike", ("crown", "hat"), preserve=preserve, **SPANS)
    ours = made(tiny64, control, prompts=(PROMPT, PROMPT, PROMPT))
    crown, hat = (tiny64.encode([PROMPT.replace("bike", proxy)], [""]).cond[0] for proxy in ("crown", "hat"))
    words, kept = tiny64.words(PROMPT).find("bike"), tiny64.words(PROMPT).find("cat")
    (place,) = words
    hat = torch.cat([hat[:place], hat[place : place + 2].mean(0, keepdim=True), hat[place + 2 :], hat[-1:]])
    written = WrittenOut(tiny64, torch.stack([crown, hat]), list(words), list(kept) if preserve else [])
    wanted = written.run(noise_for(tiny64, 0).double())
    torch.testing.assert_close(ours.latents[:, 0], wanted, rtol=1e-9, atol=1e-9)
    assert bool(preserve) == (written.changed > 100)
    report = ours.reports[0]
    assert report["mixed_steps"] == len(WINDOW) and report["latent_steps"] == len(BLENDED)
    assert all(0 < area < 1 for areas in report["mask_area"].values() for area in areas)


def test_preserving_acts_and_the_word_stays_free(tiny64):
    free, kept = (made(tiny64, PromptMixing("bike", "crown", preserve=p, **SPANS)).latents[1] for p in ((), "cat"))
    assert (free - kept).abs().max() > 1e-4


def test_before_the_window_nothing_differs_and_the_source_never_does(tiny64):
    seen: list[Tensor] = []
    control = PromptMixing("bike", "crown", **SPANS)
    both = made(tiny64, control, progress=lambda step, z: seen.append(z))
    torch.testing.assert_close(seen[0][1], seen[0][0], rtol=1e-9, atol=1e-9)
    assert (seen[1][1] - seen[1][0]).abs().max() > 1e-3
    torch.testing.assert_close(both.latents[0], made(tiny64, prompts=(PROMPT,)).latents[0], rtol=1e-9, atol=1e-9)


def test_targets_in_one_run_are_what_they_are_alone(tiny64):
    options = {**SPANS, "preserve": "cat"}
    together = made(tiny64, PromptMixing("bike", ("crown", "hat"), **options), prompts=(PROMPT,) * 3, images=2)
    for row, proxy in enumerate(("crown", "hat"), 1):
        alone = made(tiny64, PromptMixing("bike", proxy, **options), images=2)
        torch.testing.assert_close(together.latents[row], alone.latents[1], rtol=1e-9, atol=1e-9)
    chosen = made(tiny64, PromptMixing("bike", "hat", targets=(2,), **options), prompts=(PROMPT,) * 3, images=2)
    torch.testing.assert_close(chosen.latents[2], together.latents[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(chosen.latents[1], chosen.latents[0], rtol=1e-9, atol=1e-9)


def test_with_all_of_the_map_injected_it_is_the_sources_map_on_the_proxys_values(tiny64):
    """Beside Replace in all steps, whose maps are the source's: the run of a word swap to the proxy, window or not."""
    swapped = PROMPT.replace("bike", "crown")
    plain = made(tiny64, Replace(1.0, 1.0, self_grid=256), prompts=(PROMPT, swapped))
    mixing = PromptMixing("bike", "crown", window=1.0, background=1)
    mixed = made(tiny64, Replace(1.0, 1.0, self_grid=256), mixing)
    torch.testing.assert_close(mixed.latents, plain.latents, rtol=1e-9, atol=1e-9)


def test_the_background_is_local_blend(tiny64):
    """Its own, LocalBlend beside it, and none."""
    own = made(tiny64, PromptMixing("bike", "crown", **SPANS)).latents
    never = PromptMixing("bike", "crown", **{**SPANS, "background": 1})
    beside = made(tiny64, never, LocalBlend("bike", threshold=LEVEL, start=4 / 6)).latents
    torch.testing.assert_close(own, beside, rtol=1e-9, atol=1e-9)
    assert (made(tiny64, never).latents[1] - own[1]).abs().max() > 1e-3


def test_beside_the_other_edits_of_prompts(tiny64):
    """Another word is swapped by Prompt-to-Prompt while the shape of this one varies."""
    target = PROMPT.replace("cat", "dog")
    swap = made(tiny64, Replace(), prompts=(PROMPT, target)).latents
    both = made(
        tiny64, Replace(), PromptMixing("bike", "crown", **SPANS), Reweight({"snow": 2}), prompts=(PROMPT, target)
    )
    assert (both.latents[1] - swap[1]).abs().max() > 1e-3
    torch.testing.assert_close(both.latents[0], swap[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [name for name in BUILDERS if not name.startswith(("Stable Diffusion 3", "FLUX"))])
def test_every_family_with_cross_attention(family, tokenizer):
    model = load(BUILDERS[family](tokenizer))
    control = PromptMixing("bike", "lion", window=(0.25, 0.75), preserve="cat")
    run = made(model, control, steps=4)
    assert run.latents.isfinite().all() and (run.latents[1] - run.latents[0]).abs().max() > 1e-4
    assert run.reports[0]["mixed_steps"] == 2


@pytest.mark.parametrize("build", [build_sd3, build_flux])
def test_joint_attention_is_refused(build, tokenizer):
    with pytest.raises(ValueError, match=r"cross-attention.*Replace, Consist or FlowEdit"):
        made(load(build(tokenizer)), PromptMixing("bike", "crown"), steps=4)


def test_on_a_recording_and_on_a_given_picture(tiny):
    options = {"model": tiny, "controls": [PromptMixing("bike", "crown", **SPANS)]}
    recording = record(PROMPT, model=tiny, steps=STEPS)
    joint = edit(PROMPT, PROMPT, steps=STEPS, **options)
    again = edit(recording, PROMPT, **options)
    torch.testing.assert_close(again.sample.latents, joint.sample.latents, rtol=1e-4, atol=1e-4)
    given = edit(PROMPT, PROMPT, image=joint.source, steps=STEPS, **options)
    assert (given.sample.latents[1] - given.sample.latents[0]).abs().max() > 1e-3
    preserving = [PromptMixing("bike", "crown", **{**SPANS, "self_attention": 1.0}, preserve="cat")]
    with pytest.raises(NotRecorded):
        edit(recording, PROMPT, model=tiny, controls=preserving)
    longer = record(PROMPT, model=tiny, steps=STEPS, self_attention=1.0, self_grid=256)
    kept = edit(longer, PROMPT, model=tiny, controls=preserving)
    wanted = edit(PROMPT, PROMPT, model=tiny, steps=STEPS, controls=preserving)
    torch.testing.assert_close(kept.sample.latents, wanted.sample.latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"proxies": ("crown", "hat")}, ValueError, "a proxy for each target, here 1"),
        ({"proxies": "bike"}, NoEffect, "another word"),
        ({"word": "horse"}, ValueError, "'horse' is not a word"),
        ({"preserve": "horse"}, ValueError, "'horse' is not a word"),
        ({"preserve": "bike"}, NoEffect, "preserve must not name"),
        ({"window": (0.1, 0.15)}, NoEffect, "one of the 6 steps"),
        ({"preserve": "cat", "self_attention": 0.1}, NoEffect, "one of the 6 steps"),
        ({"window": (0.5, 1.5)}, ValueError, "window"),
        ({"threshold": 1}, ValueError, "threshold"),
        ({"background": -1}, ValueError, "start of LocalBlend is a fraction"),
        ({"targets": (2,)}, ValueError, "targets"),
    ],
)
def test_mistakes_are_told(tiny, options, error, match):
    with pytest.raises(error, match=match):
        made(tiny, PromptMixing(**{"word": "bike", "proxies": "crown", **options}))


def test_a_recipe_keeps_it():
    control = PromptMixing("bike", ("crown", "hat"), (0.1, 0.4), "cat", targets=(1, 2))
    recipe = Recipe(PROMPT, (PROMPT, PROMPT), (control,))
    assert Recipe.from_dict(recipe.as_dict()) == recipe
