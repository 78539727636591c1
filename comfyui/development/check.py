"""Check the nodes against ComfyUI itself: `python comfyui/development/check.py /path/to/ComfyUI`.

Tiny random networks of Stable Diffusion and FLUX, made in diffusers' classes and, with the same weights, in ComfyUI's.
Plain images must be those of ComfyUI's KSampler bit for bit, and edits by the nodes those of `promptweave.edit`, to
rounding. Prints one line for each comparison; exits with 1 if one fails. Needs the packages that ComfyUI needs, but no
weights and no network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "tests")]
import real_comfyui as real  # noqa: E402

STEPS = 5
SOURCE, SWAP, REFINE = (
    "a black cat next to a red car",
    "a black dog next to a red car",
    "a black cat next to a red car, at night",
)
ROUNDING = 1e-5
failures: list[str] = []


def compare(name: str, a: torch.Tensor, b: torch.Tensor, limit: float) -> None:
    """Print the largest difference of two latents, relative to the largest value."""
    found = float((a - b).abs().max() / b.abs().max())
    good = bool(found <= limit)
    print(f"{'ok  ' if good else 'FAIL'} {name}: {found:.1e}, at most {limit:.0e}")
    if not good:
        failures.append(name)


def ksampler(
    model: Any, clip: Any, prompts: list[str], cfg: float, scheduler: str, shape: tuple[int, ...], size: Any
) -> Any:
    """The latents of ComfyUI's own sampler, all prompts from one noise."""
    import comfy.sample

    made = [clip.encode_from_tokens(clip.tokenize(text), return_pooled=True, return_dict=True) for text in prompts]
    rows = {name: torch.cat([one[name] for one in made]) for name in ("cond", "pooled_output")}
    empty = clip.encode_from_tokens(clip.tokenize(""), return_pooled=True, return_dict=True)
    flux = "Flux" in type(model.model).__name__
    further = {"height": size[0], "width": size[1], "guidance": cfg}
    positive = [[rows["cond"], {"pooled_output": rows["pooled_output"], **further}]]
    negative = [[empty["cond"], {"pooled_output": empty["pooled_output"], **further}]]
    latent = torch.zeros(len(prompts), *shape)
    noise = comfy.sample.prepare_noise(latent, 7, [0] * len(prompts))
    scale = 1.0 if flux else cfg
    return comfy.sample.sample(
        model, noise, STEPS, scale, "euler", scheduler, positive, negative, latent, seed=7, disable_pbar=True
    )


def check_family(
    name: str, model: Any, clip: Any, vae: Any, network: Any, cfg: float, scheduler: str, size: Any
) -> None:
    """One family: `network` is the library's model of the same weights."""
    import promptweave as pw

    pack = real.pack()
    nodes, made_of = pack.nodes, pack.comfy_model.ComfyModel
    seen = made_of(model, clip, vae, scheduler)
    settings = {"seed": 7, "steps": STEPS, "guidance": cfg, "size": size}
    shape = (seen.channels, *(side // seen.factor for side in size))
    alone = pw.generate(SOURCE, model=seen, **settings)
    untouched = ksampler(model, clip, [SOURCE], cfg, scheduler, shape, size)
    compare(f"{name}, plain, to KSampler", seen.saved(alone.sample.latents[0]), untouched, 0.0)
    values = {"seed": 7, "steps": STEPS, "cfg": cfg, "width": size[1], "height": size[0], "negative": ""}
    flux = "Flux" in type(model.model).__name__
    window = nodes.JointWindow().run(0.6)[0] if flux else nodes.Windows().run(0.8, 0.6)[0]
    told = {"joint": 0.6} if flux else {"cross": 0.8, "self_attention": 0.6}
    blend = nodes.LocalBlend().run("cat, dog", "", 0.9, 0.2, options=window)[0]
    blended = {"blend": ["cat", "dog"], "threshold": 0.9, "blend_start": 0.2}
    weights = nodes.Reweight().run("red=3", options=window)[0]
    cases = {
        "swap": (SWAP, window, {}),
        "refine": (REFINE, window, {}),
        "re-weight": ("", weights, {"weights": {"red": 3.0}}),
        "local blend": (SWAP, blend, blended),
    }
    edits: list[torch.Tensor] = []
    for case, (target, options, further) in cases.items():
        *_, latents, result = nodes.Edit().run(
            model, clip, vae, SOURCE, target, "auto", scheduler, True, options=options, **values
        )
        own = pw.edit(SOURCE, *([target] if target else []), model=network, **settings, **told, **further)
        made, prompts = result.sample.latents[:, 0], [SOURCE, target or SOURCE]
        plain = ksampler(model, clip, prompts, cfg, scheduler, shape, size)
        compare(f"{name}, {case}, to promptweave.edit", made, own.sample.latents[:, 0], ROUNDING)
        compare(f"{name}, {case}: the source to KSampler", latents["samples"][:1], plain[:1], ROUNDING)
        effect = float((latents["samples"][1] - plain[1]).abs().max() / plain[1].abs().max())
        print(f"     {name}, {case}: the target differs by {effect:.1e} from that without controls")
        if effect < 100 * ROUNDING or any(torch.equal(made[1], other) for other in edits):
            failures.append(f"{name}, {case}: no effect of its own")
        edits.append(made[1])
    if hasattr(model.model.diffusion_model, "input_blocks"):
        changed = model.clone()
        layer = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
        value = torch.ones_like(model.model.state_dict()[layer])
        changed.add_patches({layer: ("diff", (value,))}, 0.05)
        changed.set_model_output_block_patch(lambda h, skip, options: (h * 1.1, skip))
        patched = pw.generate(SOURCE, model=made_of(changed, clip, vae, scheduler), **settings)
        found, theirs = (
            seen.saved(patched.sample.latents[0]),
            ksampler(changed, clip, [SOURCE], cfg, scheduler, shape, size),
        )
        compare(f"{name}, plain, with patches of weights and features, to KSampler", found, theirs, 0.0)
        if torch.equal(theirs, untouched):
            failures.append(f"{name}, patches: no effect")
    recording, _, recorded = nodes.Record().run(model, clip, vae, SOURCE, scheduler, 0.8, 0.6, 0.6, **values)
    compare(f"{name}, recorded, to plain", recorded["samples"], seen.saved(alone.sample.latents[0]), 0.0)
    *_, result = nodes.EditRecording().run(model, clip, vae, recording, SWAP, "auto", True, options=blend)
    own = pw.edit(SOURCE, SWAP, model=network, **settings, **told, **blended)
    compare(
        f"{name}, edit of a recording, to promptweave.edit",
        result.sample.latents[:, 0],
        own.sample.latents[:, 0],
        ROUNDING,
    )
    maps = pw.edit_maps(result).maps[1].of("dog")
    reference = pw.edit(SOURCE, SWAP, model=network, maps=True, **settings, **told, **blended)
    compare(f"{name}, map of a word", maps, pw.edit_maps(reference).maps[1].of("dog"), ROUNDING)


def tiny_sd(comfyui: Path) -> tuple[Any, ...]:
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from families import louder
    from tiny import build_tiny
    from transformers import AutoTokenizer

    from promptweave.models.load import load

    folder = str(comfyui / "comfy" / "sd1_tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True)
    pipeline = build_tiny(tokenizer)
    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_config(
        pipeline.unet.config, block_out_channels=(32, 64), attention_head_dim=(2, 4), norm_num_groups=8,
    )  # fmt: skip
    louder(unet)
    pipeline.register_modules(unet=unet)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    network = load(pipeline)
    return (
        real.unet_model(unet, heads=16),
        real.clip_of(pipeline.text_encoder, folder),
        real.PipelineVae(pipeline.vae),
        network,
    )


def tiny_sdxl(comfyui: Path) -> tuple[Any, ...]:
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from families import build_sdxl, louder
    from transformers import AutoTokenizer

    from promptweave.models.load import load

    folder = str(comfyui / "comfy" / "sd1_tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True)
    pipeline = build_sdxl(tokenizer, force_zeros_for_empty_prompt=False)
    torch.manual_seed(2)
    unet = UNet2DConditionModel.from_config(
        pipeline.unet.config, block_out_channels=(32, 64), attention_head_dim=(2, 4), addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=20 + 6 * 256,
    )  # fmt: skip
    louder(unet)
    pipeline.register_modules(unet=unet)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    network, further = load(pipeline), {"adm_in_channels": 20 + 6 * 256, "num_classes": "sequential"}
    from comfy.supported_models import SDXL

    model = real.unet_model(unet, heads=16, kind=SDXL, config=further)
    return model, real.PipelineClip(pipeline), real.PipelineVae(pipeline.vae), network


def tiny_flux(comfyui: Path) -> tuple[Any, ...]:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from families import build_flux, t5_tokenizer
    from transformers import AutoTokenizer

    from promptweave.models.load import load

    folder = str(comfyui / "comfy" / "sd1_tokenizer")
    pipeline = build_flux(AutoTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True))
    pipeline.register_modules(tokenizer_2=t5_tokenizer(256))
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=1.15, max_shift=1.15)
    for name, weight in pipeline.transformer.named_parameters():
        if ".to_v." in name or ".add_v_proj." in name or "context_embedder" in name or "to_out" in name:
            weight.data *= 8  # so that the text has a say
    network = load(pipeline)
    return (
        real.flux_model(pipeline.transformer, 4),
        real.PipelineClip(pipeline),
        real.PipelineVae(pipeline.vae),
        network,
    )


def main() -> int:
    comfyui = Path(sys.argv[1])
    sys.argv[1:] = []
    real.prepare(comfyui)
    real.on_cpu()
    with torch.no_grad():
        check_family("Stable Diffusion", *tiny_sd(comfyui), 7.5, "simple", (34, 42))
        check_family("Stable Diffusion XL", *tiny_sdxl(comfyui), 5.0, "simple", (32, 48))
        check_family("FLUX", *tiny_flux(comfyui), 3.5, "simple", (32, 48))
    print(f"failed: {'; '.join(failures)}" if failures else "all equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
