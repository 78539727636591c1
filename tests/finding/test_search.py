"""The strength finder: what it tries, what it costs, what it picks, and who judges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.finding.choosing import NoSuchJudge, judge_for, oracle
from promptweave.finding.demands import Demands, said
from promptweave.finding.found import Point, front_of
from promptweave.finding.ladders import CROSS, JOINT, NothingToFind, columns, told
from promptweave.finding.search import EDITS, predicted
from promptweave.finding.verdicts import Look, Verdict
from promptweave.sampling.loop import Job, noise_for, sample
from promptweave.sampling.paused import Paused
from promptweave.words.edit_kinds import change

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
STEPS = 6


@dataclass(eq=False)
class Strict:
    """A judge to whom an edit is made under at most so much control, by what the controls did to the noise: the fewer
    steps an edit shares with the source, the farther it is. `seen`: how many images it was shown."""

    most: float
    name: str = "a strict judge"
    measure: str = "closeness"
    relative: bool = True
    reads_maps: bool = False
    seen: list[int] = field(default_factory=list)

    def judge(self, source: Look, free: Look | None, edits: Sequence[Look]) -> list[Verdict]:
        assert free is not None
        self.seen.append(len(edits))
        far = [np.abs(e.picture.astype(float) - source.picture).mean() for e in (free, *edits)]
        shares = [value / max(far[0], 1e-9) for value in far[1:]]
        return [
            Verdict(float(np.clip(share / 2 / self.most, 0, 1)), -far)
            for share, far in zip(shares, far[1:], strict=True)
        ]


def counted(model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each call of a network."""
    rows: list[int] = []
    real = type(model).predict

    def predict(self, z, *given, **named):
        rows.append(len(z))
        return real(self, z, *given, **named)

    monkeypatch.setattr(type(model), "predict", predict)
    return rows


@pytest.mark.parametrize("judge", ["maps", "strict"])
def test_a_search_costs_at_most_four_plain_edits(tiny, monkeypatch, judge) -> None:
    """Counted in rows that the network gets, and said so."""
    rows = counted(tiny, monkeypatch)
    pw.edit(SOURCE, TARGET, model=tiny, steps=STEPS)
    plain = sum(rows)
    rows.clear()
    found = pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, judge=Strict(0.6) if judge == "strict" else "maps")
    assert sum(rows) == found.rows and plain == found.plain
    assert found.rows <= EDITS * plain and found.cost == found.rows / found.plain
    assert len(found.points) >= 6


def test_the_pick_is_the_edit_with_its_settings(tiny) -> None:
    """The same recipe as an edit with the settings that were found, and the same pixels; it is on the front."""
    found = pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, seed=2, judge=Strict(0.7))
    options = {name: value for name, value in found.settings.items() if value}
    again = pw.edit(SOURCE, TARGET, model=tiny, steps=STEPS, seed=2, **options)
    assert again.recipe == found.result.recipe or not all(found.settings.values())
    assert np.abs(again.sample.pictures.astype(int) - found.result.sample.pictures).max() <= 1
    assert found.pick in found.front and found.pick.said in found.why
    made = [point for point in found.points if point.verdict.enough and point.result is not None]
    assert found.pick.verdict.kept == max(point.verdict.kept for point in made)
    assert found.at(0) is found.front[0] and found.at(1) is found.front[-1]
    with pytest.raises(ValueError, match="0 to 1"):
        found.at(1.5)


def test_what_is_given_is_not_searched(tiny) -> None:
    found = pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, cross=0.5, judge=Strict(0.6), blend="dog", threshold=0.2)
    assert all(set(point.settings) == {"self_attention"} for point in found.points)
    injected, blended = found.result.recipe.controls
    assert injected.cross == 0.5 and blended.words == "dog" and blended.threshold == 0.2
    with pytest.raises(NothingToFind, match="cross, self_attention, blend or threshold"):
        pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, cross=0.5, self_attention=0.2, blend="dog", threshold=0.2)
    with pytest.raises(NothingToFind, match="dds"):
        pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, kind="dds")
    with pytest.raises(ValueError, match="single image"):
        pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, images=2)
    with pytest.raises(ValueError, match="target prompt, or weights"):
        pw.find(SOURCE, model=tiny, steps=STEPS)


def test_a_recording_limits_the_rungs_to_what_it_holds(tiny) -> None:
    recording = pw.record(SOURCE, model=tiny, steps=STEPS, cross=0.6, self_attention=0.3)
    found = pw.find(recording, TARGET, model=tiny, judge=Strict(0.6))
    assert max(point.settings["cross"] for point in found.points) <= 0.6
    with pytest.raises(NothingToFind, match="larger windows"):
        pw.find(pw.record(SOURCE, model=tiny, steps=STEPS, cross=0.0, self_attention=0.0, maps=False), TARGET,
                model=tiny, judge="maps")  # fmt: skip


def test_weights_of_words_and_an_image(tiny) -> None:
    """An edit by weights has no target; a given image is read, inverted and recorded once."""
    found = pw.find(SOURCE, weights={"snow": -2}, model=tiny, steps=STEPS, judge="maps")
    assert found.result.recipe.targets == (SOURCE,) and found.cost <= EDITS
    pixels = np.random.default_rng(0).integers(0, 255, (40, 32, 3), dtype=np.uint8)
    given = pw.find(SOURCE, TARGET, image=pixels, model=tiny, steps=STEPS, judge=Strict(0.6), keep_original=True)
    assert given.result.edited.size == (32, 40) and given.result.recipe.picture is not None


def test_runs_that_are_paused_are_those_that_are_not(tiny) -> None:
    """Advanced part by part, with another beside it that is left, a run has the pixels that it has alone."""
    noise = noise_for(tiny, 5)
    jobs = [Job([SOURCE, TARGET], noise, STEPS, 3.0, [pw.Replace(cross, 0.4)], seed=5) for cross in (0.3, 0.9)]
    paused = Paused(tiny, jobs)
    paused.until(0.5)
    assert paused.steps == [3, 3] and paused.rows == 2 * 3 * 4
    made = paused.finish(1)
    assert paused.steps == [3, 6]
    alone = sample(
        tiny, [SOURCE, TARGET], noise=noise, steps=STEPS, guidance=3.0, controls=[pw.Replace(0.9, 0.4)], seed=5
    )
    assert np.abs(made.pictures.astype(int) - alone.pictures).max() <= 1
    torch.testing.assert_close(made.latents, alone.latents, rtol=1e-4, atol=1e-4)


def test_the_predicted_image_is_exact_on_a_straight_line() -> None:
    """z = s x0 + n e at two noise levels, in double precision."""
    generator = torch.Generator().manual_seed(0)
    x0, e = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    for before, after in (
        ((0.6, 0.8), (0.8, 0.6)),
        ((0.3, 0.7), (0.5, 0.5)),
        ((1.0, 9.0), (1.0, 5.0)),
        ((0.9, 0.1), (1.0, 0.0)),
    ):
        z, later = (s * x0 + n * e for s, n in (before, after))
        torch.testing.assert_close(predicted(z, later, before, after), x0, rtol=1e-12, atol=1e-12)


def test_the_front_has_what_no_other_beats(tiny) -> None:
    result = pw.generate(SOURCE, model=tiny, steps=1)

    def point(kept: float, score: float, done: bool = True) -> Point:
        return Point({}, Verdict(score, kept), 1.0, result if done else None)

    points = [
        point(20, 0.9),
        point(30, 0.2),
        point(25, 0.1),
        point(22, 0.8),
        point(40, 0.9, done=False),
        point(20, 0.95),
    ]
    assert front_of(points) == (points[1], points[3], points[5])


@pytest.mark.parametrize(("kind", "name"), [("flow", "strength"), ("consist", "structure"), ("directedit", "inject")])
def test_the_ladders_of_other_kinds(tiny, kind: str, name: str) -> None:
    words = tiny.words(SOURCE), tiny.words(TARGET)
    (column,) = columns(tiny, {"kind": kind}, change(*words), words[1])
    assert all(set(rung) == {name} for rung in column.rungs) and len(column.rungs) == len(CROSS) == len(JOINT) == 7


def test_background_keeps_the_things_out_of_the_blend(tiny) -> None:
    words = tiny.words("a cat on a beach"), tiny.words("a cat in the snow")
    alone, blended = columns(tiny, {}, change(*words), words[1])
    assert alone.shared == {} and blended.shared == {"blend": ("snow",), "threshold": 0.3, "subtract": ("cat",)}
    assert told(blended.at(2)) == "cross 0.4, self 0.2, blend snow, threshold 0.3, subtract cat"


def test_the_oracle_demands_what_the_words_say() -> None:
    """On drawn images of all kinds of edit, the demands read from the words agree with what the scenes say."""
    from promptweave.world.counterfactuals import KINDS, counterfactuals

    pairs = counterfactuals("tuning", kinds=tuple(KINDS), count=24)
    for pair in pairs:
        demands = Demands.of(pair.source, pair.target, dict(pair.weights))
        assert demands is not None
        before, after = oracle().look(np.stack([pair.drawn, pair.wanted]))
        assert demands.score(after) > 0.5 > demands.score(before), pair
    assert said("a hamburger in a field") == said("a burger on the grass")
    assert said("a cat on a chair") is None and Demands.of("a cat", "a cat") is None
    assert Demands.of("a cat in the snow", "a cat in the snow", {"cat": -1.0}).gone == ("cat",)  # type: ignore[union-attr]


def test_the_judge_is_the_first_that_can(tiny, tokenizer, tmp_path: Path) -> None:
    words = tiny.words("a photo of a cat in the snow"), tiny.words("a photo of a lion in the snow")
    found = change(*words)
    assert judge_for("auto", tiny, words, found, None).name == "the attention maps"  # its images are not the world's
    assert judge_for("oracle", tiny, words, found, None).name == "the world's oracle"
    strange = tiny.words("a photo of a cat in the snow"), tiny.words("a photo of a spoon in the snow")
    with pytest.raises(NoSuchJudge, match="words of its world"):
        judge_for("oracle", tiny, strange, change(*strange), None)
    with pytest.raises(NoSuchJudge, match="nothing is downloaded"):
        judge_for(f"clip:{tmp_path}/none", tiny, words, found, None)
    with pytest.raises(NoSuchJudge, match="auto, oracle, clip"):
        judge_for("me", tiny, words, found, None)
    folder = tmp_path / "clip"
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 3}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 30}
    torch.manual_seed(4)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 24, "patch_size": 8}, projection_dim=16)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kind = getattr(__import__("transformers"), "CLIPImageProcessorPil", CLIPImageProcessor)
    kind(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    made = pw.find(SOURCE, TARGET, model=tiny, steps=STEPS, judge=f"clip:{folder}")
    assert made.judge == "CLIP" and made.points[0].verdict.score == 1.0 and made.cost <= EDITS


def test_the_command_writes_the_front_and_replays(tmp_path: Path, capsys) -> None:
    """`edit --auto`: the picked edit with its recipe, the front's images, plot and data; all of them replay."""
    prompts = ["a photo of a cat on a beach", "a photo of a cat in the snow"]
    run = ["-m", "toybox-fast", "--steps", "5", "--seed", "3", "-o", str(tmp_path / "out"), "--json"]
    with pytest.raises(SystemExit) as end:
        main(["edit", *prompts, "--auto", *run])
    assert end.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    data = json.loads((tmp_path / "out" / "front.json").read_text())
    assert shown["found"] == data and data["judge"] == "the world's oracle" and data["rows"] <= EDITS * data["plain"]
    (picked,) = [point for point in data["points"] if point["picked"]]
    with Image.open(tmp_path / "out" / "front.webp") as plot:
        assert picked["enough"] and plot.width > 600
    front = [point for point in data["points"] if point["file"]]
    assert all((tmp_path / "out" / point["file"]).is_file() for point in front)
    assert pw.replay(tmp_path / "out" / "edit.png").matches and pw.replay(tmp_path / "out" / picked["file"]).matches
    assert shown["report"]["strengths"][0]["kind"] == "background"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auto", "--compare"], "without --compare"),
        (["--judge", "maps"], "--auto, which is not given"),
        (["a lion", "--auto"], "one target"),
        (["--auto", "--judge", "me"], "A judge is"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, arguments, message, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["edit", "a cat", "a dog", *arguments, "-m", "toybox-fast", "-o", str(tmp_path)])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
