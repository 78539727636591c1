"""The papers' equations in their slow, obvious form: every attention matrix is built, every edit is a loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) in full."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


class DenseEdit:
    """An attention processor that builds every matrix and lets `edit(maps, is_cross)` change the conditional ones.

    `maps` [prompts, heads, queries, keys] of the conditional half, one image per prompt.
    """

    def __init__(self, edit) -> None:
        self.edit = edit

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        maps = attention(q, k)
        half = len(maps) // 2
        edited = torch.cat([maps[:half], self.edit(maps[half:].clone(), encoder_hidden_states is not None)])
        out = (edited @ v).transpose(1, 2).flatten(2)
        return attn.to_out[0](out)


def dense_sample(model, prompts, noise, steps, guidance, make_edit, after_step=None):
    """The whole sampling loop with `make_edit(step index)` as each step's edit: Prompt-to-Prompt, algorithm 1."""
    tokens = model.tokenizer(list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    empty = model.tokenizer([""] * len(prompts), padding="max_length", max_length=77, return_tensors="pt")
    context = model.text_encoder(torch.cat([empty.input_ids, tokens.input_ids])).last_hidden_state
    alphas = model.pipeline.scheduler.alphas_cumprod.double()
    stride = 1000 // steps
    z = noise.expand(len(prompts), *noise.shape[1:]).clone()
    old = model.unet.attn_processors
    try:
        for i in range(steps):
            t = (steps - 1 - i) * stride + 1
            model.unet.set_attn_processor(DenseEdit(make_edit(i)))
            with torch.no_grad():
                out = model.unet(torch.cat([z, z]), t, encoder_hidden_states=context).sample
            uncond, cond = out.chunk(2)
            e = uncond + guidance * (cond - uncond)
            a, b = alphas[t], alphas[t - stride] if t >= stride else alphas[0]
            x0 = (z - (1 - a).sqrt() * e) / a.sqrt()
            z = b.sqrt() * x0 + (1 - b).sqrt() * e
            if after_step:
                z = after_step(i, z)
    finally:
        model.unet.set_attn_processor(old)
    return z


def published_sample(
    model, scheduler, prompts, noise, steps, guidance, new_map, windows, self_window, factors=None, blend=None
):
    """A run under the authors' controllers, which count the network's calls, whatever a scheduler makes of them.

    `new_map(maps)`: the target's map made of the source's. `windows`: (tokens, start, end) in fractions of steps + 1,
    later ones over earlier ones. `self_window`: fractions of the steps. `factors` [tokens] are applied to the new map.
    `blend`: word tokens of both prompts, those to subtract or None, both thresholds, and the start.
    """
    tokens = model.tokenizer(list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    empty = model.tokenizer([""] * len(prompts), padding="max_length", max_length=77, return_tensors="pt")
    context = model.text_encoder(torch.cat([empty.input_ids, tokens.input_ids])).last_hidden_state
    alpha = torch.zeros(steps + 1, 77, dtype=noise.dtype)
    for places, start, end in windows:
        alpha[:, places] = 0
        for call in range(int(start * (steps + 1)), int(end * (steps + 1))):
            alpha[call, places] = 1
    first, last = int(steps * self_window[0]), int(steps * self_window[1])
    z = noise.expand(len(prompts), *noise.shape[1:]).clone()
    summed: Tensor | int = 0
    old = model.unet.attn_processors
    scheduler.set_timesteps(steps)
    if type(scheduler).__name__ == "DDIMScheduler":  # as exact as the latents
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    try:
        for call, t in enumerate(scheduler.timesteps):

            def edit(maps, is_cross, call=call):
                nonlocal summed
                if is_cross:
                    new = new_map(maps) if factors is None else new_map(maps) * factors
                    maps[1] = alpha[call] * new + (1 - alpha[call]) * maps[1]
                    summed = summed + maps.mean(1) if maps.shape[2] == 256 else summed
                elif first <= call < last and maps.shape[3] <= 256:
                    maps[1] = maps[0]
                return maps

            model.unet.set_attn_processor(DenseEdit(edit))
            with torch.no_grad():
                uncond, cond = model.unet(torch.cat([z, z]), t, encoder_hidden_states=context).sample.chunk(2)
            z = scheduler.step(uncond + guidance * (cond - uncond), t, z).prev_sample
            if blend is not None and call + 1 > int(blend[4] * steps):
                words, without, threshold, without_threshold, _ = blend
                mask = _published_region(summed, words, threshold, pooled=True)
                if without is not None:
                    mask = mask & ~_published_region(summed, without, without_threshold, pooled=False)
                z = torch.stack([z[0], torch.where(mask, z[1], z[0])])
    finally:
        model.unet.set_attn_processor(old)
    return z


def _published_region(summed: Tensor, words: list[list[int]], threshold: float, pooled: bool) -> Tensor:
    """Where the words' map of one of the two prompts, over its maximum, is above the threshold."""
    found = torch.zeros(16, 16, dtype=torch.bool)
    for row in (0, 1):
        heat = summed[row][:, words[row]].sum(-1).reshape(1, 16, 16)
        heat = torch.nn.functional.max_pool2d(heat, 3, 1, 1) if pooled else heat
        found |= (heat / heat.max() > threshold)[0]
    return found


def replaced(maps: Tensor, mapper: np.ndarray) -> Tensor:
    """New map of row 1: sum over source tokens w of A_0[.., w] M[w, n], term by term."""
    new = torch.zeros_like(maps[0])
    for w in range(mapper.shape[0]):
        for n in np.nonzero(mapper[w])[0]:
            new[..., n] += maps[0, ..., w] * float(mapper[w, n])
    return new


def refined(maps: Tensor, mapper: list[int]) -> Tensor:
    """Row 1's map with the source's columns where a token has a counterpart."""
    new = maps[1].clone()
    for n, w in enumerate(mapper):
        if w >= 0:
            new[..., n] = maps[0, ..., w]
    return new


def reference_word_tokens(prompt: str, word: str, tokenizer) -> list[int]:
    """The authors' way to a word's tokens: add up the lengths of decoded pieces until the word is full."""
    words = prompt.split(" ")
    places = [i for i, w in enumerate(words) if w == word]
    pieces = [tokenizer.decode([t]).strip() for t in tokenizer(prompt)["input_ids"]][1:-1]
    found, current, filled = [], 0, 0
    for k, piece in enumerate(pieces):
        filled += len(piece)
        if current in places:
            found.append(k + 1)
        if filled >= len(words[current]):
            current, filled = current + 1, 0
    return found


def reference_replace_mapper(source: list[list[int]], target: list[list[int]], size: int = 77) -> np.ndarray:
    """The authors' word-swap mapper, tail and all: token lists of the differing words of both prompts."""
    mapper = np.zeros((size, size))
    i = j = current = 0
    while i < size and j < size:
        if current < len(source) and source[current][0] == i:
            if len(source[current]) == len(target[current]):
                for a, b in zip(source[current], target[current], strict=True):
                    mapper[a, b] = 1
            else:
                for a in source[current]:
                    for b in target[current]:
                        mapper[a, b] = 1 / len(target[current])
            i += len(source[current])
            j += len(target[current])
            current += 1
        elif current < len(source):
            mapper[i, j] = 1
            i, j = i + 1, j + 1
        else:
            mapper[j, j] = 1
            i, j = i + 1, j + 1
    return mapper


def longest_common(x: list[int], y: list[int]) -> int:
    """Length of a longest common subsequence, by the textbook recursion."""
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def local_blend_mask(maps: list[Tensor], words: list[list[int]], size: int, threshold: float) -> Tensor:
    """Union of thresholded word maps of row 0 and row 1; `maps`: [2, heads, queries, keys] of all sites and steps."""
    masks = []
    for row in (0, 1):
        total = torch.zeros(maps[0].shape[2], dtype=maps[0].dtype)
        for m in maps:
            for head in range(m.shape[1]):
                for token in words[row]:
                    total += m[row, head, :, token]
        side = int(len(total) ** 0.5)
        grid, pooled = total.reshape(side, side), torch.zeros(side, side, dtype=total.dtype)
        for y in range(side):
            for x in range(side):
                pooled[y, x] = grid[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max()
        big = pooled.repeat_interleave(size // side, 0).repeat_interleave(size // side, 1)
        masks.append(big / big.max() > threshold)
    return masks[0] | masks[1]


class Seen:
    """An attention processor that notes the conditional maps of its layer, or computes with given ones."""

    def __init__(self, name: str, seen: dict, given: dict | None) -> None:
        self.name, self.seen, self.given = name, seen, given or {}

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        maps = attention(q, k)
        if self.name in self.given:
            maps = torch.cat([maps[:1], self.given[self.name]])
        self.seen[self.name] = maps[1:]
        return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))


def algorithm_1(model, source, target, noise, steps, guidance, edit, self_steps):
    """Algorithm 1 pass by pass: M of the source, M* of the target at the edit's latent, both of passes that nobody
    edits, then the edit's own pass with Edit(M, M*), `edit(step, M, M*)` of a cross-attention layer. In `self_steps`
    self-attention of up to 16 x 16 pixels is the source's.
    """
    alphas = model.pipeline.scheduler.alphas_cumprod.double()
    stride, old = 1000 // steps, model.unet.attn_processors
    read = {
        p: model.tokenizer([p], padding="max_length", max_length=77, return_tensors="pt") for p in ("", source, target)
    }
    text = {p: model.text_encoder(ids.input_ids).last_hidden_state for p, ids in read.items()}

    def predict(z, t, prompt, given=None):
        seen = {}
        model.unet.set_attn_processor({name: Seen(name, seen, given) for name in old})
        both = torch.cat([text[""], text[prompt]])
        with torch.no_grad():
            uncond, cond = model.unet(torch.cat([z, z]), t, encoder_hidden_states=both).sample.chunk(2)
        return uncond + guidance * (cond - uncond), seen

    def ddim(z, e, t):
        a, b = alphas[t], alphas[t - stride] if t >= stride else alphas[0]
        return b.sqrt() * (z - (1 - a).sqrt() * e) / a.sqrt() + (1 - b).sqrt() * e

    z = z_star = noise
    try:
        for i in range(steps):
            t = (steps - 1 - i) * stride + 1
            e, m = predict(z, t, source)
            _, m_star = predict(z_star, t, target)
            given = {name: edit(i, m[name], m_star[name]) for name in old if "attn2" in name}
            if i < self_steps:
                given |= {name: m[name] for name in old if "attn1" in name and m[name].shape[-1] <= 256}
            e_star, _ = predict(z_star, t, target, given)
            z, z_star = ddim(z, e, t), ddim(z_star, e_star, t)
    finally:
        model.unet.set_attn_processor(old)
    return torch.cat([z, z_star])
