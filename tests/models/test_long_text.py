"""Prompts beyond the encoder's length and prompt weights: the spans stay with the words."""

from __future__ import annotations

import pytest
import torch
from families import build_sd3, build_sdxl
from hypothesis import given
from hypothesis import strategies as st
from tiny import build_tiny

from promptweave import Refine, Replace, Reweight, edit, load, noise_for, sample
from promptweave.models.load import ModelError
from promptweave.words import refine_map, replace_map
from promptweave.words.emphasis import PromptSyntax, parse, written

FILLER = " ".join(["a black cat next to a red car on a beach at night"] * 7)
LONG = f"{FILLER}, a lion wearing a crown"
SIZE = 77


@pytest.fixture(params=["sd", "sdxl"])
def pipeline(request, tokenizer):
    return build_tiny(tokenizer) if request.param == "sd" else build_sdxl(tokenizer)


def test_a_short_prompt_reads_as_ever_in_its_first_chunk(pipeline):
    plain, chunked = load(pipeline), load(pipeline, chunks=2)
    a, b = (model.encode(["a lion wearing a crown"], ["snow"]) for model in (plain, chunked))
    for one, two in ((a.keys, b.keys), (a.uncond, b.uncond)):
        assert two.shape[1] == 2 * SIZE
        torch.testing.assert_close(two[:, :SIZE], one)
    if a.pooled is not None:
        torch.testing.assert_close(a.pooled, b.pooled)


def test_words_of_the_second_chunk_have_their_columns(pipeline):
    model = load(pipeline, chunks=3)
    words = model.words(LONG)
    assert words.limit == 3 * SIZE and not words.truncated
    tokens = words.find("lion")
    assert min(tokens) > SIZE
    tokenizer = pipeline.tokenizer
    assert tokenizer.decode([words.ids[token] for token in tokens]).strip() == "lion"
    for word in ("crown", "beach#3", "night#7"):
        found = tokenizer.decode([words.ids[token] for token in words.find(word)]).strip()
        assert found == word.partition("#")[0]
    assert sorted({*words.places, *words.frame, *words.pads}) == list(range(3 * SIZE))


def test_maps_between_long_prompts_move_every_column_once(pipeline):
    model = load(pipeline, chunks=3)
    source, swap = model.words(LONG), model.words(LONG.replace("lion", "dog"))
    matrix = replace_map(source, swap)
    torch.testing.assert_close(matrix.sum(1), torch.ones(3 * SIZE, dtype=torch.float64))
    if len(source.find("lion")) == len(swap.find("dog")):
        assert torch.equal(matrix, torch.eye(3 * SIZE, dtype=torch.float64))
    longer = model.words("dog " + LONG)
    mapper, kept = refine_map(source, longer)
    for word in ("lion", "crown", "beach#5"):
        assert [mapper[token] for token in longer.find(word)] == list(source.find(word))
    assert not any(kept[token] for token in longer.find("dog"))
    assert all(mapper[edge] == edge for edge in longer.frame)


def test_edits_of_long_prompts(pipeline):
    model = load(pipeline, chunks=2)
    target = LONG.replace("crown", "hat")
    settings = {"noise": noise_for(model, 0), "steps": 3, "guidance": 3.0}
    alone = sample(model, [LONG], **settings).latents
    for control in (Replace(), Refine(), Reweight({"lion": 3.0}, targets=(2,))):
        made = sample(model, [LONG, LONG, target], controls=[control], **settings).latents
        torch.testing.assert_close(made[0], alone[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(made[1], made[0], rtol=1e-3, atol=1e-3)
        assert (made[2] - made[0]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="longer than the 77 tokens"):
        edit(LONG, target, model=load(pipeline), steps=2)
    result = edit(LONG, target, model=model, steps=2, blend="lion", guidance=2.0)
    assert result.report["alignment"][0][-1]["target"] == "hat"


def test_prompt_weights_scale_the_words_and_no_others(pipeline):
    plain, weighted = load(pipeline), load(pipeline, prompt_weights=True)
    text = "a lion wearing a crown"
    assert weighted.words("a (lion:1.5) wearing a [crown]").find("crown") == plain.words(text).find("crown")
    a = plain.encode([text], [""]).keys
    torch.testing.assert_close(weighted.encode([text], [""]).keys, a)
    b = weighted.encode(["a (lion:1.5) wearing a crown"], [""]).keys
    lion = plain.words(text).find("lion")
    ratio = (b / a)[0].median(-1).values
    others = [token for token in range(SIZE) if token not in lion]
    torch.testing.assert_close(ratio[others], ratio[others[0]].expand(len(others)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ratio[list(lion)] / ratio[0], torch.full((len(lion),), 1.5), rtol=1e-3, atol=1e-3)


def test_who_can_read_so(tokenizer):
    with pytest.raises(ModelError, match="StableDiffusion3Pipeline, which reads 333"):
        load(build_sd3(tokenizer, places=256), chunks=2)
    with pytest.raises(ValueError, match="chunks must be"):
        load(build_tiny(tokenizer), chunks=0)


@pytest.mark.parametrize(
    ("prompt", "text", "strengths"),
    [
        ("a (b)", "a b", {"a": 1, "b": 1.1}),
        ("((a:2) b)", "a b", {"a": 2.2, "b": 1.1}),
        ("[[a]] b", "a b", {"a": 1 / 1.21, "b": 1}),
        ("(a b:1.3)c", "a bc", {"a": 1.3, "b": 1.3, "c": 1}),
        (r"\(a\) b", "(a) b", {"a": 1, "b": 1}),
        ("a (b", "a (b", {"a": 1, "b": 1}),
        ("a) b: 3", "a) b: 3", {"a": 1, "3": 1}),
        ("(a:-0.5)", "a", {"a": -0.5}),
    ],
)
def test_brackets(prompt, text, strengths):
    read = parse(prompt)
    assert read.text == text and len(read.strengths) == len(text)
    for letter, strength in strengths.items():
        assert read.strengths[text.index(letter)] == pytest.approx(strength)


TEXTS = st.text() | st.lists(
    st.sampled_from(
        ["(", ")", "[", "]", "\\\\", ":", "|", ":1.2", " ", "red", "BREAK", "car", "AND", "0.5", "<lora:x:1>"]
    )
).map("".join)


def parsed(prompt):
    """What is read, or None if the prompt is refused by name."""
    try:
        return parse(prompt)
    except PromptSyntax as error:
        assert "Received" in str(error)
        return None


@given(TEXTS)
def test_any_text_keeps_a_strength_and_a_place_for_each_character(prompt):
    read = parsed(prompt)
    if read is not None:
        assert len(read.text) == len(read.strengths) == len(read.origins) and len(read.text) <= len(prompt)
        spaces = [place for place, origin in enumerate(read.origins) if read.text[place] != prompt[origin]]
        assert all(read.text[place] == " " for place in spaces) and len(spaces) <= len(read.breaks)
        again = parse(written(read.text, read.strengths))
        assert again.text == read.text and again.strengths == pytest.approx(read.strengths)


@given(st.text(alphabet=st.characters(blacklist_characters="()[]\\<ABKR")))
def test_text_without_syntax_is_unchanged(prompt):
    assert parse(prompt).text == prompt and set(parse(prompt).strengths) <= {1.0}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a ([cat:dog:.5]:1.3)", r"\[cat:dog:.5\] changes from step to step"),
        ("a [red:3] car", r"\[red:3\] changes from step to step"),
        ("a [[cat]|dog|] car", r"\|dog\|\] changes from step to step"),
        ("a cat AND a dog", "AND joins .* sega .* write and"),
        ("a cat AND a dog :1.2", "AND joins"),
        ("a cat <lora:detail:0.8>", "<lora:detail:0.8> names a file of weights.*load_lora_weights"),
        ("a cat <hypernet:x>", "<hypernet:x> names a file"),
        ("(cat:1e)(dog:999)", "from -100 to 100 .*Received 999"),
        ("(" * 60 + "cat" + ")" * 60, "or fewer brackets"),
        (f"(cat:{'9' * 400})", "Received inf"),
    ],
)
def test_syntax_that_has_no_meaning_is_refused_by_name(prompt, message):
    with pytest.raises(PromptSyntax, match=message):
        parse(prompt)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a [cat:dog] at 16:9", "a cat:dog at 16:9"),
        (r"a [cat\:dog\:0.5]", "a cat:dog:0.5"),
        (r"[a\|b] | c", "a|b | c"),
        ("(a|b) and a STAND, BREAKFAST, rock and roll", "a|b and a STAND, BREAKFAST, rock and roll"),
        ("a [cat:dog:0.5", "a [cat:dog:0.5"),
        ("<toy> <3 a<b", "<toy> <3 a<b"),
        ("a BREAK b", "a b"),
        ("BREAK a\nBREAK\nBREAK b BREAK", "a  b"),
    ],
)
def test_what_only_looks_like_syntax(prompt, text):
    assert parse(prompt).text == text


def test_a_recipe_says_how_prompts_are_read(tmp_path, tiny_folder, capsys):
    from promptweave import replay
    from promptweave.apps.cli import main

    options = ["--model", str(tiny_folder), "--chunks", "2", "--prompt-weights", "--steps", "2", "-q"]
    with pytest.raises(SystemExit) as end:
        main(["edit", f"{LONG} (at night:1.5)", LONG, *options, "-o", str(tmp_path)])
    assert end.value.code == 0, capsys.readouterr().err
    again = replay(tmp_path / "edit.png")
    assert again.matches and (again.result.recipe.chunks, again.result.recipe.prompt_weights) == (2, True)
