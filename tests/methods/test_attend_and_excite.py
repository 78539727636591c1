"""Attend-and-Excite against its equations, finite differences and the pipeline that diffusers keeps of it."""

from __future__ import annotations

import pytest
import torch
from families import build_flux, build_sd3, build_sdxl
from tiny import build_tiny

from promptweave import NoEffect, Recipe, Replace, generate, load, noise_for, sample
from promptweave.core.rows import Layout
from promptweave.core.site import Sites
from promptweave.editing.plan import recipe_for
from promptweave.editing.recorders import bound
from promptweave.methods import AttendAndExcite
from promptweave.methods.attend_and_excite import patches, peaks
from promptweave.sampling.passes import Pass
from promptweave.sampling.probe import Prober
from promptweave.sampling.solver import Ddim

PROMPT = "a black cat next to a red car"
WORDS = ("cat", "car")
LOW = 0.97  # a threshold that takes many moves


def excited(model, control, steps: int = 4, images: int = 1, prompts=(PROMPT,), **options):
    noise = options.pop("noise", noise_for(model, 0, images))
    return sample(model, prompts, noise=noise, steps=steps, guidance=3.0, controls=[control], **options)


def test_the_gaussian():
    compat = patches(0.5, reference_compat=True)
    corner, edge, centre = 0.04492, 0.12210, 0.33191  # of the published code at sigma = 0.5
    wanted = torch.tensor([[corner, edge, corner], [edge, centre, edge], [corner, edge, corner]], dtype=torch.float64)
    torch.testing.assert_close(compat, wanted, atol=1e-5, rtol=0)
    line = torch.exp(torch.tensor([-2.0, 0.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(patches(0.5), torch.outer(line, line) / line.sum() ** 2, atol=1e-15, rtol=0)


def test_peaks_by_hand():
    maps = torch.zeros(2, 4, 3, 6)
    maps[..., 0] = 0.5  # the start token does not count
    maps[0, 1, 1, 2], maps[1, 3, 2, 4] = 0.3, 0.2
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = 1
    found = peaks(maps, [(2,), (4,), (2, 4)], 5, kernel)
    e = torch.exp(torch.tensor([30.0, 20.0]))
    high = e / (e + 3)
    wanted = torch.tensor([[high[0], 0.25, high[0] + 1 / (e[0] + 3)], [0.25, high[1], high[1] + 1 / (e[1] + 3)]])
    torch.testing.assert_close(found, wanted)


def test_a_higher_logit_lowers_the_loss():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 5, 7, 11, generator=generator)
    values = []
    for extra in (0.0, 0.5, 1.0):
        raised = scores.clone()
        raised[..., 3] += extra
        values.append(float(peaks(raised.softmax(-1), [(3,)], 10, patches(0.5))))
    assert values[0] < values[1] < values[2]


def test_the_gradient_is_that_of_finite_differences(tiny64):
    from promptweave.core.control import Control, Hooks

    class Check(Control, Hooks):
        def bind(self, run):
            self.sites, self.errors = run.map_sites, []
            return self

        def before_step(self, step, z, probe):
            def losses(maps):
                return torch.stack([peaks(maps.mean(row), [(3,), (7,)], 76, patches(0.5)).sum(-1) for row in (0, 1)])

            value, gradient = probe.gradient(z, self.sites, losses)
            way = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
            ahead, behind = (losses(probe(z + e * way, self.sites)).detach() for e in (1e-5, -1e-5))
            wanted = (ahead - behind) / 2e-5
            torch.testing.assert_close((gradient * way).sum((-3, -2, -1)), wanted, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(value, losses(probe(z, self.sites)).detach())
            self.errors.append(float(wanted.abs().max()))
            return z

    check = Check()
    excited(tiny64, check, prompts=(PROMPT, "a lion wearing a crown"), noise=noise_for(tiny64, 0, 2).double())
    assert len(check.errors) == 4 and min(check.errors) > 1e-4


def test_the_pass_for_the_loss_ends_at_the_last_layer_that_it_reads(tiny):
    ran: list[str] = []
    names = {module: name for name, module in tiny.unet.named_modules()}
    handles = [m.register_forward_hook(lambda m, i, o: ran.append(names[m])) for m in tiny.unet.up_blocks]
    excited(tiny, AttendAndExcite(WORDS, share=1.0, thresholds=()), steps=2)
    for handle in handles:
        handle.remove()
    sites = [s for s in tiny.sites((16, 16)) if s in tiny.map_sites((16, 16))]
    reads_to_the_end = sites[-1].path.startswith("up_blocks.1")
    assert ran.count("up_blocks.1") == 2, "the network's last block runs in the steps alone"
    assert reads_to_the_end or ran.count("up_blocks.0") < 4


@pytest.mark.parametrize(("compat", "repeated"), [(True, 1), (False, 1), (True, 3)])
@pytest.mark.filterwarnings("ignore")
def test_against_the_pipeline_of_diffusers(tokenizer, compat, repeated):
    """A threshold acts in its step, also behind the steps in which latents are moved (the last of four here)."""
    from diffusers import StableDiffusionAttendAndExcitePipeline

    base = build_tiny(tokenizer).to(torch.float64)
    parts = {name: part for name, part in base.components.items() if name != "image_encoder"}
    theirs = StableDiffusionAttendAndExcitePipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    model, steps = load(build_tiny(tokenizer).to(torch.float64)), 4
    noise, grid = noise_for(model, 3).double(), model.map_grid((16, 16))
    words = model.words(PROMPT)
    places = [words.find(word)[0] for word in WORDS]
    assert all(len(words.find(word)) == 1 for word in WORDS)
    wanted = theirs(
        PROMPT, token_indices=places, latents=noise, num_inference_steps=steps, guidance_scale=3.0,
        output_type="latent", max_iter_to_alter=2, thresholds={0: 0.05, repeated: LOW}, scale_factor=20, attn_res=grid,
    ).images  # fmt: skip
    control = AttendAndExcite(WORDS, 0.5, thresholds=((0, 0.05), (repeated / 4, LOW)), reference_compat=compat)
    made = excited(model, control, steps, noise=noise)
    plain = sample(model, [PROMPT], noise=noise, steps=steps, guidance=3.0)
    assert (made.latents - plain.latents).abs().max() > 0.05, "the control did something"
    if compat:  # they also read the mid block if its grid is the asked one; here it is not
        assert made.reports[0]["repeats"].get(str(repeated)), "the threshold was met at once, which tests nothing"
        torch.testing.assert_close(made.latents[0], wanted, rtol=1e-5, atol=1e-5)
    else:
        assert (made.latents[0] - wanted).abs().max() > 1e-3


def test_each_picture_moves_and_stops_on_its_own(tiny64):
    control = AttendAndExcite(WORDS, 0.5, thresholds=((0.0, 0.97), (0.25, 0.98)), iterations=5)
    both = excited(tiny64, control, noise=noise_for(tiny64, 5, 2).double()).latents[0]
    alone = [excited(tiny64, control, noise=noise_for(tiny64, 5 + i).double()).latents[0, 0] for i in (0, 1)]
    torch.testing.assert_close(both, torch.stack(alone), rtol=1e-7, atol=1e-7)


def test_repeats_are_limited(tiny):
    control = AttendAndExcite(WORDS, 0.5, scale=1e-4, thresholds=((0, 0.999999),), iterations=3)
    assert excited(tiny, control).reports[0]["repeats"] == {"0": 3}


@pytest.mark.parametrize("build", [build_tiny, build_sdxl, build_sd3, build_flux])
def test_every_family(build, tokenizer):
    model = load(build(tokenizer))
    control = AttendAndExcite(WORDS, 1.0, thresholds=((0, 0.9),), iterations=3, sharpness=20)
    made = excited(model, control, images=2)
    losses = made.reports[0]["losses"]["0"]
    assert set(losses) == set(WORDS) and all(len(values) == 4 for values in losses.values())
    plain = sample(model, [PROMPT], noise=noise_for(model, 0, 2), steps=4, guidance=3.0)
    assert torch.isfinite(made.latents).all() and (made.latents - plain.latents).abs().max() > 1e-4


@pytest.mark.parametrize("build", [build_tiny, build_sdxl, build_sd3, build_flux])
def test_gradient_checkpointing_changes_nothing(build, tokenizer):
    model, frugal = load(build(tokenizer)), load(build(tokenizer))
    frugal.network.enable_gradient_checkpointing()
    control = AttendAndExcite(WORDS, 1.0, sharpness=20, iterations=3)
    torch.testing.assert_close(excited(frugal, control).latents, excited(model, control).latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_do_not_vanish_in_half_precision(dtype, tokenizer):
    exact, half = load(build_tiny(tokenizer)), load(build_tiny(tokenizer).to(dtype))
    control = AttendAndExcite(WORDS, 0.25, thresholds=(), sharpness=20, scale=1000)
    moved = [
        excited(model, control).latents
        - sample(model, [PROMPT], noise=noise_for(model, 0), steps=4, guidance=3.0).latents
        for model in (exact, half)
    ]
    likeness = torch.nn.functional.cosine_similarity(moved[0].flatten(), moved[1].flatten(), dim=0)
    assert moved[0].norm() > 0.1 and likeness > 0.9


def test_other_solvers_take_the_same_step(tiny64):
    """Where latents are larger than what the network reads, so is the move."""

    class Large(Ddim):
        def scale(self, z, t):
            return z / 5

    run = bound(recipe_for(tiny64, PROMPT, steps=4), tiny64)
    text, z = tiny64.encode([PROMPT], [""]), noise_for(tiny64, 0, 2).double()[None]

    def losses(maps):
        return 1 - peaks(maps.mean(0), [(3,), (7,)], 76, patches(0.5), 20).amin(-1)[None]

    moves = []
    for solver, size in ((Ddim(tiny64.schedule(), 4), 1), (Large(tiny64.schedule(), 4), 5)):
        here = Pass(tiny64, solver.steps[0], text, torch.ones(1), (), Layout(("cond",), 1, 2))
        _, gradient = Prober(here, solver).gradient(size * z, run.map_sites, losses)
        moves.append(gradient / size)
    assert moves[0].abs().max() > 1e-6
    torch.testing.assert_close(moves[0], moves[1])


def test_beside_prompt_to_prompt(tiny64):
    prompts = ("a photo of a cat riding a bike", "a photo of a dog riding a bike")
    control = AttendAndExcite(("bike",), sharpness=20, thresholds=(), prompts=(0,))
    settings = {"noise": noise_for(tiny64, 0).double(), "steps": 4, "guidance": 3.0}
    made = sample(tiny64, prompts, controls=[control, Replace()], **settings)
    alone = sample(tiny64, prompts[:1], controls=[control], **settings)
    torch.testing.assert_close(made.latents[0], alone.latents[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("control", "error", "message"),
    [
        (AttendAndExcite(()), NoEffect, "needs a subject"),
        (AttendAndExcite(WORDS, share=0), NoEffect, "needs a subject, a scale above 0 and a share"),
        (AttendAndExcite(WORDS, scale=0), NoEffect, "needs a subject"),
        (AttendAndExcite(("dog",)), ValueError, "'dog' is not a word"),
        (AttendAndExcite(WORDS, sigma=0), ValueError, "sigma and sharpness above 0"),
        (AttendAndExcite(WORDS, thresholds=((0, 1.0),)), ValueError, "thresholds of AttendAndExcite is a fraction"),
        (AttendAndExcite(WORDS, prompts=(1,)), ValueError, "must name rows 0 to 0"),
    ],
)
def test_bad_parameters(control, error, message, tiny):
    with pytest.raises(error, match=message):
        excited(tiny, control)


def test_the_recipe_holds_it(tiny):
    made = generate(PROMPT, model=tiny, controls=[AttendAndExcite(WORDS)], steps=2, compare=True)
    assert Recipe.from_dict(made.recipe.as_dict()).controls == (AttendAndExcite(WORDS),)
    assert made.plain is not None and made.plain.shape[0] == 1
    assert made.comparison().width > made.source.width


def test_a_probe_of_no_site_says_so(tiny):
    from promptweave.core.control import Control, Hooks

    class Nowhere(Control, Hooks):
        def bind(self, run):
            return self

        def before_step(self, step, z, probe):
            probe(z, Sites("joint")).mean(0)
            return z

    with pytest.raises(ValueError, match="no site matched"):
        excited(tiny, Nowhere())
