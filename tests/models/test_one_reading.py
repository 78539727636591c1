"""A prompt is read once: encoder, spans, nouns and edits see the same tokens, whatever the prompt holds."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from families import build_flux, build_sd3, build_sdxl
from tiny import build_tiny

import promptweave as pw
from promptweave.core.control import NoEffect
from promptweave.models.load import ModelError
from promptweave.words import refine_map, suggest
from promptweave.words.parts import part
from promptweave.words.phrases import nouns

TEXT = "a photo of a <toy> riding a bike"
FAST = {"steps": 2, "guidance": 2.0}


def inverted(pipeline, vectors=3, token="<toy>"):
    """The pipeline with a textual inversion in every CLIP encoder that words come from."""
    torch.manual_seed(7)
    encoders = [("text_encoder", "tokenizer")]
    if hasattr(pipeline, "text_encoder_2"):
        encoders.append(("text_encoder_2", "tokenizer_2"))
    for encoder, tokenizer in encoders:
        wide = getattr(pipeline, encoder).get_input_embeddings().weight.shape[1]
        pipeline.load_textual_inversion(
            {token: torch.randn(vectors, wide)}, token=token, text_encoder=getattr(pipeline, encoder),
            tokenizer=getattr(pipeline, tokenizer),
        )  # fmt: skip
    return pipeline


def fresh(tokenizer, family="sd"):
    if family == "sd":
        return build_tiny(deepcopy(tokenizer))
    made = build_sdxl(deepcopy(tokenizer))
    made.register_modules(tokenizer_2=deepcopy(tokenizer))
    return made


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("vectors", [1, 3])
def test_vectors_of_textual_inversion_are_read_as_diffusers_does(tokenizer, family, vectors):
    pipeline = inverted(fresh(tokenizer, family), vectors)
    model = pw.load(pipeline)
    plain = pw.load(fresh(tokenizer, family)).words(TEXT.replace("<toy>", "cat"))
    words = model.words(TEXT)
    first = plain.find("cat")[0]
    assert words.find("<toy>") == tuple(range(first, first + vectors))
    assert words.find("bike")[0] == first + vectors + plain.find("bike")[0] - plain.find("cat")[-1] - 1
    mine = model.encode([TEXT], [f"bad {TEXT}"])
    theirs = pipeline.encode_prompt(
        TEXT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt=f"bad {TEXT}"
    )
    assert torch.equal(mine.cond, theirs[0]) and torch.equal(mine.uncond, theirs[1])
    if family == "sdxl":
        assert torch.equal(mine.pooled, theirs[2]) and torch.equal(mine.uncond_pooled, theirs[3])


def test_textual_inversion_of_flux_reads_as_its_pipeline_does(tokenizer):
    pipeline = build_flux(deepcopy(tokenizer))
    pipeline.load_textual_inversion({"<toy>": torch.randn(3, 24)}, token="<toy>")
    model = pw.load(pipeline)
    keys, pooled, _ = pipeline.encode_prompt(TEXT, None, device="cpu", max_sequence_length=model.length)
    mine = model.encode([TEXT], [""])
    assert torch.equal(mine.cond, keys) and torch.equal(mine.pooled, pooled)
    assert mine.cond.shape[1] == model.words(TEXT).limit


def test_names_of_vectors_on_a_pipeline_that_writes_none_out(tokenizer):
    pipeline = build_sd3(deepcopy(tokenizer))
    pipeline.tokenizer.add_tokens(["<toy>", "<toy>_1"])
    assert len(pw.load(pipeline, device="cpu").words(TEXT).units[4].tokens) == len(
        pipeline.tokenizer("<toy>").input_ids[1:-1]
    ) + len(pipeline.tokenizer_3("<toy>").input_ids[:-1])


def test_textual_inversion_everywhere(tokenizer):
    """In weights, chunks, maps, blends, subjects, weights of words and edits."""
    pipeline = inverted(fresh(tokenizer))
    model, chunked = pw.load(pipeline), pw.load(pipeline, chunks=2, prompt_weights=True)
    alone, weighted = model.words(TEXT), chunked.words("a photo of a (<toy>:1.5) riding a bike")
    assert weighted.find("<toy>") == alone.find("<toy>")
    assert [weighted.scales[token] for token in alone.find("<toy>")] == [1.5] * 3
    assert weighted.scales[alone.find("<toy>")[-1] + 1] == 1
    broken = chunked.words("a photo of a cat BREAK <toy> <toy>")
    assert broken.find("<toy>#1") == (78, 79, 80) and broken.find("<toy>#2") == (81, 82, 83)
    maps = pw.word_maps(TEXT, model=model, **FAST)
    assert dict(maps.words)["<toy>"] == alone.find("<toy>") and maps.of("<toy>").shape == maps.of("bike").shape
    made = pw.edit(TEXT.replace("<toy>", "cat"), TEXT, model=model, blend="<toy>", weights={"<toy>": 2.0}, **FAST)
    assert [pair["target"] for pair in made.report["alignment"][0] if pair["kind"] == "swapped"] == ["<toy>"]
    seen = pw.generate(TEXT, model=model, controls=[pw.AttendAndExcite(("<toy>", "bike"), thresholds=())], **FAST)
    assert set(seen.report["controls"][0]["losses"]["0"]) == {"<toy>", "bike"}
    pw.generate("a cat", model=model, negative="<toy> " * 20, **FAST)
    with pytest.raises(ValueError, match=r"negative prompt is longer.*'<toy>'"):
        pw.generate("a cat", model=model, negative="<toy> " * 26, **FAST)
    assert nouns(alone.prompt) == ("<toy>", "bike")


def test_textual_inversion_in_one_encoder_of_sdxl(tokenizer):
    pipeline = fresh(tokenizer, "sdxl")
    model = pw.load(pipeline)
    pipeline.load_textual_inversion({"<toy>": torch.randn(3, 24)}, token="<toy>")
    with pytest.raises(ValueError, match="'<toy>'.*Load its textual inversion into both"):
        model.encode([TEXT], [""])
    model.encode(["a cat"], [""])
    with pytest.raises(ValueError, match="textual inversions into both"):
        pw.load(pipeline)


def test_a_change_of_brackets_is_a_reweighting(tokenizer):
    pipeline = fresh(tokenizer)
    model = pw.load(pipeline, prompt_weights=True)
    for source, target in (
        ("a red car", "a (red:1.6) car"),
        ("a (red) car", "a ((red)) car"),
        ("a (red:0.5) car", "a red [car]"),
        ("a (red (blue:1.2) car:1.1)", "a red blue car"),
    ):
        assert suggest(model.words(source), model.words(target)) == "replace"
    made = pw.edit("a red car", "a (red:1.6) car", model=model, **FAST)
    assert (made.sample.latents[0] != made.sample.latents[1]).any()
    assert {pair["kind"] for pair in made.report["alignment"][0]} == {"kept"}
    for source, target in (("a (red) car", "a (red:1.1) car"), (r"a \(red\) car", r"a \(red\) car")):
        with pytest.raises(NoEffect, match="has the source's words"):
            pw.edit(source, target, model=model, **FAST)
    with pytest.raises(NoEffect, match="has the source's words"):
        pw.edit("a red car", "a RED car", model=model, **FAST)
    made = pw.edit("a (red:1.6) car", "a (red:1.6) dog", model=model, blend="dog", weights={"red": 2}, **FAST)
    assert made.report["alignment"][0][1]["kind"] == "kept"


def test_brackets_are_plain_without_prompt_weights(tokenizer):
    pipeline = fresh(tokenizer)
    model = pw.load(pipeline)
    for prompt in ("a (red:1.6) car", "a [cat:dog:0.5] AND a [cat|dog] BREAK <lora:x:1>", r"a \(red\) car"):
        assert model.words(prompt).prompt == prompt
        theirs = pipeline.encode_prompt(prompt, "cpu", 1, False)[0]
        assert torch.equal(model.encode([prompt], [""]).cond, theirs)


def test_break_begins_a_chunk(tokenizer):
    pipeline = fresh(tokenizer)
    plain, model = pw.load(pipeline), pw.load(pipeline, chunks=3, prompt_weights=True)
    words = model.words("a black cat BREAK a (red:1.5) car on a beach")
    assert words.prompt == "a black cat a red car on a beach"
    text = model.encode(["a black cat BREAK a red car on a beach"], [""]).cond[0]
    for chunk, own in enumerate(("a black cat", "a red car on a beach", "")):
        torch.testing.assert_close(text[chunk * 77 : (chunk + 1) * 77], plain.encode([own], [""]).cond[0])
    assert words.find("car")[0] > 77 > words.find("cat")[0] and words.needed == 2
    assert sorted({*words.places, *words.frame, *words.pads}) == list(range(3 * 77))
    spelt = pipeline.tokenizer.convert_ids_to_tokens([words.ids[at] for at in words.find("red car")])
    assert "".join(spelt) == "red</w>car</w>"
    assert suggest(model.words("a cat a car"), model.words("a cat BREAK a car")) == "replace"
    other = model.words("a black dog BREAK a red car on a beach")
    mapper, kept = refine_map(words, other)
    assert [mapper[at] for at in other.find("red car")] == list(words.find("red car"))
    pw.edit(
        "a black cat BREAK a red car", "a black dog BREAK a (red:1.4) car", model=model, blend="dog", **FAST
    )  # fmt: skip
    single = pw.load(pipeline, prompt_weights=True)
    with pytest.raises(ValueError, match=r"would not see 'a'.*in 2 chunks .*--chunks 2"):
        pw.generate("a cat BREAK a dog", model=single, **FAST)
    cut = pw.generate("a cat BREAK a dog", model=single, truncate=True, **FAST)
    assert (cut.sample.pictures == pw.generate("a cat", model=single, **FAST).sample.pictures).all()


def test_texts_made_of_a_prompt_keep_its_weights(tokenizer):
    """Phrases of compose and mixed prompts read as in the prompt: brackets are neither lost nor read twice."""
    model = pw.load(fresh(tokenizer), prompt_weights=True)
    words = model.words(r"a (red:1.5) car and \(blue\) [bike] BREAK snow".replace(" BREAK", ""))
    for start, end in ((0, 9), (2, 26), (14, 26), (0, len(words.prompt))):
        again = model.words(part(words, start, end))
        assert again.prompt == words.prompt[start:end]
        assert again.strengths == pytest.approx(words.strengths[start:end])
    made = pw.generate(
        "a (red:1.5) car and a blue bike", model=model, controls=[pw.StructuredDiffusion(("a red car",))], **FAST
    )
    assert made.report["controls"][0]["phrases"]["0"] == ["a (red:1.5) car"]
    weaker = pw.generate("a red car and a blue bike", model=model, controls=[pw.StructuredDiffusion(("a red car",))],
                         **FAST)  # fmt: skip
    assert (made.sample.latents != weaker.sample.latents).any()
    prompt = "a (red:1.5) car on a beach"
    mixed = pw.edit(prompt, prompt, model=model, controls=[pw.PromptMixing("red", "blue", window=1.0)], **FAST)
    assert mixed.report["distance"][0][0]["mse"] > 0


def test_words_that_the_parser_splits_or_repeats():
    assert nouns("a girl in a t-shirt and a dog") == ("girl", "t-shirt", "dog")
    assert nouns("my mother-in-law and a cat") == ("mother-in-law", "cat")
    assert nouns("don't wake the dog's owner") == ("dog's", "owner")
    assert nouns("A Cat and a cat") == ("Cat#1", "cat#2")


@pytest.mark.parametrize("prompt", ["a girl in a t-shirt and a dog", "A Cat and a cat", "my mother-in-law, a red car"])
def test_nobody_named_a_word(tokenizer, prompt):
    model = pw.load(fresh(tokenizer))
    words = model.words(prompt)
    for name in nouns(words.prompt):
        assert words.find(name)
    once = pw.AttendAndExcite(nouns(words.prompt), thresholds=())
    made = pw.generate(prompt, model=model, controls=[once], **FAST)
    assert tuple(made.report["controls"][0]["losses"]["0"]) == once.words
    names = [name for name, _ in pw.word_maps(prompt, model=model, **FAST).words]
    assert len({name.lower() for name in names}) == len(names)


def test_models_without_chunks_say_so(tokenizer):
    with pytest.raises(ModelError, match="CLIP encoders"):
        pw.load(build_flux(deepcopy(tokenizer)), prompt_weights=True)
