"""No text is cut in silence: whatever a model reads is checked, wherever it comes in."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from families import BUILDERS, build_flux, build_ldm, build_sd3

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.apps.web.session import Session
from promptweave.apps.web.studio import Studio
from promptweave.editing.jobs import BadJobs, read_jobs
from promptweave.inversion.ddim import invert
from promptweave.words.lengths import PromptTooLong

LONG = "bad, " * 45 + "dog"
CAT = "a photo of a cat"
FAST = {"steps": 2, "guidance": 2.0}
CONTROLS = {
    "concept": pw.SemanticGuidance({LONG: 5.0}),
    "thing": pw.Pix2PixZero("cat", LONG),
    "sentences": pw.Pix2PixZero((CAT,), (CAT, LONG)),
    "proxy": pw.PromptMixing("cat", LONG, window=1.0),
}
WAYS = {
    "generate": lambda model: pw.generate(LONG, model=model, **FAST),
    "generate, negative": lambda model: pw.generate(CAT, negative=LONG, model=model, **FAST),
    "edit, source": lambda model: pw.edit(LONG, CAT, model=model, **FAST),
    "edit, target": lambda model: pw.edit(CAT, "a photo of a dog", LONG, model=model, **FAST),
    "edit, negative": lambda model: pw.edit(CAT, "a photo of a dog", negative=LONG, model=model, **FAST),
    "record": lambda model: pw.record(LONG, model=model, **FAST),
    "record, negative": lambda model: pw.record(CAT, negative=LONG, model=model, **FAST),
    "sweep": lambda model: pw.sweep(CAT, LONG, rows=("seed", (1,)), columns=("cross", (0.5,)), model=model, **FAST),
    "word_maps": lambda model: pw.word_maps(LONG, model=model, **FAST),
    "word_maps, negative": lambda model: pw.word_maps(CAT, negative=LONG, model=model, **FAST),
    "look": lambda model: pw.look(LONG, model=model, **FAST),
    "sample": lambda model: pw.sample(model, [CAT, LONG], noise=pw.noise_for(model, 0), steps=2),
    "sample, negative": lambda model: pw.sample(model, [CAT], negative=LONG, noise=pw.noise_for(model, 0), steps=2),
    "invert": lambda model: invert(model, pw.noise_for(model, 0), LONG, steps=2),
    "encode": lambda model: model.encode([CAT], [LONG]),
    **{
        f"control, {name}": lambda model, control=control: pw.edit(CAT, CAT, controls=[control], model=model, **FAST)
        for name, control in CONTROLS.items()
    },
    "page": lambda model: Session(Studio([model])).generate(LONG, 0, 2),
    "page, negative": lambda model: Session(Studio([model])).generate(CAT, 0, 2, more=pw.Settings(negative=LONG)),
    "page, given picture": lambda model: Session(Studio([model])).bring(picture(model), LONG, 0, 2),
}


def picture(model):
    from PIL import Image

    return Image.fromarray(np.zeros((*model.default_size, 3), np.uint8))


@pytest.mark.parametrize("way", WAYS)
def test_a_text_that_is_too_long_is_an_error(tiny, way):
    with pytest.raises(PromptTooLong, match=r"longer than the 77 .* 'bad' .*in \d chunks .*--chunks \d.*--truncate"):
        WAYS[way](tiny)


def test_truncation_is_allowed_on_request(tiny):
    more = {"model": tiny, "truncate": True, **FAST}
    both = [pw.generate(CAT, negative=LONG.replace("dog", last), **more) for last in ("dog", "lion")]
    assert (both[0].sample.pictures == both[1].sample.pictures).all()
    for control in CONTROLS.values():
        pw.edit(CAT, CAT, controls=[control], **more)
    assert pw.word_maps(LONG, **more).words and pw.look(LONG, **more).words.words
    pw.edit(pw.record(CAT, negative=LONG, **more), "a photo of a dog", model=tiny)


def test_chunks_read_all_of_it(tokenizer):
    model = pw.load(BUILDERS["Stable Diffusion 1.x"](tokenizer), chunks=3)
    both = [pw.generate(CAT, negative=LONG.replace("dog", last), model=model, **FAST) for last in ("dog", "lion")]
    assert (both[0].sample.latents != both[1].sample.latents).any()
    with pytest.raises(PromptTooLong, match=r"231 tokens.*in [5-9] chunks"):
        pw.generate(CAT, negative=" ".join([LONG] * 3), model=model, **FAST)


@pytest.mark.parametrize("build", [build_sd3, build_ldm, build_flux], ids=["SD3", "LDM", "FLUX"])
def test_families_without_chunks(tokenizer, build):
    model = pw.load(build() if build is build_ldm else build(tokenizer))
    text = "bad, " * 400
    with pytest.raises(PromptTooLong, match=r"Shorten it, or allow truncation") as caught:
        pw.generate(text, model=model, **FAST)
    assert "chunks" not in str(caught.value)
    if model.guided:
        with pytest.raises(PromptTooLong, match="The negative prompt"):
            pw.generate(CAT, negative=text, model=model, **FAST)


def test_the_command_line_and_job_files(tiny_folder, tmp_path, capsys):
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--model", str(tiny_folder), "--steps", "2", "-o", str(tmp_path / "out")])
        assert end.value.code == 2
        return capsys.readouterr().err

    bank = tmp_path / "bank.txt"
    bank.write_text(f"{CAT}\n{LONG}\n")
    for arguments in (
        ("generate", CAT, "--negative", LONG), ("maps", LONG), ("attend", LONG, "--word", "dog"),
        ("compose", CAT, "--phrase", "cat", "--negative", LONG), ("sega", CAT, "--concept", LONG),
        ("place", CAT, "--region", "cat=0,0,0.5,0.5", "--negative", LONG),
        ("mix", CAT, "--word", "cat", "--proxy", LONG, "--window", "1"),
        ("translate", CAT, "--source", "cat", "--target", LONG),
        ("translate", CAT, "--source", "cat", "--target", "dog", "--target-sentences", str(bank)),
        ("translate", CAT, "--source", "cat", "--target", LONG, "--save-direction", str(tmp_path / "way.npz")),
    ):  # fmt: skip
        assert re.search("PromptTooLong: .*longer than the 77 tokens", refused(*arguments)), arguments
    assert not (tmp_path / "out").exists() and not (tmp_path / "way.npz").exists()
    lines = [{"source": CAT, "targets": LONG}, {"source": CAT, "targets": "a photo of a dog", "negative": LONG}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(BadJobs, match=r"2 of 2 jobs(.|\n)*line 1: Prompt 2 is(.|\n)*line 2: The negative prompt is"):
        read_jobs(tmp_path / "jobs.jsonl", pw.load(tiny_folder))
