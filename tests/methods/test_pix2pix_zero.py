"""pix2pix-zero: directions by hand, the loss naively, and the pipeline that diffusers keeps of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import build_sd3, build_sdxl
from PIL import Image
from tiny import build_tiny

from promptweave import NoEffect, Pix2PixZero, Recipe, edit, load, noise_for, record, sample
from promptweave.apps.cli import main
from promptweave.editing.plan import recipe_for
from promptweave.editing.recorders import bound
from promptweave.editing.report import CHANGED
from promptweave.methods.pix2pix_zero import Direction, limited
from promptweave.words.sentences import TEMPLATES, about

PROMPT = "a photo of a cat riding a bike"


def translated(model, control, steps: int = 3, images: int = 1, prompts=(PROMPT, PROMPT), **options):
    noise = options.pop("noise", noise_for(model, 0, images))
    return sample(model, prompts, noise=noise, steps=steps, guidance=3.0, controls=[control], **options)


def test_sentences():
    assert len(set(about("cat"))) == len(TEMPLATES) and "a photo of a cat" in about("cat")
    assert "a photo of an owl" in about("owl") and "a photo of the red car" in about("red car")
    assert about("a red car")[0] == "a red car"
    with pytest.raises(ValueError, match="empty name"):
        about(" ")


def test_the_direction_is_the_difference_of_means(tiny64):
    run = bound(recipe_for(tiny64, PROMPT, steps=2), tiny64)
    banks = ("a cat", "the cat"), ("a dog", "a big dog", "the dog")
    means = [tiny64.encode(list(bank), [""] * len(bank)).keys.mean(0) for bank in banks]
    torch.testing.assert_close(Direction.of(*banks, run).text, means[1] - means[0], atol=1e-12, rtol=0)
    many = tuple(f"a cat {number}" for number in range(70))
    mean = torch.cat([tiny64.encode([one], [""]).keys for one in many]).mean(0)
    torch.testing.assert_close(Direction.of(banks[0], many, run).text, mean - means[0], atol=1e-12, rtol=0)


def test_a_direction_is_saved_reused_and_belongs_to_its_encoder(tiny, tmp_path):
    run = bound(recipe_for(tiny, PROMPT, steps=2), tiny)
    path = Direction.of("cat", "dog", run).save(tmp_path / "there" / "cat2dog.npz")
    made, again = (
        translated(tiny, Pix2PixZero("cat", "dog", attention_guidance=0, direction=file)) for file in (None, str(path))
    )
    assert torch.equal(made.latents, again.latents)
    Direction(torch.zeros(5, 7)).save(path)
    with pytest.raises(ValueError, match=r"this one reads \[77, 24\].*has \[5, 7\]"):
        translated(tiny, Pix2PixZero("cat", "dog", direction=str(path)))
    path.write_text("a dog")
    with pytest.raises(ValueError, match="holds `text`.*does not"):
        Direction.load(path)
    with pytest.raises(FileNotFoundError, match="no direction at"):
        translated(tiny, Pix2PixZero("cat", "dog", direction=str(tmp_path / "none")))


@pytest.mark.filterwarnings("ignore")
def test_without_guidance_it_is_the_pipeline_of_diffusers_without(tokenizer):
    from diffusers import DDIMInverseScheduler, StableDiffusionPix2PixZeroPipeline

    base = build_tiny(tokenizer).to(torch.float64)
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "feature_extractor", "safety_checker")
    parts = {name: base.components[name] for name in names}
    theirs = StableDiffusionPix2PixZeroPipeline(
        **parts, inverse_scheduler=DDIMInverseScheduler.from_config(base.scheduler.config), caption_generator=None,
        caption_processor=None, requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    model = load(build_tiny(tokenizer).to(torch.float64))
    noise, banks = noise_for(model, 3).double(), (("a cat", "the cat"), ("a dog", "a black dog"))
    source, target = (model.encode(list(bank), ["", ""]).keys for bank in banks)
    wanted = theirs(
        PROMPT, source_embeds=source, target_embeds=target, latents=noise, num_inference_steps=4, guidance_scale=3.0,
        cross_attention_guidance_amount=0.0, output_type="latent",
    ).images  # fmt: skip
    made = translated(model, Pix2PixZero(*banks, attention_guidance=0), steps=4, noise=noise).latents
    plain = sample(model, [PROMPT], noise=noise, steps=4, guidance=3.0).latents[0]
    torch.testing.assert_close(made[0], plain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made[1], wanted, rtol=1e-5, atol=1e-5)
    assert (made[1] - made[0]).abs().max() > 1e-3


def test_the_loss_and_its_gradient_are_those_of_the_maps(tiny64):
    """Against maps read by processors that build every matrix, and finite differences."""
    seen: list[tuple[float, torch.Tensor, torch.Tensor]] = []
    control = Pix2PixZero("cat", "dog", attention_guidance=2.0, limit=None)

    def maps_of(z, context):
        kept = []

        class Reading:
            def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
                text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
                q, k, v = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
                q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
                p = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
                if encoder_hidden_states is not None:
                    kept.append(p)
                return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))

        before = tiny64.unet.attn_processors
        tiny64.unet.set_attn_processor(Reading())
        with torch.no_grad():
            tiny64.unet(z, 667, encoder_hidden_states=context)
        tiny64.unet.set_attn_processor(before)
        return kept

    noise = noise_for(tiny64, 0).double()
    run = bound(recipe_for(tiny64, PROMPT, steps=3), tiny64)
    texts = tiny64.encode([PROMPT, PROMPT], ["", ""])
    text = Direction.of("cat", "dog", run).added(texts, (1,), 1.0).keys

    def loss(z):
        pairs = zip(maps_of(noise, text[:1]), maps_of(z, text[1:]), strict=True)
        # the authors' mean is over the heads of both halves of guidance, of which one is held here
        return sum(float(((b - a) ** 2).sum((-2, -1)).sum()) / (2 * a.shape[1]) for a, b in pairs)

    from promptweave.core.control import Control, Hooks

    class Before(Control, Hooks):
        """Sees the latents that the control to its left has moved."""

        def bind(self, run):
            return self

        def before_step(self, step, z, probe):
            if step.index == 0:
                seen.append((step.t, z[0, 0].clone(), z[1, 0].clone()))
            return z

    made = sample(tiny64, [PROMPT, PROMPT], noise=noise, steps=3, guidance=3.0, controls=[control, Before()])
    time, kept, moved = seen[0]
    assert time == 667 and torch.equal(kept, noise[0]), "the source is not moved"
    assert made.reports[0]["losses"]["1"][0] == pytest.approx(loss(noise), abs=2e-6)
    gradient = (noise[0] - moved) / 2.0
    way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2), dtype=gradient.dtype)
    slope = (loss(noise + 1e-4 * way) - loss(noise - 1e-4 * way)) / 2e-4
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=1e-3)


def test_keeping_the_maps_keeps_them(tiny64):
    free, held = (Pix2PixZero("cat", "dog", 4.0, guidance) for guidance in (1e-9, 40.0))
    distances = [translated(tiny64, c, steps=6).reports[0]["losses"]["1"][-1] for c in (free, held)]
    assert distances[1] < 0.9 * distances[0]


def test_moves_are_limited():
    z, move = torch.ones(2, 3, 4, 5, 6), torch.ones(2, 3, 4, 5, 6)
    move[0] *= 100
    short = limited(move, z, 0.5)
    torch.testing.assert_close(short[0].flatten(1).norm(dim=-1), 0.5 * z[0].flatten(1).norm(dim=-1))
    torch.testing.assert_close(short[1], 0.5 * move[1])
    assert torch.equal(limited(move, z, None), move) and torch.equal(limited(0.1 * z, z, 0.5), 0.1 * z)


@pytest.mark.parametrize("build", [build_tiny, build_sdxl])
def test_families_batches_and_half_precision(build, tokenizer):
    model = load(build(tokenizer).to(torch.bfloat16))
    made = translated(model, Pix2PixZero("cat", "dog", 2.0), images=2)
    assert torch.isfinite(made.latents).all() and (made.latents[1] - made.latents[0]).abs().max() > 1e-3


def test_bad_parameters(tiny, tokenizer):
    for control, error, message in (
        (Pix2PixZero("cat", "cat"), NoEffect, "two different things"),
        (Pix2PixZero("cat", "dog", 0), NoEffect, "strength other than 0"),
        (Pix2PixZero("cat", ()), NoEffect, "two different things"),
        (Pix2PixZero("cat", "dog", attention_guidance=-1), ValueError, "at least 0"),
        (Pix2PixZero("cat", "dog", limit=0), ValueError, "limit above 0"),
    ):
        with pytest.raises(error, match=message):
            translated(tiny, control)
    with pytest.raises(ValueError, match="the source's own prompt"):
        translated(tiny, Pix2PixZero("cat", "dog"), prompts=(PROMPT, "a photo of a dog riding a bike"))
    with pytest.raises(ValueError, match="its attention is joint"):
        translated(load(build_sd3(tokenizer)), Pix2PixZero("cat", "dog"))
    recording = record(PROMPT, model=tiny, steps=2)
    with pytest.raises(ValueError, match="without a recording"):
        edit(recording, PROMPT, model=tiny, controls=[Pix2PixZero("cat", "dog")])


def test_the_command(tmp_path, capsys):
    (tmp_path / "dogs.txt").write_text("a dog\n\nthe dog\n")
    saved, folder = tmp_path / "way.npz", tmp_path / "made"
    arguments = ["translate", PROMPT, "--source", "cat", "--target", "dog", "--steps", "2", "-o", str(folder), "--json"]
    for more, control in (
        (["--save-direction", str(saved)], Pix2PixZero("cat", "dog")),
        (["--direction", str(saved), "--strength", "2", "--force"],
         Pix2PixZero("cat", "dog", 2.0, direction=str(saved))),
        (["--target-sentences", str(tmp_path / "dogs.txt"), "--attention-guidance", "0", "--force"],
         Pix2PixZero("cat", ("a dog", "the dog"), attention_guidance=0)),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main([*arguments, *more])
        assert end.value.code == 0
        told = json.loads(capsys.readouterr().out)
        assert Recipe.from_dict(told["recipe"]).controls == (control,)
        source, edited = (np.asarray(Image.open(folder / f"{n}.png")).astype(float) for n in ("source", "edit"))
        changed = (np.abs(source - edited).mean(-1) / 255 > CHANGED).mean()
        assert told["report"]["distance"][0][0]["changed_pixels"] == pytest.approx(changed, abs=1e-3)
    assert saved.is_file() and (folder / "edit.png").is_file()
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--force", "--target-sentences", str(tmp_path / "none.txt")])
    assert end.value.code != 0 and "one per line" in capsys.readouterr().err
