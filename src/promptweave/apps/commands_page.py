"""The command that starts the web page."""

from __future__ import annotations

from typing import Annotated

import typer

from promptweave.apps.flags import Device


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="app")(page)


def page(
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model to choose from; may be repeated. [toybox]")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine's are open.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 7860,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser on the page.")] = True,
    device: Device = "auto",
) -> None:
    """Start the web page: see what each word looks at, and edit by looking."""
    from promptweave.apps.web import launch

    launch(model or ["toybox"], host=host, port=port or None, device=device, browser=browser)
