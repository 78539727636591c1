"""The command that starts the web page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from promptweave.apps.flags import Flags, command
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Serving:
    """What the page offers, and where."""

    model: Annotated[
        tuple[str, ...], Option("A model to choose from. [toybox]", group="Model", short="m", metavar="MODEL")
    ] = ()
    device: Annotated[str, Option("auto, cpu, cuda ...", group="Model", metavar="DEVICE")] = "auto"
    host: Annotated[
        str, Option("Address to listen on; others than this machine's are open to all.", group="Output")
    ] = "127.0.0.1"
    port: Annotated[int, Option("Port; 0 takes a free one.", low=0, high=65535, group="Output")] = 7860
    browser: Annotated[bool, Option("Open a browser on the page.", group="Output", flag="--open")] = True


@command(serving=Flags(Serving))
def page(*, serving: Serving) -> None:
    """Start the web page: see what each word looks at, and edit by looking."""
    from promptweave.apps.web import launch

    launch(
        list(serving.model) or ["toybox"], host=serving.host, port=serving.port or None, device=serving.device,
        browser=serving.browser,
    )  # fmt: skip
