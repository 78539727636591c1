"""Start the page, by default on the loopback interface; it gives no access to the machine's files."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptweave.apps.web.folder import page_folder
from promptweave.apps.web.hosts import Hosts, loopback
from promptweave.apps.web.limits import Limits
from promptweave.apps.web.studio import Studio
from promptweave.models.base import Model

PAUSE = 0.02  # seconds between two looks at the queue; Gradio's millisecond takes a twentieth of a core when idle


class MissingExtra(ImportError):
    """A package of an optional extra is not installed."""


def build(models: Sequence[Model | str] = ("toybox",), *, device: str = "auto", limits: Limits | None = None) -> Any:
    """The page as Gradio blocks, not yet started. `models`: names for `load` or loaded models; the first is selected.

    Of the limits, those of requests and of the time that things are kept are applied by `launch` alone. Raises
    MissingExtra without Gradio, and what `load` raises for the first model.
    """
    return _build(Studio(models, device=device, limits=limits))[0]


def _build(studio: Studio) -> tuple[Any, Any]:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # Gradio keeps a record of each run, and sums all of them up
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    page_folder()  # before Gradio asks where its files go
    try:
        import gradio  # noqa: F401 - imported here to explain its absence
    except ImportError as missing:
        raise MissingExtra(
            "The web page needs the extra 'apps'. Install it with: pip install 'promptweave[apps]'"
        ) from missing
    from promptweave.apps.web.outbox import Outbox
    from promptweave.apps.web.page import build_page

    studio.network(studio.names[0])  # an invalid model raises before the page opens
    outbox = Outbox()
    return build_page(studio, outbox), outbox


def launch(
    models: Sequence[Model | str] = ("toybox",),
    *,
    host: str = "127.0.0.1",
    port: int | None = 7860,
    device: str = "auto",
    browser: bool = False,
    block: bool = True,
    limits: Limits | None = None,
    allow_hosts: Sequence[str] = (),
    accounts: Path | str | None = None,
) -> Any:
    """Start the page and, unless `block` is False, serve it until Ctrl-C. `port`: None for a free one.

    `allow_hosts`: names besides its own under which it may be reached, such as that of a reverse proxy. `accounts`: a
    file with one USER:PASSWORD a line; the page then asks for one of them.

    Returns the Gradio blocks: `local_url` is the address, `close()` stops the page. Raises MissingExtra without Gradio,
    and ValueError for a file of accounts that holds none.
    """
    known = None if accounts is None else read_accounts(accounts)
    studio = Studio(models, device=device, limits=limits)
    page, outbox = _build(studio)
    if not loopback(host):
        print(_warning(host, locked=known is not None), file=sys.stderr)
    from starlette.middleware import Middleware

    from promptweave.apps.web.guard import Guard
    from promptweave.apps.web.keeper import Keeper
    from promptweave.apps.web.page_theme import theme
    from promptweave.apps.web.presence import Presence

    presence, bounds = Presence(), studio.limits
    keeper = Keeper(page, studio, outbox, presence)
    guard = Middleware(
        Guard, limits=bounds, hosts=Hosts(host, allow_hosts), presence=presence, queue=lambda: page._queue,
        begin=keeper.start,
    )  # fmt: skip
    page.queue(max_size=bounds.queue, default_concurrency_limit=1)
    page._queue.sleep_when_free = PAUSE
    page.launch(
        server_name=host, server_port=port, inbrowser=browser, share=False, show_error=False, quiet=True,
        prevent_thread_lock=True, allowed_paths=[], max_file_size=bounds.upload_bytes, ssr_mode=False,
        state_session_capacity=bounds.visitors, enable_monitoring=False, footer_links=[], theme=theme(), pwa=False,
        css=(Path(__file__).parent / "style.css").read_text("utf-8"),
        js=(Path(__file__).parent / "page.js").read_text("utf-8"), max_threads=8, mcp_server=False,
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None}, auth=known,
    )  # fmt: skip
    _closing(page, keeper, studio)
    if block:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave as at Ctrl-C: no files stay behind
        print(f"promptweave shows its page at {page.local_url} (Ctrl-C stops it).", flush=True)
        page.block_thread()
    return page


def read_accounts(path: Path | str) -> list[tuple[str, str]]:
    """The accounts of a file with one USER:PASSWORD a line. Raises OSError and ValueError."""
    lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    found = [(user, password) for user, _, password in (line.partition(":") for line in lines) if user and password]
    if not lines or len(found) != len(lines):
        raise ValueError(
            f"A file of accounts has one USER:PASSWORD per line. {path} doesn't. Correct it, or leave it out."
        )
    return found


def _warning(host: str, *, locked: bool) -> str:
    if locked:
        return f"The page is bound to {host}: whoever reaches this machine and has an account can use it."
    return (
        f"Warning: the page is bound to {host}, so whoever reaches this machine can use it, without a password. "
        "Leave out --host to serve this machine alone, or ask for a password with --accounts FILE."
    )


def _closing(page: Any, keeper: Any, studio: Studio) -> None:
    """Have `page.close()` also end the page's threads."""
    close = page.close

    def closing(*given: Any, **named: Any) -> None:
        keeper.close()
        studio.close()
        close(*given, **named)

    page.close = closing
