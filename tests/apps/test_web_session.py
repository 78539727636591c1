"""What a visitor of the page can do, without the page."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from families import build_sd3
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import promptweave as pw
from promptweave.apps.web import view
from promptweave.apps.web.fronts import along, search
from promptweave.apps.web.limits import Limits, TooMuch
from promptweave.apps.web.preview import Preview
from promptweave.apps.web.run_details import details
from promptweave.apps.web.session import Cancelled, NothingYet, Session
from promptweave.apps.web.settings import Form, about, chosen, selectors, shaped, spec_of
from promptweave.apps.web.shelf import Shelf
from promptweave.apps.web.stock import UnknownModel
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.uploads import BadUpload, read_upload
from promptweave.editing.recipe import KEY, BrokenRecipe
from promptweave.editing.settings import Settings

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


@pytest.fixture()
def session(tiny) -> Session:
    return Session(Studio([tiny]))


@pytest.fixture(scope="module")
def sd3(tokenizer):
    return pw.load(build_sd3(tokenizer))


def test_an_edit_on_the_recording_is_the_joint_edit_and_computes_the_target_alone(session, tiny):
    session.generate(SOURCE, 3, 4)
    assert len(session.studio.shelf) == 1
    sizes = []
    predict = tiny.predict
    tiny.predict = lambda z, *given, **named: (sizes.append(len(z)), predict(z, *given, **named))[1]
    try:
        node = session.edit(Form(TARGET, 0.5, 0.25, weights={"dog": 2, "bike": 1}, blend=("dog",)))
    finally:
        del tiny.predict
    assert sizes == [2] * 4  # one prompt, with and without condition
    joint = pw.edit(
        SOURCE, TARGET, model=tiny, cross=0.5, self_attention=0.25, weights={"dog": 2}, blend="dog", seed=3, steps=4
    )
    assert np.abs(joint.sample.pictures[1, 0].astype(int) - node.pixels).max() <= 1  # batches of another size round
    assert node.recipe.source == joint.recipe.source and Form.of(node.recipe).blend == ("dog",)
    assert node.result.report["controls"][0]["control"] == "Replace"


def test_windows_by_word_and_masks_reach_the_controls(session):
    session.generate(SOURCE, 0, 4)
    mask = ((1.0, 0.0), (0.0, 0.0))
    node = session.edit(Form(TARGET, windows={"bike": (0.25, 0.75)}, mask=mask))
    again = Form.of(node.recipe)
    assert again.windows == {"bike": (0.25, 0.75)} and again.cross == 0.8 and again.mask == mask
    source, edited = session.before().pixels, node.pixels
    assert (source != edited)[:16, :16].any()


def test_a_tree_of_edits_with_undo(session):
    first = session.generate(SOURCE, 0, 3)
    second = session.edit(Form(TARGET))
    session.further()
    third = session.edit(Form("a photo of a dog riding a car"))
    assert third.recipe.base == second.recipe and third.recipe.base_row == 1
    assert [name for name, _ in session.tree.ordered()] == ["1", "1.1", "1.1.1"]
    assert session.before() is second and session.base is second
    assert session.undo() is second and session.base is second
    assert session.undo() is second and session.base is first
    assert session.undo() is first
    with pytest.raises(NothingYet, match="nothing to undo"):
        session.undo()
    assert session.go(3) is third and session.base is second
    with pytest.raises(NothingYet, match="no image 9"):
        session.go(9)


def test_the_history_is_bounded_and_keeps_what_edits_stand_on(tiny):
    session = Session(Studio([tiny], limits=Limits(history=3)))
    root = session.generate(SOURCE, 0, 2)
    for _ in range(4):
        session.edit(Form(TARGET))
    assert len(session.tree.nodes) == 3 and root.number in session.tree.nodes and session.shown.number == 5


def test_a_sweep_and_a_cell_adopted(session):
    session.generate(SOURCE, 0, 3)
    made = session.sweep(Form(TARGET), (0.0, 1.0), (0.0, 1.0))
    node = session.adopt(3)
    assert Form.of(node.recipe).cross == 1.0
    assert np.abs(node.pixels.astype(int) - made.pictures[1, 1]).max() <= 1
    with pytest.raises(TooMuch, match="36 images"):
        session.sweep(Form(TARGET), tuple(i / 10 for i in range(10)), (0.0, 0.3, 0.6, 1.0))


def test_a_search_and_the_way_along_its_front(session, tiny):
    """The picked edit is shown with its settings; the other points of the front cost no further pass."""
    session.generate(SOURCE, 0, 5)
    node = search(session, Form(TARGET))
    found, form = session.found, Form.of(node.recipe)
    assert found is not None and node.pixels is not None and node.parent == session.base.number
    assert form.cross == found.settings["cross"] and form.blend == tuple(found.settings.get("blend", ()))
    assert node.maps.of("dog").shape == node.maps.of("riding").shape
    predict, tiny.predict = tiny.predict, None
    try:
        for place, point in enumerate(found.front):
            shown = along(session, place)
            assert np.array_equal(shown.pixels, np.asarray(point.picture))
            assert Form.of(shown.recipe).cross == point.settings["cross"]
    finally:
        del tiny.predict
    count = len(session.tree.nodes)
    along(session, 0)
    assert len(session.tree.nodes) == count and predict
    with pytest.raises(NothingYet, match="Find the strengths first"):
        along(Session(session.studio), 0)


def test_words_that_stay_reach_the_controls(session):
    session.generate(SOURCE, 0, 3)
    node = session.edit(Form(TARGET, blend=("dog",), subtract=("bike",)))
    assert node.recipe.controls[-1].subtract == ("bike",) and Form.of(node.recipe).subtract == ("bike",)


def test_cancel_stops_the_network_and_the_session_goes_on(session):
    steps = []

    def watch(done, count, z):
        steps.append(done)
        session.stop.set()

    with pytest.raises(Cancelled):
        session.generate(SOURCE, 0, 9, watch)
    assert steps == [1] and not session.tree.nodes
    session.generate(SOURCE, 0, 2)


def test_heat_and_words(session):
    session.generate("a cat next to a cat", 0, 2)
    assert session.names("a cat next to a cat") == ["a#1", "cat#1", "next", "to", "a#2", "cat#2"]
    assert session.heat("cat#2").size == session.shown.picture.size
    with pytest.raises(ValueError, match="Choose one of a#1, cat#1"):
        session.heat("dog")
    matched = session.matched(SOURCE, TARGET)
    assert matched["kind"] == "replace" and [p["source"] for p in matched["pairs"] if p["kind"] == "swapped"] == ["cat"]
    assert session.names("  ") == [] and set(selectors(session.studio.words("tiny", SOURCE))) >= {"cat", "bike"}


def test_the_report_of_the_picture_on_the_page(session, tmp_path):
    session.generate(SOURCE, 0, 2)
    plain = session.report(tmp_path).read_text()
    assert "promptweave-1.html" in str(session.report(tmp_path)) and plain.count("<img") == 1 + len(SOURCE.split())
    node = session.edit(Form(TARGET))
    session.further()
    edited = session.report(tmp_path).read_text()
    assert f"<h2>{TARGET}</h2>" in edited and "What each word looks at" in edited and "Replace" in edited
    joint = pw.edit(SOURCE, TARGET, model=session.studio.network("tiny"), steps=2, maps=True)
    for row, maps in enumerate(pw.edit_maps(joint).maps):  # those that the page recorded beside a recording
        shown = pw.edit_maps(node.result).maps[row].attention
        assert torch.allclose(shown, maps.attention, atol=1e-4)
    session.edit(Form("a photo of a dog riding a car"))
    assert "promptweave replay IMAGE.png" in session.report(tmp_path).read_text()


def test_the_window_of_joint_attention(sd3, tmp_path):
    session = Session(Studio([sd3]))
    assert session.studio.joint(session.model)
    session.generate(SOURCE, 0, 4)
    short, long = (session.edit(Form(TARGET, joint=share)) for share in (0.25, 1))
    assert [node.result.report["controls"][0]["joint_steps"] for node in (short, long)] == [1, 4]
    assert (short.pixels != long.pixels).any()
    direct = pw.edit(SOURCE, TARGET, model=sd3, joint=0.25, steps=4)
    assert np.abs(direct.sample.pictures[1, 0].astype(int) - short.pixels).max() <= 1
    assert session.heat("dog").size == long.picture.size
    made = session.sweep(Form(TARGET), (0.0, 0.25, 1.0), (0.0, 0.4))
    assert made.columns == ("joint", (0.0, 0.25, 1.0)) and made.pictures.shape[:2] == (1, 3)
    assert np.abs(made.pictures[0, 1].astype(int) - short.pixels).max() <= 1
    assert Form.of(session.adopt(2).recipe).joint == 1.0
    assert "Replace" in session.report(tmp_path).read_text()


def test_going_back_to_a_picture_of_another_model_chooses_that_model(tiny, sd3):
    session = Session(Studio([tiny, sd3]))
    assert not session.studio.joint("tiny")
    session.generate(SOURCE, 0, 2)
    session.model = session.studio.names[1]
    session.generate(SOURCE, 0, 2)
    session.go(1)
    assert session.model == "tiny"
    session.undo()
    assert session.model == session.studio.names[1]


def test_the_page_proposes_the_steps_that_suit_the_model(tiny):
    studio = Studio([tiny, "toybox-fast"])
    assert [studio.steps(name) for name in studio.names] == [25, 8]


@pytest.mark.parametrize("chained", [False, True])
def test_a_saved_picture_restores_its_recipe(session, tmp_path, chained):
    session.generate(SOURCE, 1, 3)
    node = session.edit(Form(TARGET, 0.6, weights={"dog": 1.5}))
    if chained:
        session.further()
        node = session.edit(Form("a photo of a dog riding a car"))
    picture, recipe = session.save(tmp_path)
    assert json.loads(recipe.read_text())["recipe"] == node.recipe.as_dict()
    other = Session(session.studio)
    restored, said = other.open(picture, "", 0, 2)
    assert "match" in said and restored.recipe == node.recipe and np.array_equal(restored.pixels, node.pixels)
    other.edit(Form("a photo of a lion riding a bike"))


def test_a_picture_of_ones_own_is_edited(session, tmp_path):
    drawn = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(tmp_path / "photo.jpg")
    seen: list[tuple[int, int]] = []
    node, said = session.open(tmp_path / "photo.jpg", SOURCE, 0, 3, lambda done, count, z: seen.append((done, count)))
    assert "Your image is the source" in said and node.recipe.picture is not None and seen[-1] == (6, 6)
    edited = session.edit(Form(TARGET))
    alone = pw.edit(SOURCE, TARGET, model=session.studio.network("tiny"), image=tmp_path / "photo.jpg", steps=3)
    assert np.abs(edited.pixels.astype(int) - np.asarray(alone.edited)).max() <= 1
    session.further()
    session.edit(Form("a photo of a dog riding a car"))
    picture, _ = session.save(tmp_path)
    restored, said = Session(session.studio).open(picture, "", 0, 2)
    assert "match" in said and restored.recipe.root.picture == node.recipe.picture
    with pytest.raises(TooMuch, match="pixels of the image"):
        Limits(pixels=100).check(node.recipe)


def test_an_original_is_kept_and_inverted_as_asked(session, tmp_path):
    """Edits are put back at full size, edits of edits and restored files too; the status line says how near it is."""
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    node, _ = session.open(tmp_path / "photo.png", SOURCE, 0, 3, None, shaped("crop", True), "renoise:rounds=2")
    assert node.recipe.inversion == "renoise:rounds=2" and node.picture.size == (90, 60) and node.frame.size == (32, 32)
    assert np.array_equal(np.asarray(node.picture), photo)
    assert "nversion renoise:rounds=2: PSNR of the source to the input image" in view.summary(session)
    edited = session.edit(Form(TARGET))
    assert edited.picture.size == (90, 60) and "original" in view.summary(session)
    changed = (np.asarray(edited.picture) != photo).any(-1)
    assert changed.any() and not changed[:, :13].any()  # 15 columns at each side are not seen by the model
    assert edited.bytes > node.recipe.picture.size[0] and "Original" in details(session)
    path, _ = session.save(tmp_path)
    session.further()
    assert session.edit(Form("a photo of a lion riding a bike")).picture.size == (90, 60)
    restored, said = Session(session.studio).open(path, "", 0, 1)
    assert "match" in said and restored.recipe.inversion == "renoise:rounds=2"
    with pytest.raises(TooMuch, match="rounds of ReNoise"):
        session.open(tmp_path / "photo.png", SOURCE, 0, 3, None, None, "renoise:rounds=1000")
    with pytest.raises(ValueError, match="no inversion 'unknown'"):
        session.open(tmp_path / "photo.png", SOURCE, 0, 3, None, None, "unknown")
    with pytest.raises(ValueError, match="written NAME:OPTION"):
        spec_of("renoise", "rounds 2")
    assert chosen(spec_of("renoise", " rounds=2, average=1")) == ("renoise", "rounds=2, average=1")
    assert spec_of(None, None) == "direct" and "<code>rounds=" in about("renoise")


def test_the_inversions_are_those_of_the_kind_of_model(tiny, sd3):
    studio = Studio([tiny, sd3])
    assert "null-text" in studio.inversions(studio.names[0]) and "rf-solver" not in studio.inversions(studio.names[0])
    assert "rf-solver" in studio.inversions(studio.names[1]) and "null-text" not in studio.inversions(studio.names[1])


def test_models_are_those_of_the_list(tiny):
    studio = Studio([tiny])
    assert studio.names == ("tiny",)
    with pytest.raises(UnknownModel, match="offers the models tiny"):
        studio.network("/etc/passwd")
    with pytest.raises(UnknownModel, match="promptweave app --model"):
        studio.named(pw.Recipe("a", model="other"))
    assert Studio(["/some/where/model"]).names == ("model",)


def test_recordings_stay_within_their_bytes(session):
    session.generate(SOURCE, 0, 2)
    recording = session.studio.recording("tiny", session.base.recipe, 0)
    shelf = Shelf(2 * recording.bytes)
    for number in range(4):
        shelf.put(("tiny", str(number), 0), recording)
    assert len(shelf) == 2 and shelf.bytes <= shelf.budget and shelf.get(("tiny", "0", 0)) is None
    small = Shelf(recording.bytes - 1)
    small.put(("tiny", "0", 0), recording)
    assert len(small) == 0


def test_without_room_for_a_recording_edits_still_work(tiny):
    session = Session(Studio([tiny], limits=Limits(recordings=0)))
    session.generate(SOURCE, 3, 3)
    node = session.edit(Form(TARGET))
    joint = pw.edit(SOURCE, TARGET, model=tiny, seed=3, steps=3)
    assert np.abs(joint.sample.pictures[1, 0].astype(int) - node.pixels).max() <= 1
    session.further()
    session.edit(Form("a photo of a dog riding a car"))


@pytest.mark.parametrize(
    "recipe",
    [
        pw.Recipe("a", steps=101),
        pw.Recipe("a", steps=0),
        pw.Recipe("a", size=(2048, 2048)),
        pw.Recipe("a", images=9),
        pw.Recipe("a" * 1001),
        pw.Recipe("a", seed=2**40),
        pw.Recipe("a", base=pw.Recipe("a", steps=1000)),
    ],
)
def test_what_would_take_too_long_is_refused(recipe):
    with pytest.raises(TooMuch):
        Limits().check(recipe)


def test_uploads_are_checked(tmp_path):
    def png(name: str, text: str | None, size: tuple[int, int] = (8, 8)):
        info = PngInfo()
        if text is not None:
            info.add_itxt(KEY, text)
        Image.new("RGB", size).save(tmp_path / name, pnginfo=info)
        return tmp_path / name

    for text in (None, ""):
        assert read_upload(png("photo.png", text)).recipe is None
    (tmp_path / "page.png").write_text("<html>")
    Image.new("RGB", (8, 8)).save(tmp_path / "bitmap.png", "BMP")
    for name in ("page.png", "bitmap.png"):
        with pytest.raises(BadUpload, match="PNG, JPEG or WebP"):
            read_upload(tmp_path / name)
    with pytest.raises(BadUpload, match="million pixels"):
        read_upload(png("large.png", "{}", (5000, 4000)))
    with pytest.raises(BadUpload, match="20 MB"):
        large = tmp_path / "bytes.png"
        large.write_bytes(bytes(20_000_001))
        read_upload(large)
    for text in ("[]", "{", '{"format": 1}', '{"format": 1, "recipe": {}}', '{"format":1,"recipe":' + "[" * 9999):
        with pytest.raises((BrokenRecipe, BadUpload)):
            read_upload(png("broken.png", text))
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(BadUpload):
        read_upload(tmp_path / "bomb.png")


def test_the_preview_has_the_colours_of_the_decoder(tiny):
    """The tiny network is random, so the map is checked on latents that it was not fitted to, by order of magnitude."""
    preview = Preview.fit(tiny)
    assert preview.matrix.shape == (5, 3) and bool(torch.isfinite(preview.matrix).all())
    picture = preview.picture(torch.randn(4, 16, 16), (32, 32))
    assert picture.size == (32, 32) and picture.mode == "RGB"


def test_an_upload_of_16_bits_and_another_shape_is_shown_as_it_is(session, tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(32, 0)
    Image.fromarray(ramp).save(tmp_path / "wide.png")
    shown = np.asarray(read_upload(tmp_path / "wide.png").picture)
    assert np.abs(shown[0, :, 0].astype(int) - ramp[0] // 257).max() <= 1
    node, _ = session.open(tmp_path / "wide.png", SOURCE, 0, 2, more=shaped("auto"))
    assert node.pixels.shape == (22, 44, 3) and node.result.report["picture"]["given"] == [32, 64]
    more = Settings(size=node.recipe.size)
    again = session.bring(node.recipe.picture, TARGET, 0, 2, more=more)
    assert again.recipe.picture == node.recipe.picture
    assert session.edit(Form(SOURCE, mask=((1.0, 0.0),))).pixels.shape == (22, 44, 3)
    for shape, lost in (("crop", 0.5), ("pad", 0), ("stretch", 0)):
        node, _ = session.open(tmp_path / "wide.png", SOURCE, 0, 2, more=shaped(shape))
        assert node.pixels.shape == (32, 32, 3) and node.result.report["picture"]["lost"] == lost
