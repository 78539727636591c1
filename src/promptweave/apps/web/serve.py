"""Start the page, by default on the loopback interface; it gives no access to the machine's files."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptweave.apps.web.limits import Limits
from promptweave.apps.web.studio import Studio
from promptweave.models.base import Model


class MissingExtra(ImportError):
    """A package of an optional extra is not installed."""


def build(models: Sequence[Model | str] = ("toybox",), *, device: str = "auto", limits: Limits | None = None) -> Any:
    """The page as Gradio blocks, not yet started. `models`: names for `load` or loaded models; the first is selected.

    Raises MissingExtra without Gradio, and what `load` raises for the first model.
    """
    return _build(Studio(models, device=device, limits=limits))


def _build(studio: Studio) -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: F401 - imported here to explain its absence
    except ImportError as missing:
        raise MissingExtra(
            "The web page needs the extra 'apps'. Install it with: pip install 'promptweave[apps]'"
        ) from missing
    from promptweave.apps.web.page import build_page

    studio.network(studio.names[0])  # an invalid model raises before the page opens
    return build_page(studio)


def launch(
    models: Sequence[Model | str] = ("toybox",),
    *,
    host: str = "127.0.0.1",
    port: int | None = 7860,
    device: str = "auto",
    browser: bool = False,
    block: bool = True,
    limits: Limits | None = None,
) -> Any:
    """Start the page and, unless `block` is False, serve it until Ctrl-C. `port`: None for a free one.

    Returns the Gradio blocks: `local_url` is the address, `close()` stops the page. Raises MissingExtra without Gradio.
    """
    studio = Studio(models, device=device, limits=limits)
    page = _build(studio)
    if not loopback(host):
        print(
            f"Warning: the page is bound to {host}, so whoever reaches this machine can use it, without a password. "
            "Leave out --host to serve this machine alone.",
            file=sys.stderr,
        )
    from promptweave.apps.web.page import theme

    page.queue(max_size=32, default_concurrency_limit=1)
    page.launch(
        server_name=host, server_port=port, inbrowser=browser, share=False, show_error=False, quiet=True,
        prevent_thread_lock=True, allowed_paths=[], max_file_size=studio.limits.upload_bytes, ssr_mode=False,
        state_session_capacity=32, enable_monitoring=False, footer_links=[], theme=theme(), pwa=False,
        css=(Path(__file__).parent / "style.css").read_text("utf-8"), max_threads=8, mcp_server=False,
    )  # fmt: skip
    if block:
        print(f"promptweave shows its page at {page.local_url} (Ctrl-C stops it).", flush=True)
        page.block_thread()
    return page


def loopback(host: str) -> bool:
    """Whether the address is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
