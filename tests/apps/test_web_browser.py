"""The page in a real Chromium. PROMPTWEAVE_PICTURES=docs/pictures writes the documentation's screenshots."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from families import build_sd3
from PIL import Image

from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing

CHROMIUM = "/usr/bin/chromium"
pytestmark = [
    pytest.mark.skipif(
        not Path(CHROMIUM).exists(), reason=f"the page is tested in {CHROMIUM}: apt-get install chromium"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
sync_api = pytest.importorskip("playwright.sync_api")
FIELD, WAIT = "textarea", 60_000
MANY = 500  # steps of a run that lasts until it is stopped, on fast machines, too
PICTURES = os.environ.get("PROMPTWEAVE_PICTURES")
MODEL = "toybox" if PICTURES else "toybox-fast"
WINDOW = (1280, 900) if PICTURES else (1040, 680)  # what is drawn takes most of the browser's time
STILL = """addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style');
  style.textContent = '*, ::before, ::after { animation: none !important; transition: none !important }';
  document.head.append(style);
})"""
CONTRAST = Path(__file__).with_name("contrast.js").read_text("utf-8")


@contextmanager
def served(*models: str):
    """The address of a page in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "promptweave.apps.cli", "app", "--no-browser", "--port", str(port)]
    command += ["--max-steps", str(MANY)]
    command += [part for model in models for part in ("--model", model)]
    with tempfile.TemporaryDirectory() as folder:
        where = {**os.environ, "TMPDIR": folder, "GRADIO_TEMP_DIR": ""}  # which a page in this process has set
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=where) as server:
            try:
                assert server.stdout is not None and "shows its page" in server.stdout.readline()
                assert len(list(Path(folder).glob("promptweave-page-*"))) == 1
                yield f"http://127.0.0.1:{port}/"
            finally:  # or the end of the block would wait for it
                server.terminate()
        assert not list(Path(folder).glob("promptweave-page-*"))  # it leaves at SIGTERM as at Ctrl-C


@pytest.fixture(scope="module")
def url(tokenizer, tmp_path_factory):
    """One page for all tests, with a model of each kind."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd3"
    build_sd3(tokenizer).save_pretrained(folder, safe_serialization=True)
    with served(MODEL, *([] if PICTURES else [str(folder)])) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture()
def visit(browser, url):
    """Open the page as a new visitor; at the end, nothing was asked of another machine."""
    contexts, strangers = [], []

    def call(path: str = "", **options):
        context = browser.new_context(**{"viewport": dict(zip(("width", "height"), WINDOW, strict=True)), **options})
        context.add_init_script(STILL)  # a colour is what it is to be, not on its way there
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda r: strangers.append(r.url) if not r.url.startswith((url, "data:", "blob:")) else None)
        page.goto(url + path.lstrip("/"))
        page.wait_for_selector(".pw-match")
        return page

    yield call
    for context in contexts:
        context.close()
    assert not strangers


def steps(page, count: int) -> None:
    if not page.locator("#steps").is_visible():
        page.get_by_role("button", name="Settings").click()
    page.locator("#steps input[type=number]").fill(str(count))
    page.keyboard.press("Tab")


def choose(page, method: str) -> None:
    page.locator("#method input").click()
    page.get_by_role("option", name=f"{method}:").click()
    page.locator(f"#own [data-method={method}]").wait_for(state="attached")


def says(page, text: str) -> None:
    page.locator("#status").get_by_text(text).wait_for()


def picture(page, name: str, part: str | None = None) -> None:
    """A screenshot for the documentation, of the whole page or a part, if it was asked for."""
    if PICTURES:
        seen, still = None, 0
        while still < 4:  # runs that wait in the queue begin a moment after the one before
            time.sleep(1)
            says(page, "of the pixels changed")
            now = page.locator("#compare img").last.get_attribute("src"), page.locator("#status").inner_text()
            seen, still = now, still + 1 if now == seen else 0
        page.mouse.move(0, 0)  # nothing hovers
        page.evaluate("document.activeElement.blur()")
        if not part:  # as high as the page: what sticks to the window's edge is where it belongs
            tall = page.evaluate("document.documentElement.scrollHeight")
            page.set_viewport_size({"width": page.viewport_size["width"], "height": tall})
            page.evaluate("window.scrollTo(0, 0)")
            page.wait_for_timeout(500)
        taken = page.locator(part).screenshot() if part else page.screenshot()
        Image.open(io.BytesIO(taken)).convert("RGB").save(Path(PICTURES) / f"{name}.webp", quality=82)


def number(page, part: str) -> float:
    return float(page.locator(f"{part} input[type=number]").input_value())


def shows(page, part: str, value: str) -> None:
    """Wait until the number of a part is this."""
    page.wait_for_function(
        "([part, value]) => document.querySelector(`${part} input[type=number]`).value == value", arg=[part, value]
    )


def changed(page):
    """Wait until another edit is shown than when this was called: `done = changed(page); ...; done()`."""
    before = page.locator("#compare img").last.get_attribute("src")

    def done():
        page.wait_for_function(
            "before => { const all = document.querySelectorAll('#compare img');"
            " return all.length && all[all.length - 1].src !== before && !document.querySelector('#status progress') }",
            arg=before,
        )
        says(page, "of the pixels changed")

    return done


def test_type_run_slide_look_sweep_and_go_back(visit):
    page = visit()
    page.get_by_label("Seed").fill("2")
    stop, undo, further = (page.locator(name) for name in ("#stop", "#undo", "#further"))
    assert stop.is_disabled() and undo.is_disabled() and further.is_disabled()
    page.locator(f"#target {FIELD}").fill("a photo of a cat riding a bike and a tree")
    page.locator(".pw-added", has_text="tree").wait_for()
    shows(page, "#cross", "0.4")  # for something added
    page.locator(f"#target {FIELD}").fill("a photo of a cat riding a blue car")
    page.locator(".pw-swapped", has_text="blue car").wait_for()
    shows(page, "#cross", "0.8")
    assert page.locator("#strength-3").inner_text().startswith("blue")
    if not PICTURES:
        steps(page, 4)
    page.locator("#preset label", has_text="Keep more").click()
    shows(page, "#self", "0.6")
    assert number(page, "#cross") == 1
    page.locator("#preset label", has_text="Usual").click()
    shows(page, "#self", "0.4")
    page.locator(f"#prompt {FIELD}").press("End")
    page.locator(f"#prompt {FIELD}").press("Shift+Enter")  # a new line, and no run
    assert page.locator(f"#prompt {FIELD}").input_value() == "a photo of a cat riding a bike\n"
    page.locator(f"#prompt {FIELD}").press("Backspace")
    page.locator(f"#prompt {FIELD}").press("Enter")
    says(page, "Made with seed 2")
    assert "\n" not in page.locator(f"#prompt {FIELD}").input_value() and not further.is_enabled()
    page.locator(f"#target {FIELD}").press("Control+Enter")
    says(page, "of the pixels changed")
    page.wait_for_selector("#compare img")
    page.wait_for_function("document.querySelector('#compare img').alt == 'Before: a photo of a cat riding a bike'")
    assert undo.is_enabled() and further.is_enabled() and stop.is_disabled()
    done = changed(page)
    page.locator(".pw-match button", has_text="blue").click()  # a word leads to its slider
    assert page.evaluate("document.activeElement.closest('#strength-3') !== null")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    done()
    assert number(page, "#strength-3") == 2
    done = changed(page)
    page.locator("#cross input[type=range]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    done()
    assert number(page, "#cross") == 0.6
    page.locator("#look label", has_text="blue").click()
    page.wait_for_selector("#heat img[alt*='Attention map of blue']")
    picture(page, "page")
    page.get_by_role("tab", name="Sweep").click()
    page.get_by_label("Words (cross-attention): columns").fill("0, 0.8")
    page.get_by_label("Shapes (self-attention): rows").fill("0")
    page.click("#sweep")
    page.locator("#grid button img").nth(1).wait_for()
    assert page.evaluate(
        "[...document.querySelectorAll('#grid *')].every(e => getComputedStyle(e).overflowY != 'auto')"
    )
    page.locator("#grid button").nth(0).click()
    shows(page, "#cross", "0")
    says(page, "of the pixels changed")
    assert number(page, "#self") == 0
    page.locator(f"#target {FIELD}").fill("a photo of a dog riding a blue car")
    page.locator(".pw-swapped", has_text="dog").wait_for()
    page.click("#undo")
    says(page, "What you typed stays.")
    assert page.locator(f"#target {FIELD}").input_value() == "a photo of a dog riding a blue car"
    page.get_by_role("tab", name="History").click()
    page.get_by_text("1.4").first.wait_for()
    page.locator("#history button").nth(0).click()
    says(page, "Made with seed 2")
    page.click("#undo")
    says(page, "of the pixels changed")
    with page.expect_download() as download:
        page.click("#save")
    assert Image.open(download.value.path()).info["promptweave"]
    with page.expect_download() as download:
        page.click("#report")
    assert download.value.suggested_filename.endswith(".html")
    page.reload()  # the session is the tab's: it is found again
    page.wait_for_selector("#compare img")
    says(page, "of the pixels changed")
    assert page.locator(f"#target {FIELD}").input_value() == "a photo of a dog riding a blue car"
    assert number(page, "#cross") == 0.6 and page.get_by_label("Seed").input_value() == "2"
    page.click("#undo")
    says(page, "What you typed stays.")


def test_find_the_strengths_and_move_along_the_front(visit):
    page = visit()
    page.locator(f"#prompt {FIELD}").fill("a photo of a cat on a beach")
    page.locator(f"#target {FIELD}").fill("a photo of a cat in the snow")
    page.locator(".pw-swapped", has_text="snow").wait_for()
    page.get_by_label("Seed").fill("3")
    if not PICTURES:
        steps(page, 4)
    page.click("#find")
    page.wait_for_function("!document.querySelector('#status progress')", timeout=2 * WAIT)  # seven runs
    says(page, "settings under which the edit is made")
    page.wait_for_selector("#compare img")
    slider = page.locator("#front input[type=number]")
    slider.wait_for()
    picked, last = slider.input_value(), page.locator("#front input[type=range]").get_attribute("max")
    page.get_by_role("tab", name="Front").click()
    page.wait_for_selector("#plot img")
    picture(page, "page-front")
    before = page.locator("#compare img").last.get_attribute("src")
    slider.fill(last if picked != last else "1")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "before => { const all = document.querySelectorAll('#compare img');"
        " return all.length && all[all.length - 1].src !== before }",
        arg=before,
    )
    shows(page, "#front", last if picked != last else "1")
    page.get_by_role("tab", name="History").click()
    page.locator("#history button").nth(0).click()
    says(page, "Made with seed 3")
    slider.wait_for(state="hidden")


def test_the_tree_of_edits_is_drawn_and_used_by_keyboard(visit):
    page = visit(viewport={"width": 400, "height": 850})
    page.get_by_label("Seed").fill("2")
    if not PICTURES:
        steps(page, 4)
    for number, target in enumerate(["a photo of a cat riding a car", "a drawing of a cat riding a bike"], 1):
        page.locator(f"#target {FIELD}").fill(target)
        page.click("#apply")
        page.get_by_role("tab", name="History").click()
        button = page.locator(f"#history button[data-number='{number + 1}'][aria-current]")
        button.wait_for()
    page.locator("#history button[data-number='2']").focus()
    page.keyboard.press("Enter")
    button = page.locator("#history button[data-number='2'][aria-current]")
    button.wait_for()
    page.wait_for_function("document.activeElement.dataset.number == '2'")  # focus stays, though the tree is new
    assert page.locator(f"#target {FIELD}").input_value() == "a photo of a cat riding a car"
    page.click("#further")
    says(page, "of the pixels changed")
    page.locator("#history button[data-number='2'] mark", has_text="edits start here").wait_for()
    page.locator(f"#target {FIELD}").fill("a photo of a cat riding a blue car")
    page.click("#apply")
    button = page.locator("#history button[data-number='4'][aria-current]")
    button.wait_for()
    assert "1.1.1" in button.inner_text() and "+ blue" in button.inner_text()
    picture(page, "page-history", "#history")
    boxes = [page.locator(f"#history button[data-number='{n}']").bounding_box() for n in (1, 2, 4, 3)]
    assert [b["x"] for b in boxes] == sorted({b["x"] for b in boxes[:3]}) + [boxes[1]["x"]]  # each right of its parent
    assert all(above["y"] + above["height"] <= below["y"] for above, below in zip(boxes, boxes[1:], strict=False))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator(f"#target {FIELD}").fill("a cat ${1+1} {{x}} <b>bike")
    page.click("#apply")
    button = page.locator("#history button[data-number='5'][aria-current]")
    button.wait_for()
    assert "a cat ${1+1} {{x}} <b>bike" in button.inner_text()  # a prompt is text, whatever it says
    page.locator("#history button[data-number='1']").click()
    says(page, "Made with seed 2")


def test_stop_and_reload_end_the_run_and_whoever_waits_is_told(visit):
    page, other = visit(), visit()
    steps(page, MANY)
    page.click("#generate")
    page.locator("#status progress").wait_for()
    other.click("#apply")
    says(other, "Waiting: 1 run comes before yours.")
    page.wait_for_selector("#picture img")  # a rough picture
    other.click("#stop")
    says(other, "Stopped. Nothing was changed.")
    page.reload()
    page.wait_for_selector(".pw-match")
    assert number(page, "#seed") == 0
    page.get_by_role("button", name="Settings").click()
    assert number(page, "#steps") == MANY  # what was typed is kept, too
    page.click("#generate")
    page.locator("#status progress").wait_for()
    page.click("#stop")
    says(page, "Stopped. Nothing was changed.")
    steps(page, 2)
    page.locator("#images input").fill("2")
    page.locator("#size input").fill("96 x 128")
    page.keyboard.press("Enter")
    page.click("#dice")
    page.wait_for_function("document.querySelector('#seed input').value != '0'")
    seed = int(number(page, "#seed"))
    page.click("#generate")
    says(page, f"Made with seed {seed} in 2 steps")
    page.locator("#strip button").nth(1).click()
    says(page, f"Made with seed {seed + 1} in 2 steps")
    with page.expect_download() as download:
        page.click("#save")
    assert Image.open(download.value.path()).size == (128, 96)


def seen(part) -> np.ndarray:
    """The pixels of a part of the page."""
    return np.asarray(Image.open(io.BytesIO(part.screenshot())).convert("RGB"))


def drop(page, path: Path) -> None:
    """Drop a file on the image."""
    data = page.evaluate_handle(
        "([bytes, name]) => { const held = new DataTransfer();"
        " held.items.add(new File([new Uint8Array(bytes)], name)); return held; }",
        [list(path.read_bytes()), path.name],
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": data})


def test_errors_are_sentences_and_keep_the_settings(visit, tmp_path):
    page = visit()
    page.locator(f"#target {FIELD}").fill("a photo of a cat riding a bike")
    page.click("#apply")
    says(page, "has the source's words")
    assert page.locator(f"#target {FIELD}").input_value() == "a photo of a cat riding a bike"
    long = " ".join(["a very green giraffe in the"] + ["forest and"] * 57)
    page.locator(f"#target {FIELD}").fill(long)
    page.locator(".pw-offer", has_text="giraffe").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.click("#apply")
    says(page, 'or check "Cut prompts that are too long"')
    assert "--" not in page.locator("#status").inner_text()
    page.get_by_role("button", name="Settings").click()
    page.locator("#truncate input").check()
    page.click("#apply")
    says(page, "of the pixels changed")
    page.locator(f"#target {FIELD}").fill("a photo of a giraffe riding a bike")
    page.wait_for_function("!document.querySelector('.pw-match').innerText.includes('forest')")  # the words are these
    page.locator(".pw-unknown", has_text="giraffe").wait_for()
    page.locator(".pw-offer button").first.click()
    page.locator(".pw-unknown").wait_for(state="detached")
    assert "giraffe" not in page.locator(f"#target {FIELD}").input_value()
    (tmp_path / "photo.png").write_text("no picture")
    drop(page, tmp_path / "photo.png")
    says(page, "must be a PNG, JPEG or WebP")
    assert "Traceback" not in page.content()


def test_two_visitors_have_pictures_of_their_own_and_uploads_restore(visit, tmp_path):
    first, second = visit(), visit()
    second.locator("#example input").click()
    second.get_by_role("option", name="Another colour").click()
    shows(second, "#seed", "1")
    assert second.locator(f"#prompt {FIELD}").input_value() == "a photo of a red car in the snow"
    assert second.locator(f"#target {FIELD}").input_value() == "a photo of a blue car in the snow"
    second.get_by_label("Seed").fill("7")
    first.click("#generate")
    second.get_by_label("Seed").press("Enter")
    says(first, "Made with seed 0")
    says(second, "Made with seed 7")
    with second.expect_download() as download:
        second.click("#save")
    download.value.save_as(tmp_path / "saved.png")
    first.get_by_text("Open an image").click()
    first.locator("#upload input[type=file]").set_input_files(tmp_path / "saved.png")
    says(first, "the pixels match")
    assert first.get_by_label("Seed").input_value() == "7"
    assert first.locator(f"#prompt {FIELD}").input_value() == "a photo of a red car in the snow"


def test_a_photo_is_taken_as_the_source_and_edited(visit, tmp_path):
    page = visit()
    drawn = Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5)
    Image.fromarray(render(drawn)[0]).resize((300, 300)).save(tmp_path / "cat.jpg")
    page.locator(f"#prompt {FIELD}").fill("a photo of a cat on the grass")
    page.locator(f"#target {FIELD}").fill("a photo of a dog on the grass")
    steps(page, 4)
    page.get_by_text("Open an image").click()
    page.locator("#keep input").check()
    page.locator("#inversion input").click()
    page.get_by_role("option", name="negative-prompt").click()
    page.locator("#about li", has_text="pin=false").wait_for()
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "cat.jpg")
    says(page, "Your image is the source")
    says(page, "Inversion negative-prompt: PSNR of the source to the input image")
    assert page.locator(f"#target {FIELD}").input_value() == "a photo of a dog on the grass"
    page.get_by_label("Its options").fill("pin")
    page.click("#apply")
    says(page, "written NAME:OPTION=VALUE")
    page.get_by_label("Its options").fill("pin=true")
    page.locator("#preset label", has_text="No control").click()
    shows(page, "#self", "0")
    page.click("#apply")  # inverts it again
    says(page, "pixels changed")
    only = page.locator("#only", has_text="Only the swapped words: dog")  # for most of the photo has changed
    done = changed(page)
    only.click()
    done()
    only.wait_for(state="hidden")
    assert page.locator("#blend label", has_text="dog").locator("input").is_checked()
    page.get_by_role("tab", name="Details").click()
    page.locator("#details").get_by_text("inversion negative-prompt:pin=true").wait_for()
    assert "{" not in page.locator("#details").inner_text()
    with page.expect_download() as download:
        page.click("#save")
    assert Image.open(download.value.path()).size == (300, 300)  # the model's own is 128 x 128


def test_a_method_is_chosen_a_box_is_drawn_and_both_come_back(visit):
    page = visit()
    assert page.locator("#own [data-field]").first.is_visible() is False  # folded: the sliders say what matters
    page.locator(f"#prompt {FIELD}").fill("a photo of a dog on the grass")
    page.get_by_label("Seed").fill("3")
    steps(page, 12 if PICTURES else 3)
    page.click("#generate")
    says(page, "Made with seed 3")
    choose(page, "place")
    assert not page.locator("#target").is_visible() and not page.locator("#strengths").is_visible()
    page.click("#apply")
    says(page, "place needs a value for Region: box of a word")
    page.locator(".pw-chip", has_text="dog").click()
    assert page.locator(".pw-chip[aria-pressed=true]").inner_text() == "dog"
    canvas = page.locator(".pw-canvas img")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.02, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.98, steps=3)
    page.mouse.up()
    drawn = page.locator("[data-field=regions]")
    assert drawn.input_value() == "dog=0.02,0.4,0.5,0.98"
    assert page.locator(".pw-canvas > div").get_attribute("style").startswith("left: 2%")
    page.click("#apply")
    says(page, "of the pixels changed")
    picture(page, "page-methods")
    page.get_by_role("tab", name="History").click()
    page.locator("#history button", has_text="place · region dog=0.02,0.4,0.5,0.98").wait_for()
    page.click("#undo")
    says(page, "Made with seed 3")
    page.locator("#target").wait_for()  # the source was made by no method
    page.locator("#history button").nth(1).click()
    says(page, "of the pixels changed")
    drawn.wait_for()
    assert drawn.input_value() == "dog=0.02,0.4,0.5,0.98"
    drawn.fill("dog=0.5,0.4,1")  # the keyboard's way, with a mistake
    page.click("#apply")
    says(page, "Region takes word=left,top,right,bottom")
    page.get_by_text("Documentation of this method").click()
    page.locator("#docs-text", has_text="things go to their boxes").wait_for()


def test_a_painted_region_is_made_anew_and_nothing_else_changes(visit, tmp_path):
    page = visit(viewport={"width": 1280, "height": 900})  # nothing lies over the editor
    drawn = Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5)
    Image.fromarray(render(drawn)[0]).save(tmp_path / "cat.png")
    page.locator(f"#prompt {FIELD}").fill("a photo of a cat on the grass")
    page.locator(f"#target {FIELD}").fill("a photo of a dog on the grass")
    page.get_by_text("Open an image").click()
    page.locator("#keep input").check()
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "cat.png")
    says(page, "Your image is the source")
    page.get_by_text("Paint the region that may change").click()
    page.locator("#mask", has_text="63%").wait_for()  # the editor has found its size
    choose(page, "inpaint")
    page.click("#apply")
    says(page, "nothing is. Paint a region")
    canvas = page.locator("#mask canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for number in range(12):  # to and fro, down the left side of the image
        page.mouse.move(middle[0] - (125, 75)[number % 2], middle[1] + 20 * (number - 6))
        if not number:
            page.mouse.down()
    page.mouse.up()
    canvas.hover(position={"x": 5, "y": 5})  # beside the image
    held = seen(canvas)
    wide = (held.min(-1) < 230).mean(0) > 0.5  # the image on white: of 512 pixels at 63 %
    assert abs(wide.sum() - 320) < 6
    page.click("#apply")
    says(page, "of the pixels changed")
    canvas.hover(position={"x": 5, "y": 5})
    assert np.array_equal(seen(canvas), held)  # neither its size nor what is painted has changed
    with page.expect_download() as download:
        page.click("#save")
    before, after = (np.asarray(Image.open(f).convert("RGB")) for f in (tmp_path / "cat.png", download.value.path()))
    changed = (before != after).any(-1)  # painted were columns 7 to 41 of 128
    assert changed[:, 7:42].mean() > 0.1 and not changed[:, :7].any() and not changed[:, 42:].any()


def test_a_model_with_joint_attention_has_the_slider_of_its_window(visit):
    page = visit()
    page.locator("#model input").click()
    page.get_by_role("option", name="tiny-sd3").click()
    page.locator("#joint").wait_for()
    joint, cross = page.locator("#joint input[type=number]"), page.locator("#cross input[type=number]")
    assert joint.is_visible() and not cross.is_visible()
    assert not page.get_by_text("Windows of single words").is_visible()
    assert "joint attention" in page.locator("#kept").inner_text()
    steps(page, 4)
    joint.fill("0.5")
    page.keyboard.press("Tab")
    page.click("#apply")
    says(page, "of the pixels changed")
    page.get_by_role("tab", name="Details").click()
    page.locator("#details").get_by_text("joint attention in 2 of 4 steps").wait_for()
    page.get_by_role("tab", name="Sweep").click()
    assert not page.get_by_label("Shapes (self-attention): rows").is_visible()
    page.get_by_label("Source (joint attention)").fill("0.25, 1")
    page.click("#sweep")
    page.locator("#grid button").nth(1).click()
    shows(page, "#joint", "1")
    page.locator("#model input").click()
    page.get_by_role("option", name="toybox-fast").click()
    cross.wait_for()
    assert not joint.is_visible() and page.get_by_text("Windows of single words").is_visible()


@pytest.mark.parametrize("name", ["dark", "narrow"])
def test_dark_and_narrow(visit, name):
    narrow = {"viewport": {"width": 390, "height": 844}} if name == "narrow" else {}
    page = visit("/?__theme=dark" if name == "dark" else "", **(narrow or {"viewport": {"width": 1366, "height": 768}}))
    if name == "dark":  # nothing that is needed lies below the fold
        for needed in ("#apply", "#find", "#generate", "#undo", ".tab-container [role=tab]"):
            box = page.locator(needed).first.bounding_box()
            assert 0 <= box["y"] and box["y"] + box["height"] <= 768 and box["x"] + box["width"] <= 1366, needed
    page.get_by_label("Seed").fill("2")
    page.click("#apply")
    says(page, "of the pixels changed")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # nothing is cut off at the side
    if name == "narrow":  # the image follows the words, nothing hides behind a menu, and buttons share a line
        order = [page.locator(part).bounding_box()["y"] for part in ("#match", "#compare", "#regions", "#windows")]
        assert order == sorted(order)
        assert page.locator(".tab-container [role=tab]:visible").count() == 6
        assert page.locator("#generate").bounding_box()["y"] == page.locator("#stop").bounding_box()["y"]
    page.locator("#look label", has_text="car").click()
    page.wait_for_selector("#heat img")
    picture(page, f"page-{name}")
    if name == "dark":
        page.locator("#live").scroll_into_view_if_needed()
        assert page.locator("#compare").bounding_box()["y"] >= 0  # the image stays in sight of the sliders
    assert page.evaluate(CONTRAST) == []
    for button in page.locator("#ask button:visible, #stage button:visible, [role=tab]:visible").all():
        if button.is_enabled() and button.inner_text().strip():
            button.hover()
            page.wait_for_timeout(20)
            assert page.evaluate(CONTRAST) == []
