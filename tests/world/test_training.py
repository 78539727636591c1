"""Every stage of the training for a moment: it goes on from its checkpoints, logs, and ends in a model that loads."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from families import build_flux, build_sd3, build_sdxl
from tiny import build_tiny

import promptweave as pw
from promptweave.benchmarks import bench_edits, judging, score
from promptweave.world import train
from promptweave.world.muon import Muon, orthogonalise
from promptweave.world.oracle import Oracle
from promptweave.world.scene import Scene, Thing, has_held_out_pair
from promptweave.world.train_diffusion import Diffusion, batches, emphasis, encode_scenes, scenes_of
from promptweave.world.train_oracle import NAMES, oracle_accuracy, train_oracle
from promptweave.world.train_vae import reconstruction_loss, vae_psnr
from promptweave.world.training import Clock, Training, ahead, checkpoint, rate_at

TICK = 0.1  # seconds from one look at the clock to the next (see conftest.py)
SMALL = Training(scenes=6, coloured_scenes=2, batch=2, vae_batch=2, grid_steps=1)
MOMENT = 0.02  # minutes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toybox")
    train.train(folder, SMALL, {"vae": MOMENT, "diffusion": MOMENT, "decoder": MOMENT}, "cpu")
    return folder


def test_stages_end_in_a_model_that_loads(trained):
    model = pw.load(trained / "pipeline", device="cpu")
    assert model.default_size == (128, 128) and model.schedule().prediction == "v_prediction"
    made = pw.generate("a photo of a cat", model=model, steps=2)
    assert made.source.size == (128, 128)
    assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {
        p.name for p in (trained / "pipeline/tokenizer").iterdir()
    }
    size = sum(path.stat().st_size for path in (trained / "pipeline").rglob("*") if path.is_file())
    assert size <= 48e6, "the embedded model must stay small enough to ship"
    assert list((trained / "grids").glob("*.webp")), "sample grids show how far the training has come"


def test_stages_log_and_go_on_from_their_checkpoints(trained):
    def samples() -> int:
        return torch.load(trained / "diffusion.pt")["samples"]

    before, weights = samples(), torch.load(trained / "diffusion.pt")["model"]
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert {"vae", "diffusion", "decoder"} <= {line["stage"] for line in lines}
    train.train(trained, SMALL, {"diffusion": MOMENT / 2}, "cpu")
    assert samples() == before, "the minutes are those of all runs together"
    seen = []
    train.train(trained, SMALL, {"diffusion": 2.5 * torch.load(trained / "diffusion.pt")["spent"]}, "cpu", seen.append)
    assert samples() > before and seen[0]["samples"] == before + SMALL.batch
    again = torch.load(trained / "diffusion.pt")["model"]
    drift = max(float((again[k].float() - weights[k].float()).abs().max()) for k in weights)
    assert 0 < drift < 0.05, "it goes on from the weights, not from the start"


def test_a_new_folder_may_begin_with_the_weights_of_a_model(trained, tmp_path):
    folder = tmp_path / "further"
    train.begin_with(folder, str(trained / "pipeline"))
    shipped, laid = pw.load(trained / "pipeline", device="cpu"), torch.load(folder / "diffusion.pt")
    for name, weight in shipped.pipeline.unet.state_dict().items():
        assert torch.equal(laid["average"][f"unet.{name}"], weight.float())
    train.train(folder, dataclasses.replace(SMALL, bf16=True), {"diffusion": MOMENT}, "cpu")
    model = pw.load(folder / "pipeline", device="cpu")
    assert pw.generate("a cat", model=model, steps=2).source.size == (128, 128)
    kept, new = shipped.pipeline.unet.conv_in.weight, model.pipeline.unet.conv_in.weight
    assert 0 < float((kept - new).detach().abs().max()) < 0.05, "it goes on from the weights"
    assert torch.equal(shipped.pipeline.vae.quant_conv.weight, model.pipeline.vae.quant_conv.weight)
    with pytest.raises(FileExistsError, match="leave out --begin-with"):
        train.begin_with(folder, "toybox")


@pytest.mark.parametrize("build", [build_tiny, build_sdxl, build_sd3, build_flux])
def test_training_goes_on_only_from_networks_of_its_shapes(tmp_path, tokenizer, build):
    folder, model = tmp_path / "other", tmp_path / "model"
    build(tokenizer).save_pretrained(model)
    with pytest.raises(ValueError, match="Received .*which does not fit.*Train without --begin-with"):
        train.begin_with(folder, str(model))
    assert not any(folder.iterdir()), "nothing half begun is left"


def test_codes_have_unit_variance(trained):
    codes = encode_scenes(trained, SMALL, "cpu").float()
    assert codes.shape == (8, 8, 16, 16) and 0.5 < float(codes.std()) < 2
    more = encode_scenes(trained, dataclasses.replace(SMALL, coloured_scenes=5), "cpu").float()
    assert torch.equal(more[:8], codes) and len(more) == 11, "scenes that are added are encoded"
    assert torch.equal(encode_scenes(trained, SMALL, "cpu").float(), codes)
    fewer = encode_scenes(trained, dataclasses.replace(SMALL, scenes=3), "cpu").float()
    assert torch.equal(fewer, torch.cat([codes[:3], codes[6:]])), "the codes stay those of their scenes"
    other = encode_scenes(trained, dataclasses.replace(SMALL, seed=1), "cpu").float()
    assert other.shape == codes.shape and not torch.equal(other, codes)
    assert np.isfinite(vae_psnr_of(trained))


def vae_psnr_of(folder: Path) -> float:
    return vae_psnr(pw.load(folder / "pipeline", device="cpu").vae, scenes=4)


def test_install_copies_pipeline_and_oracle(trained, tmp_path, monkeypatch):
    (tmp_path / "world").mkdir()
    monkeypatch.setattr(train, "embedded_folder", lambda *_: tmp_path / "models" / "toybox")
    Oracle.create(NAMES).save(trained / "oracle.safetensors")
    judge = tmp_path / "world" / "oracle.safetensors"
    assert train.install(trained, ("oracle",)) == [judge] and judge.is_file()
    judge.unlink()
    target, with_it = train.install(trained, ("diffusion",))
    assert pw.load(target, device="cpu").fingerprint() == pw.load(trained / "pipeline", device="cpu").fingerprint()
    assert with_it == judge and judge.is_file()
    for stages, missing in (((), "pipeline"), (("oracle",), "oracle.safetensors")):
        with pytest.raises(FileNotFoundError, match=f"{missing} does not exist yet. Train first"):
            train.install(tmp_path / "nothing", stages or train.STAGES)


def test_the_loss_is_that_of_v(trained):
    """A network that answers v exactly has no loss; times lean to the noisy end."""
    model = Diffusion(trained)
    z = torch.randn(64, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    seen = []

    class Perfect(torch.nn.Module):
        def forward(self, x, t, context):
            a = model.alpha_bar[t].view(-1, 1, 1, 1)
            noise = (x - a.sqrt() * z) / (1 - a).sqrt()
            seen.extend(t.tolist())
            return type("Out", (), {"sample": a.sqrt() * noise - (1 - a).sqrt() * z})

    model.unet = Perfect()
    assert model.loss(z, ["a cat"] * 64, torch.Generator().manual_seed(0)).item() < 1e-6
    assert 500 < np.mean(seen) < 700 and min(seen) < 300 and max(seen) > 850


def test_clock_and_rate():
    assert [round(rate_at(p, 0.3), 3) for p in (0, 0.5, 0.7, 0.85, 1.0, 1.2)] == [1, 1, 1, 0.5, 0, 0]
    clock = Clock(10, spent=4.0)
    ticks = 2, 3  # one at the start, one each time it is read
    assert clock.used == pytest.approx(4.0 + (ticks[0] - 1) * TICK / 60)
    assert clock.progress == pytest.approx((4.0 + (ticks[1] - 1) * TICK / 60) / 10)


def test_muon_orthogonalises_and_learns():
    for shape in ((6, 11), (11, 6)):
        x = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        singular = torch.linalg.svdvals(x)
        assert 0.5 < float(singular.min()) and float(singular.max()) < 1.4
    layer, x = torch.nn.Linear(4, 4, bias=False), torch.eye(4)
    optimiser = Muon([layer.weight], lr=0.05)
    first = (layer(x) - 2 * x).square().mean().item()
    for _ in range(60):
        loss = (layer(x) - 2 * x).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < 0.1 * first


def test_reconstruction_loss_sees_edges():
    flat, edge = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    assert float(reconstruction_loss(flat, flat)) == 0
    smooth = edge.mean().expand_as(edge)
    assert float(reconstruction_loss(smooth, edge)) > float((smooth - edge).abs().mean())


def test_an_oracle_learns_saves_and_judges(tmp_path, monkeypatch):
    told = []
    oracle = train_oracle(tmp_path / "oracle.safetensors", steps=2, watch=told.append)
    assert told[-1]["share"] == 1.0 and {"things", "background"} <= set(told[-1])
    again = Oracle.load(tmp_path / "oracle.safetensors")
    picture = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), dtype=np.uint8)
    for one, other in zip(oracle.look(picture), again.look(picture), strict=True):
        assert one.background == other.background
        assert max(abs(one.things[n] - other.things[n]) for n in NAMES["nouns"]) < 0.02
        assert set(one.regions) == set(NAMES["nouns"]) and one.regions["cat"].shape == (128, 128)
    monkeypatch.setattr(judging, "oracle_path", lambda: tmp_path / "none")
    judging.oracle.cache_clear()
    with pytest.raises(FileNotFoundError, match="--stage oracle"):
        judging.oracle()
    judging.oracle.cache_clear()


@pytest.fixture()
def judge(monkeypatch):
    """The shipped oracle."""
    judging.oracle.cache_clear()
    return judging.oracle()


def test_the_shipped_oracle_can_be_trusted(judge):
    """On rendered scenes that it never saw. Measured on 512: see docs/toybox.md."""
    figures = oracle_accuracy(judge, count=128)
    assert figures["background"] > 0.97 and figures["style"] > 0.95 and figures["things"] > 0.85
    assert figures["colour"] > 0.9


def test_score_of_true_pictures_is_high(judge, monkeypatch):
    """Rendered scenes in place of a model's pictures: the judges must agree with the truth."""
    from promptweave.world.render import render

    scenes = {
        f: [score.draw(f, rng) for _ in range(40)] for f in ("one", "two", "two colours") for rng in [random.Random(f)]
    }
    sights = {f: judge.look(np.stack([render(s)[0] for s in scenes[f]])) for f in scenes}
    for name, (families, right) in score.JUDGES.items():
        pairs = [(s, v) for f in families if f in scenes for s, v in zip(scenes[f], sights[f], strict=True)]
        found = [right(s, v) for s, v in pairs]
        if pairs:
            assert np.mean([v for v in found if v is not None]) > 0.8, name
            wrong = [right(s, v) for (s, _), (_, v) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
            assert np.mean([v for v in wrong if v is not None]) < 0.6, name


def test_score_and_bench_of_a_model(judge, trained, monkeypatch):
    """A figure is the fraction of right pictures among those that its judge has an opinion of."""
    model, asked = pw.load(trained / "pipeline", device="cpu"), dict.fromkeys(score.JUDGES, 0)

    def every_other(name):
        def judged(scene, sight):
            asked[name] += 1
            return (None, True, False)[asked[name] % 3]

        return judged

    judges = {name: (families, every_other(name)) for name, (families, _) in score.JUDGES.items()}
    monkeypatch.setattr(score, "JUDGES", judges)
    figures = score.score(model, count=2, steps=2)
    assert set(judges) < set(figures)
    for name, (families, _) in judges.items():
        assert asked[name] == 2 * len(families)
        opinions = [(None, True, False)[number % 3] for number in range(1, asked[name] + 1)]
        opinions = [right for right in opinions if right is not None]
        assert figures[name] == pytest.approx(sum(opinions) / len(opinions))
    table, rows = bench_edits.bench_edits(model, pairs=2, steps=2)
    assert set(table) == set(bench_edits.KINDS)
    for kind, found in table.items():
        assert {"edit: success", "edit: PSNR", "no control: success", "no control: PSNR"} <= set(found)
        assert len(rows[kind]) == 2
        assert not np.array_equal(rows[kind][0].pictures[1], rows[kind][0].pictures[3])
    assert bench_edits.examples(rows["object swap"]).width > 700
    alone, same = bench_edits.bench_edits(model, pairs=1, steps=2, kinds=("style change",))
    assert set(alone) == {"style change"}
    assert np.array_equal(same["style change"][0].pictures, rows["style change"][0].pictures)
    with pytest.raises(ValueError, match="Received 'haircut'"):
        bench_edits.bench_edits(model, kinds=["haircut"])


def test_scenes_of_two_colours():
    """All that is trained with is scenes that the others may have been, too; the judge sees two colours."""
    scenes = scenes_of(Training(scenes=3, coloured_scenes=40))
    assert scenes[:3] == scenes_of(Training(scenes=3, coloured_scenes=0)) and len(scenes) == 43
    for scene in scenes[3:]:
        first, second = scene.things
        assert scene.relation == "next to" and scene.style != "sketch" and not has_held_out_pair(scene)
        assert first.colour and second.colour and first.colour != second.colour
    assert score.draw("two colours", random.Random(0)).style == "photo"


def test_rare_scenes_come_more_often():
    """Coloured things once more each, single things other than animals once more; nothing is left out."""
    cat, car = Thing("cat", 0.5, 0.9, 0.6), Thing("car", 0.5, 0.9, 0.6)
    red = dataclasses.replace(car, colour="red")
    plain = Scene("snow", "photo", "alone", (cat,))
    scenes = [plain, plain.with_(things=(car,)), plain.with_(things=(red,)), plain.with_(things=(red, cat))]
    assert [emphasis(scene) for scene in scenes] == [1, 2, 3, 2]
    assert emphasis(scenes[3].with_(style="sketch")) == 1
    assert emphasis(plain.with_(things=(red, dataclasses.replace(red, colour="blue")))) == 3
    codes = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 8, 2, 2)
    drawn = batches(codes, scenes, Training(batch=4), 0)
    seen = [int(value) for _ in range(4) for value in next(drawn)[0][:, 0, 0, 0]]
    assert sorted(seen) == sorted([0, 1, 1, 2, 2, 2, 3, 3] * 2)


def test_a_batch_of_more_than_there_is_says_so(trained):
    codes, scenes = encode_scenes(trained, SMALL, "cpu"), scenes_of(SMALL)
    most = sum(map(emphasis, scenes))
    assert len(next(batches(codes, scenes, SMALL, 0, most))[1]) == most
    for size in (most + 1, -1):
        with pytest.raises(ValueError, match=f"a batch of {size} and 8 scenes.*--batch"):
            next(batches(codes, scenes, SMALL, 0, size))


def test_checkpoints_of_a_machine_with_a_gpu_are_read_without_one(trained, tmp_path, monkeypatch):
    """What was saved on a CUDA device, as its mark in the file says, trains on here."""
    folder = tmp_path / "moved"
    shutil.copytree(trained, folder)
    with monkeypatch.context() as there:
        there.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        for name in ("codes.pt", "diffusion.pt", "decoder.pt"):
            torch.save(torch.load(trained / name), folder / name)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(folder / "diffusion.pt")
    before = checkpoint(folder / "diffusion.pt")
    train.train(folder, SMALL, {"diffusion": before["spent"] + MOMENT}, "cpu")
    assert checkpoint(folder / "diffusion.pt")["samples"] > before["samples"]


def test_a_device_that_is_not_there_says_so(tmp_path):
    for device in ("tpu", *([] if torch.cuda.is_available() else ["cuda", "cuda:1"])):
        with pytest.raises(ValueError, match=f"Training runs on auto or cpu.*Received device '{device}'"):
            train.train(tmp_path / "new", SMALL, {"vae": MOMENT}, device)
    assert not (tmp_path / "new").exists()


def double(value: int) -> int:
    return 2 * value


def test_rendering_ahead_keeps_the_order_and_does_not_run_away():
    asked = []

    def items():
        for value in range(20):
            asked.append(value)
            yield value

    made = ahead(double, items(), most=3)
    assert next(made) == 0 and len(asked) == 4
    assert list(made) == [2 * value for value in range(1, 20)]
