"""What the page and its HTTP API refuse, asked of a real server on loopback."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from gradio.components.image_editor import EditorData
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import promptweave as pw
import promptweave.apps.web.serve as launching
from promptweave.apps.web import painting
from promptweave.apps.web.api import EDIT, MORE
from promptweave.apps.web.folder import page_folder
from promptweave.apps.web.guard import Refused, own_file, read_body
from promptweave.apps.web.hosts import Forbidden, Hosts
from promptweave.apps.web.limits import Limits, TooMuch
from promptweave.apps.web.uploads import BadUpload, read_upload
from promptweave.editing.recipe import KEY, BrokenRecipe

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
FILE = {"_type": "gradio.FileData"}
LIMITS = Limits(steps=4, share=2, queue=8, upload=1, uploads=8, visitors=4)


class Server:
    """The page, and how often its network was called."""

    def __init__(self, model) -> None:
        self.calls = 0
        self.slow = threading.Event()
        predict = model.predict

        def counted(*given, **named):
            self.calls += 1
            if self.slow.is_set():
                time.sleep(0.2)
            return predict(*given, **named)

        model.predict = counted
        self.page = launching.launch([model], port=None, block=False, limits=LIMITS)
        self.url = self.page.local_url.rstrip("/")
        self.client = httpx.Client(trust_env=False, timeout=60)
        self.events = {d["api_name"]: d for d in self.client.get(f"{self.url}/config").json()["dependencies"]}

    def call(self, name: str, data: list, **more) -> httpx.Response:
        """Ask for a run through the API; the answer is that of the queue."""
        return self.client.post(f"{self.url}/gradio_api/call/{name}", json={"data": data}, **more)

    def outcome(self, name: str, data: list) -> str:
        """What a run answers."""
        asked = self.call(name, data)
        assert asked.status_code == 200, asked.text
        return self.client.get(f"{self.url}/gradio_api/call/{name}/{asked.json()['event_id']}").text

    def read(self, path: str) -> httpx.Response:
        return self.client.get(f"{self.url}{path}", follow_redirects=True)

    def upload(self, data: bytes, name: str = "a.png") -> httpx.Response:
        return self.client.post(f"{self.url}/gradio_api/upload", files={"files": (name, data)})


@pytest.fixture(scope="module")
def server(tiny):
    made = Server(tiny)
    yield made
    made.client.close()
    made.page.close()
    del tiny.predict


@pytest.fixture()
def idle(server):
    """The page, which computes nothing for the request of the test."""
    before = server.calls
    yield server
    assert server.calls == before


def generate(**more) -> list:
    names = ["prompt", "seed", "steps", "model", *MORE]
    values = {**dict.fromkeys(names), "prompt": SOURCE, "seed": 0, "steps": 4, "model": "tiny", **more}
    return [values[name] for name in names]


def edit(**more) -> list:
    values = {"prompt": SOURCE, "target": TARGET, "seed": 0, "steps": 2, "cross": None, "self_attention": None,
              "weights": None, "blend": None, "model": "tiny", "joint": None, "image": None}  # fmt: skip
    return [{**dict.fromkeys(EDIT), **values, **more}[name] for name in EDIT]


def png(size=(8, 8), mode="RGB", info: PngInfo | None = None) -> bytes:
    written = io.BytesIO()
    Image.new(mode, size).save(written, "PNG", pnginfo=info)
    return written.getvalue()


def chunked(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


# Files


def test_the_file_route_reads_nothing_outside_its_folder(idle, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    folder = page_folder()
    beside = folder.parent / f"{folder.name}-beside"
    beside.mkdir()
    (beside / "secret.txt").write_text("a secret")
    (folder / "link.txt").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    try:
        for path in (
            "/etc/passwd", "//etc/passwd", str(secret), f"{folder}/../{beside.name}/secret.txt", f"{beside}/secret.txt",
            f"{folder}/link.txt", f"{folder}/linked/secret.txt", f"{folder}/.lock", str(folder), f"{folder}/",
            f"file://{secret}", launching.__file__, "C:\\secret", f"{folder}/%00", "relative.txt", "",
        ):  # fmt: skip
            for written in (path, path.replace("/", "%2F"), path.replace(".", "%2e").replace("/", "%2f")):
                answer = idle.read(f"/gradio_api/file={written}")
                assert answer.status_code in (400, 403, 404) and "secret" not in answer.text, written
        for text in ("\0", f"{folder}/\0", "https://a.example/a", "http:/a", "ftp:a", "//a/b", f"{folder}\\..\\a"):
            with pytest.raises(Refused):
                own_file(text)
    finally:
        (folder / "link.txt").unlink()
        (folder / "linked").unlink()
        (beside / "secret.txt").unlink()
        beside.rmdir()


def test_what_the_page_does_not_need_is_not_there(idle):
    for path in (
        "/docs", "/redoc", "/openapi.json", "/monitoring", "/monitoring/summary",
        "/gradio_api/deep_link?session_hash=a",
        "/gradio_api/proxy=http://127.0.0.1:9/", "/gradio_api/file/etc/passwd", "/gradio_api/vibe-code/",
        "/gradio_api/stream/a/b/1/playlist.m3u8", "/gradio_api/runs", "/gradio_api/run-history/buckets", "/dev/reload",
        "/gradio_api/custom_component/a/client/component/..%2f..%2fetc", "/static/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ):  # fmt: skip
        assert idle.read(path).status_code in (403, 404), path
    for path in ("/gradio_api/vibe-edit", "/gradio_api/process_recording", "/gradio_api/run-history/connect"):
        assert idle.client.post(idle.url + path, json={}).status_code == 404


def test_an_upload_stays_in_the_folder_whatever_its_name(idle):
    for name in ("../../../etc/cron.d/a.png", "..\\..\\a.png", "/etc/a.png", "a\0.png", ".", "..", "a" * 400 + ".png"):
        answer = idle.upload(png(), name)
        if answer.status_code == 200:
            (path,) = answer.json()
            assert Path(path).resolve().is_relative_to(page_folder().resolve()), name
    (path,) = idle.upload(png(), "page.html").json()
    shown = idle.read(f"/gradio_api/file={path}")
    assert shown.status_code == 200 and shown.headers["content-disposition"].startswith("attachment")
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_a_file_in_a_request_is_one_of_the_page(idle, tmp_path):
    own = tmp_path / "photo.png"
    own.write_bytes(png())
    for path in (str(own), "/etc/passwd", f"{page_folder()}/../{own}", "relative.png", f"{page_folder()}/.lock"):
        answer = idle.call("edit", edit(image={"path": path, "meta": FILE}))
        assert answer.status_code == 403 and "own files only" in answer.json()["detail"], path
    mask = {"background": {"path": str(own), "meta": FILE}, "layers": [], "composite": None, "id": None}
    event = idle.events["edit_1"]
    data = [mask if number == 12 else None for number in range(len(event["inputs"]))]
    body = {"data": data, "fn_index": event["id"], "session_hash": "visitor"}
    assert idle.client.post(f"{idle.url}/gradio_api/queue/join", json=body).status_code == 403
    assert idle.client.post(f"{idle.url}/gradio_api/run/predict", json=body).status_code == 403


def test_no_address_is_fetched(idle):
    asked: list[str] = []

    class Witness(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

    witness = HTTPServer(("127.0.0.1", 0), Witness)
    threading.Thread(target=witness.serve_forever, daemon=True).start()
    try:
        for base in (f"http://127.0.0.1:{witness.server_port}", "https://example.com", "ftp://example.com", "file:"):
            url = f"{base}/a.png"
            for file in ({"path": url, "meta": FILE}, {"path": url, "url": url, "meta": FILE}):
                assert idle.call("edit", edit(image=file)).status_code == 403
            assert idle.read(f"/gradio_api/file={url}").status_code == 403
            assert idle.read(f"/gradio_api/file={url.replace(':', '%3A')}").status_code == 403
        assert "error" in idle.outcome("edit", edit(image=f"http://127.0.0.1:{witness.server_port}/a.png"))
    finally:
        witness.shutdown()
        witness.server_close()
    assert not asked


# Bombs


def test_bombs_are_refused_before_they_are_decoded(idle, tmp_path):
    text = PngInfo()
    for number in range(3):
        text.add_text(f"text {number}", "x" * 5_000_000, zip=True)
    frames = io.BytesIO()
    shown = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(3)]
    shown[0].save(frames, "PNG", save_all=True, append_images=shown[1:])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10_000_000))
    bombs = {
        "million pixels": chunked(header(60_000, 60_000), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")),
        "texts in this PNG": png(info=text),
        "3 frames": frames.getvalue(),
        "must be a PNG, JPEG or WebP": zipped.getvalue(),
        "must be a PNG, JPEG or WebP image": struct.pack("<Q", 2**62) + b'{"a":{"dtype":"F32","shape":[1],',
        "damaged": chunked(header(8, 8), (b"IDAT", b"nonsense"), (b"IEND", b"")),
    }
    for said, data in bombs.items():
        (path,) = idle.upload(data).json()
        assert said in idle.outcome("edit", edit(image={"path": path, "meta": FILE})), said
    wide = tmp_path / "wide.png"
    wide.write_bytes(chunked(header(5000, 5000), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")))
    with pytest.raises(BadUpload, match="16 million pixels"):
        read_upload(wide)
    assert idle.upload(bytes(1_200_000)).status_code == 413
    begun = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    stream = (begun + bytes(100_000) + b"\r\n" for _ in range(20))  # twenty files, of unknown length together
    kind = {"content-type": "multipart/form-data; boundary=b"}
    sent = idle.client.post(f"{idle.url}/gradio_api/upload", content=stream, headers=kind)
    assert sent.status_code == 413 and "at most 1 MB" in sent.json()["detail"]


def test_what_is_painted_has_the_limits_of_an_upload(idle, monkeypatch):
    monkeypatch.setattr(painting, "TABS", 4)
    (part,) = [c for c in idle.page.config["components"] if c["type"] == "imageeditor"]
    editor = idle.page.blocks[part["id"]]

    def send(data: bytes, kind: str = "layer", index: str = "0", name: str = "a") -> None:
        fields = {"component_id": part["id"], "session_hash": "visitor", "fn_name": "accept_blobs", "type": kind,
                  "index": index, "id": name}  # fmt: skip
        files = {"file": ("blob", data, "image/png")}
        assert idle.client.post(f"{idle.url}/gradio_api/component_server", data=fields, files=files).status_code == 200

    send(png((32, 32), "RGBA"), index="99999999")
    send(png((32, 32), "RGBA"), kind="other")
    assert not editor.blob_storage
    for number in range(6):
        send(png(), name=str(number))
    assert list(editor.blob_storage) == ["2", "3", "4", "5"]
    monkeypatch.setattr(painting, "ROOM", 3 * len(png()))
    send(png(), name="6")
    assert list(editor.blob_storage) == ["4", "5", "6"]
    wide = chunked(header(13_000, 13_000), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    event = idle.events["slide"]
    place = event["inputs"].index(part["id"])
    for data, said in ((wide, "4 million pixels"), (b"GIF89a", "must be a PNG")):
        send(data, name="mine")
        given = [{"background": None, "layers": [], "composite": None, "id": "mine"} if number == place else
                 idle.page.blocks[block].value if hasattr(idle.page.blocks[block], "value") else None
                 for number, block in enumerate(event["inputs"])]  # fmt: skip
        body = {"data": given, "fn_index": event["id"], "session_hash": "painter"}
        answer = idle.client.post(f"{idle.url}/gradio_api/run/predict", json=body)
        assert said in answer.text
    send(png((16, 32), "RGBA"), name="mine")
    read = editor.preprocess(EditorData(background=None, layers=[], composite=None, id="mine"))
    assert [layer.size for layer in read["layers"]] == [(16, 32)] and "mine" not in editor.blob_storage
    editor.blob_storage.clear()


# Limits, before any work


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("generate", {"steps": 5}, "at most 4 for steps"),
        ("generate", {"steps": -1}, "steps"),
        ("generate", {"seed": 2**40}, "at most 2147483647 for the seed"),
        ("generate", {"size": [4096, 4096]}, "pixels"),
        ("edit", {"steps": 999}, "at most 4 for steps"),
        ("edit", {"target": ""}, "empty"),
        ("edit", {"blend": [str(i) for i in range(100)]}, "at most 64 for parts of"),
        ("edit", {"model": "/etc/passwd"}, "offers the models tiny"),
    ],
)
def test_limits_come_before_the_work(idle, name, given, said):
    assert said in idle.outcome(name, (generate if name == "generate" else edit)(**given))


def test_the_form_of_a_request_is_bounded(idle):
    long = "a " * 600
    for name, data in (("words", [long, TARGET, "tiny"]), ("edit", edit(prompt=long)), ("generate", [long])):
        begun = time.monotonic()
        answer = idle.call(name, data)
        assert answer.status_code == 413 and "1000 characters" in answer.json()["detail"]
        assert time.monotonic() - begun < 5
    url, kind = f"{idle.url}/gradio_api/call/words", {"content-type": "application/json"}
    for text in (
        '{"data": [NaN]}', '{"data": [Infinity]}', '{"data": [1e999]}', f'{{"data": [{"9" * 5000}]}}', "{", "\x00",
        f'{{"data": {"[" * 100_000}{"]" * 100_000}}}', f'{{"data": {"[" * 50}{"]" * 50}}}',
        '{"data": [18446744073709551616]}',
    ):  # fmt: skip
        assert idle.client.post(url, content=text, headers=kind).status_code == 400, text[:40]
    assert idle.client.post(url, content=b" " * 5_000_000, headers=kind).status_code == 413
    assert read_body(b'{"data": [1, 1.5, "a", {"b": null}]}', LIMITS) == {"data": [1, 1.5, "a", {"b": None}]}
    for axis, said in (("0,0.01,...,1", "may have 36 images"), ("0,1e-7,...,1", "at most 1000 values")):
        assert said in idle.outcome("sweep", [SOURCE, TARGET, axis, "0", 0, 2, "tiny"])


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (pw.AttendAndExcite(("cat",)), None),
        (pw.AttendAndExcite(("cat",), iterations=10**9), "at most 100 for iterations"),
        (pw.LocalBlend(tuple(f"word{i}" for i in range(100))), "at most 64"),
        (pw.LocalBlend("x" * 2000), "at most 1000"),
    ],
)
def test_the_work_of_a_recipe_is_bounded(control, said):
    recipe = pw.Recipe(SOURCE, targets=(TARGET,), controls=(control,), steps=2)
    if said is None:
        return LIMITS.check(recipe)
    with pytest.raises(TooMuch, match=said):
        LIMITS.check(recipe)


def test_a_recipe_opens_no_file(tmp_path):
    info = PngInfo()
    recipe = pw.Recipe(
        SOURCE, targets=(SOURCE,), controls=(pw.Pix2PixZero("cat", "dog", direction="/etc/passwd"),), steps=2
    )
    info.add_itxt(KEY, json.dumps({"format": 1, "recipe": recipe.as_dict()}))
    (tmp_path / "a.png").write_bytes(png(info=info))
    with pytest.raises(BrokenRecipe, match="opens no files"):
        read_upload(tmp_path / "a.png", LIMITS)


def test_nobody_fills_the_queue(server):
    server.slow.set()
    try:
        first = server.call("generate", generate()).json()["event_id"]
        wait(lambda: any(server.page._queue.active_jobs))
        body = {"data": generate(), "fn_index": server.events["generate"]["id"]}
        join = f"{server.url}/gradio_api/queue/join"
        answers = [server.client.post(join, json={**body, "session_hash": "greedy"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert "2 of your runs wait already" in answers[-1].json()["detail"]
        answers = [server.client.post(join, json={**body, "session_hash": f"many-{n}"}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]  # half of the queue for one address
    finally:
        server.slow.clear()
        for event in list(server.page._queue.event_ids_to_events.values()):
            event.alive = event._id == first
    assert "complete" in server.client.get(f"{server.url}/gradio_api/call/generate/{first}").text
    wait(lambda: not server.page._queue.event_ids_to_events)


def test_other_sites_cannot_use_the_page(idle):
    host = idle.url.removeprefix("http://")
    for headers, status in (
        ({"host": "evil.example"}, 403), ({"host": f"127.0.0.1.evil.example:{host.rpartition(':')[2]}"}, 403),
        ({"host": ""}, 403), ({"host": "[::1]"}, 200), ({"host": "localhost:1"}, 200),
        ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403), ({"origin": f"https://{host}.evil"}, 403),
        ({"origin": "http://localhost:1"}, 403), ({"origin": idle.url}, 200), ({"sec-fetch-site": "cross-site"}, 403),
    ):  # fmt: skip
        answer = idle.client.post(
            f"{idle.url}/gradio_api/call/words", json={"data": [SOURCE, TARGET, "tiny"]}, headers=headers
        )
        assert answer.status_code == status, headers
        assert idle.client.get(f"{idle.url}/config", headers=headers).status_code == status, headers
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert idle.client.get(idle.url, headers=link).status_code == 200


def test_names_of_a_page_that_others_reach():
    open_page = Hosts("0.0.0.0", ("weave.example",))
    proxied = {"host": "10.0.0.2:7860", "origin": "https://weave.example"}
    for headers in ({"host": "192.168.1.5:7860"}, {"host": "weave.example"}, {"host": "Weave.Example.:80"}, proxied):
        open_page.check(headers)
    for headers in ({"host": "evil.example"}, {"host": "192.168.1.5", "origin": "http://192.168.1.6"}, {}):
        with pytest.raises(Forbidden):
            open_page.check(headers)
    with pytest.raises(Forbidden, match="--allow-host"):
        Hosts("127.0.0.1").check({"host": "192.168.1.5:7860"})


def test_a_password_is_asked_for(tiny, tmp_path):
    accounts = tmp_path / "accounts"
    accounts.write_text("ann:a secret: with a colon\n\n")
    page = launching.launch([tiny], port=None, block=False, accounts=accounts)
    try:
        with httpx.Client(trust_env=False, base_url=page.local_url) as client:
            asked = {"data": [SOURCE, TARGET, "tiny"]}
            for answer in (client.get("config"), client.post("gradio_api/call/words", json=asked),
                           client.post("gradio_api/upload", files={"files": ("a.png", png())}),
                           client.get("gradio_api/info"),
                           client.post("gradio_api/component_server", json={})):  # fmt: skip
                assert answer.status_code == 401
            login = {"username": "ann", "password": "wrong"}
            assert client.post("login", data=login).status_code == 400
            assert client.post("login", data={**login, "password": "a secret: with a colon"}).status_code == 200
            assert client.post("gradio_api/call/words", json=asked).status_code == 200
    finally:
        page.close()
    for text in ("", "ann", ":secret", "ann:"):
        accounts.write_text(text)
        with pytest.raises(ValueError, match="USER:PASSWORD"):
            launching.read_accounts(accounts)


def wait(until, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def test_a_caller_who_leaves_ends_the_run(server):
    server.slow.set()
    try:
        before = server.calls
        event = server.call("generate", generate(seed=7, steps=4)).json()["event_id"]
        with server.client.stream("GET", f"{server.url}/gradio_api/call/generate/{event}"):
            wait(lambda: server.calls > before)
        with socket.create_connection(server.url.removeprefix("http://").split(":")[:2]):
            wait(lambda: not server.page._queue.event_ids_to_events)
        assert server.calls - before < 4
    finally:
        server.slow.clear()
