"""Words in scripts without spaces, emoji and invisible characters, with tokenizers of three kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from families import bert_tokenizer, t5_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.testing import assert_close
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

import promptweave as pw
from promptweave.maps.word_maps import words_of
from promptweave.models.unet import UNetModel
from promptweave.words import AmbiguousWord, WordNotFound, Words, alignment, counterparts, refine_map, suggest
from promptweave.words.align import replace_map
from promptweave.words.units import split

Read = Callable[[str], Words]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("一只猫坐着，看“狗”。", "一|只|猫|坐|着|，|看|“|狗|”。"),
        ("猫がカメラを持つ", "猫|が|カメラ|を|持|つ"),
        ("ﾃﾞｼﾞｶﾒ 3匹の猫とt-shirt", "ﾃﾞｼﾞｶﾒ|3|匹|の|猫|と|t-shirt"),
        ("น้ำกับแมว", "น้ำ|กั|บ|แ|ม|ว"),
        ("ແມວ ກັບ", "ແ|ມ|ວ|ກັ|ບ"),
        ("ឆ្មា\u200bអង្គុយ", "ឆ្មា|អ|ង្គុ|យ"),
        ("ကြောင်", "ကြော|င်"),
        ("두 고양이가", "두|고양이가"),
        ("हिन्दी में बिल्ली", "हिन्दी|में|बिल्ली"),
        ("می\u200cخواهم گربه", "می\u200cخواهم|گربه"),
        ("a cat🐱🐶 👩\u200d🚀🇩🇪🇫🇷 👍🏽❤\ufe0f", "a|cat|🐱|🐶|👩\u200d🚀|🇩🇪|🇫🇷|👍🏽|❤\ufe0f"),
        ("«chat» „Hund“ ‘x’ “don’t”", "«|chat|»|„|Hund|“|‘|x|’|“|don’t|”"),
        ("a\u00a0red\u3000cat！", "a|red|cat|！"),
    ],
)
def test_units_of_every_script(prompt: str, expected: str) -> None:
    assert "|".join(prompt[a:b] for a, b in split(prompt)) == expected


@pytest.mark.parametrize(
    ("prompt", "selector", "characters"),
    [
        ("一只猫坐在草地上", "草地", (5, 7)),
        ("猫がカメラを持つ", "カメ", (2, 4)),
        ("แมวนั่งบนเก้าอี้", "แมว", (0, 3)),
        ("ကြောင်ထိုင်", "ကြောင်", (0, 6)),
        ("두 고양이가 앉아", "고양이", (2, 5)),
        ("a big cat🐱", "🐱", (9, 10)),
        ("“cat”", "cat", (1, 4)),
        ("two ＣＡＴＳ", "cats", (4, 8)),
        ("\ufeffcat", "cat", (0, 4)),
    ],
)
def test_a_part_of_the_text_has_its_own_tokens(
    read: Read, clip_tokenizer: CLIPTokenizer, prompt: str, selector: str, characters: tuple[int, int]
) -> None:
    """Every token whose characters lie in the part, and no other."""
    offsets = clip_tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    start, end = characters
    inside = tuple(place for place, (a, b) in enumerate(offsets) if start <= a and b <= end and b > a)
    assert read(prompt).find(selector) == inside != ()


def test_parts_are_numbered_and_never_part_of_a_spaced_word(read: Read) -> None:
    words = read("猫和猫")
    with pytest.raises(AmbiguousWord, match='"猫#1" or "猫#2"'):
        words.find("猫")
    assert words.find("猫#2") == words.words[2].tokens
    with pytest.raises(WordNotFound):
        read("a category").find("cat")
    with pytest.raises(WordNotFound, match="not a word"):
        read("一只猫").find("狗")


@pytest.mark.parametrize(
    ("source", "target", "kind", "changed"),
    [
        ("一只猫坐在草地上", "一只狗坐在草地上", "replace", [("猫", "狗")]),
        ("男孩骑自行车", "男孩骑摩托车", "replace", [("自", "摩"), ("行", "托")]),
        ("一只猫坐着", "一只黑色的猫坐着", "refine", [(None, "黑"), (None, "色"), (None, "的")]),
        ("猫が座っている", "犬が座っている", "replace", [("猫", "犬")]),
        ("แมวนั่งบนเก้าอี้", "หมานั่งบนเก้าอี้", "replace", [("แมว", "หมา")]),
        ("고양이가 앉아", "강아지가 앉아", "replace", [("고양이가", "강아지가")]),
        ("a 🐱 sits", "a 🐶 sits", "replace", [("🐱", "🐶")]),
    ],
)
def test_a_word_is_swapped_and_the_rest_is_kept(
    read: Read, source: str, target: str, kind: str, changed: list[tuple[str | None, str | None]]
) -> None:
    old, new = read(source), read(target)
    assert suggest(old, new) == kind
    assert [(pair.source, pair.target) for pair in alignment(old, new) if pair.kind != "kept"] == changed
    kept = [token for pair in alignment(old, new) if pair.kind == "kept" for token in pair.target_tokens]
    if kind == "replace":
        matrix = replace_map(old, new)
        assert matrix.sum(1).tolist() == [1.0] * 77
        assert all(matrix[:, token].max() == 1 for token in kept), "what is kept is not averaged"
    assert all(refine_map(old, new)[0][token] >= 0 for token in kept)


def test_a_phrase_of_which_one_word_is_swapped_stands_for_the_whole_phrase(read: Read) -> None:
    old, new = read("男孩骑自行车"), read("男孩骑摩托车")
    assert counterparts("自行车", old, new) == {"source": old.find("自行车"), "target": new.find("摩托车")}


def test_characters_that_a_tokenizer_does_not_know_are_said_to_be_unknown() -> None:
    """One unknown token stands for all of them, so that it is no word's."""
    for tokenizer in (t5_tokenizer(), bert_tokenizer()):
        words = Words("แมวนั่ง a cat", tokenizer)
        with pytest.raises(WordNotFound, match="does not know its characters"):
            words.find("แมว")
        assert words.find("แมวนั่ง") and words.find("cat")


def whole_words(*pieces: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose pieces are longer than a character."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -(len(piece) ** -1.0)) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=20
    )


def test_characters_of_one_token_are_one_word(read: Read) -> None:
    words = Words("小猫坐着", whole_words("小猫", "坐", "着"))
    assert [word.text for word in words.words] == ["小猫", "坐", "着"]
    assert words.find("猫") == words.find("小猫") == (0,)
    both = read("小猫坐着").beside(words)
    assert [word.text for word in both.words] == ["小猫", "坐", "着"]
    assert both.find("坐") == (*read("小猫坐着").find("坐"), 77 + 1)
    assert [word.text for word in words.beside(read("小猫坐着")).words] == ["小猫", "坐", "着"]


def test_a_chinese_edit_is_blended_mapped_and_reweighted(tiny: UNetModel) -> None:
    made = pw.edit(
        "一只猫坐在草地上", "一只狗坐在草地上", model=tiny, steps=2, blend="猫", weights={"草地": 2}, cross={"狗": 0.5},
        maps=True,
    )  # fmt: skip
    assert [type(control) for control in made.recipe.controls] == [pw.Replace, pw.Reweight, pw.LocalBlend]
    maps = words_of(made, 1)
    parts = maps.of("草") + maps.of("地")
    assert_close(maps.of("草地"), parts, atol=1e-6, rtol=0)  # a sum in another order
    with pytest.raises(ValueError, match="'草上' has no map. Choose one of 一, 只, 狗"):
        maps.of("草上")
