"""The page's HTTP API, and what it refuses."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

import promptweave.apps.web.serve as launching

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


@pytest.fixture(scope="module")
def page(tiny):
    made = launching.launch([tiny], port=None, block=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(page):
    from gradio_client import Client

    made = Client(page.local_url, verbose=False, analytics_enabled=False)
    yield made
    made.close()


def test_every_call(client):
    picture, record = client.predict(SOURCE, 1, 2, "tiny", api_name="/generate")
    assert Image.open(picture).info["promptweave"] and record["recipe"]["seed"] == 1
    options = [1, 2, 0.5, 0.5, {"dog": 2}, ["dog"], "tiny"]
    picture, record = client.predict(SOURCE, TARGET, *options, api_name="/edit")
    assert [c["control"] for c in record["recipe"]["controls"]] == ["Replace", "Reweight", "LocalBlend"]
    assert Image.open(picture).size == (32, 32)
    _, record = client.predict(SOURCE, TARGET, *options, None, api_name="/edit")  # None counts as not given
    assert record["recipe"]["controls"][0]["joint"] == 0.2
    with pytest.raises(Exception, match="Nothing reads joint here"):
        client.predict(SOURCE, TARGET, *options, 0.5, api_name="/edit")
    more = {"steps": 3, "kind": "refine", "shared_start": 0.4, "guidance": 2.5, "negative": "snow"}
    _, record = client.predict(prompt=SOURCE, target=TARGET, api_name="/edit", **more)
    assert [c["control"] for c in record["recipe"]["controls"]] == ["Refine", "SharedStart"]
    assert (record["recipe"]["guidance"], record["recipe"]["negative"]) == (2.5, "snow")
    options = {"words": ["cat"], "iterations": 1, "share": [0, 0.5]}
    picture, record = client.predict(prompt=SOURCE, method="attend", options=options, steps=2, api_name="/method")
    assert Image.open(picture).size == (32, 32) and record["recipe"]["controls"][0]["share"] == [0, 0.5]
    _, record = client.predict(prompt=SOURCE, method="masactrl", target=TARGET, steps=2, api_name="/method")
    assert record["recipe"]["targets"] == [TARGET]
    with pytest.raises(Exception, match="For this model there are edit, inpaint"):
        client.predict(prompt=SOURCE, method="flow", api_name="/method")
    assert client.predict(SOURCE, TARGET, "tiny", api_name="/words")["kind"] == "replace"
    assert Image.open(client.predict(SOURCE, "cat", 1, 2, "tiny", api_name="/maps")).size == (32, 32)
    assert client.predict(SOURCE, TARGET, "0, 0.8", "0.4", 1, 2, "tiny", api_name="/sweep").endswith(".png")
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/generate", "/edit", "/method", "/words", "/maps", "/sweep"}


def test_a_photo_is_edited_and_only_an_upload_can_be_one(page, client, tmp_path):
    from gradio_client import handle_file

    Image.new("RGB", (40, 40), (200, 90, 30)).save(tmp_path / "photo.jpg")
    assert page._queue.sleep_when_free == launching.PAUSE  # or an idle page would look a thousand times a second
    options = [1, 2, 0.5, 0.5, {}, [], "tiny", None]
    _, record = client.predict(SOURCE, TARGET, *options, handle_file(tmp_path / "photo.jpg"), api_name="/edit")
    assert record["recipe"]["picture"] and record["report"]["picture"]["inversion"] == "direct"
    photo = {"steps": 2, "image": handle_file(tmp_path / "photo.jpg"), "keep_original": True, "inversion": "ddim"}
    picture, record = client.predict(prompt=SOURCE, target=TARGET, api_name="/edit", **photo)
    assert Image.open(picture).size == (40, 40) and record["report"]["picture"]["inversion"] == "ddim"
    with pytest.raises(Exception, match="no inversion .dim."):
        client.predict(prompt=SOURCE, target=TARGET, api_name="/edit", **{**photo, "inversion": "dim"})
    hidden = Path(__file__).parents[2] / "docs" / "pictures" / "demo.webp"
    file = {"path": str(hidden), "meta": {"_type": "gradio.FileData"}}
    call = f"{page.local_url}gradio_api/call/edit"
    asked = Request(call, json.dumps({"data": [SOURCE, TARGET, *options, file]}).encode())
    asked.add_header("Content-Type", "application/json")
    with pytest.raises(HTTPError, match="403"):
        urlopen(asked)


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        ("/generate", (SOURCE, 1, 10_000, "tiny"), "at most 100"),
        ("/generate", ("", 1, 2, "tiny"), "empty"),
        ("/generate", (SOURCE, 1, 2, "/etc/passwd"), "offers the models tiny"),
        ("/maps", (SOURCE, "zebra", 1, 2, "tiny"), "not a word"),
        ("/edit", (SOURCE, SOURCE, 1, 2, 0.5, 0.5, {}, [], "tiny"), "has the source.s words"),
        ("/sweep", (SOURCE, TARGET, "0,2", "0", 1, 2, "tiny"), "0 to 1"),
    ],
)
def test_errors_are_sentences(client, call, given, said):
    with pytest.raises(Exception, match=said):
        client.predict(*given, api_name=call)


def test_no_file_of_the_machine_is_readable(page):
    import httpx

    for path in ("/etc/passwd", "//etc/passwd", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", launching.__file__):
        for route in ("file=", "gradio_api/file=", "gradio_api/file/", "static/", "assets/", "proxy=file://"):
            answer = httpx.get(f"{page.local_url}{route}{path}", follow_redirects=True, trust_env=False)
            assert answer.status_code >= 400 or (b"root:" not in answer.content and b"def launch" not in answer.content)
    for route in ("gradio_api/file=/etc/passwd", f"gradio_api/file={launching.__file__}"):
        assert httpx.get(page.local_url + route, trust_env=False).status_code in (403, 404)


def test_an_address_that_others_reach_brings_a_warning(tiny, capsys):
    assert launching.loopback("127.0.0.1") and launching.loopback("::1") and launching.loopback("localhost")
    assert not launching.loopback("0.0.0.0") and not launching.loopback("my-machine")
    page = launching.launch([tiny], host="0.0.0.0", port=None, block=False)
    page.close()
    assert "whoever reaches this machine" in capsys.readouterr().err


def test_without_the_extra_the_error_names_it(monkeypatch, tiny):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(launching.MissingExtra, match=r"promptweave\[apps\]"):
        launching.build([tiny])


def test_importing_the_package_of_the_page_brings_no_gradio():
    """In a process of its own: threads of pages that ended here import parts of gradio still."""
    code = "import sys, promptweave, promptweave.apps.web; print('gradio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    assert importlib.util.find_spec("promptweave.apps.web.page")
