"""The command that starts the web page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from promptweave.apps.flags import Flags, command
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Serving:
    """The models of the page, and its address."""

    model: Annotated[
        tuple[str, ...], Option("Model that visitors may choose. [toybox]", group="Model", short="m", metavar="MODEL")
    ] = ()
    device: Annotated[str, Option("auto, cpu, cuda ...", group="Model", metavar="DEVICE")] = "auto"
    host: Annotated[
        str, Option("Address to listen on; any but this machine's own is open to the network.", group="Output")
    ] = "127.0.0.1"
    port: Annotated[int, Option("Port; 0 for a free one.", low=0, high=65535, group="Output")] = 7860
    allow_hosts: Annotated[
        tuple[str, ...],
        Option("Another name under which the page is reached, such as a reverse proxy's.", group="Output",
               flag="--allow-host", metavar="NAME"),
    ] = ()  # fmt: skip
    accounts: Annotated[
        Path | None,
        Option("File with one USER:PASSWORD a line: visitors must give one. [no password]", group="Output",
               metavar="FILE"),
    ] = None  # fmt: skip
    browser: Annotated[bool, Option("Open the page in a browser.", group="Output")] = True


@command(serving=Flags(Serving), limits=Flags("promptweave.apps.web.limits:Limits"))
def page(*, serving: Serving, limits: dict[str, Any]) -> None:
    """Start the web page: see the attention of each word, and edit."""
    from promptweave.apps.web import launch
    from promptweave.apps.web.limits import Limits

    launch(
        list(serving.model) or ["toybox"], host=serving.host, port=serving.port or None, device=serving.device,
        browser=serving.browser, limits=Limits(**limits), allow_hosts=serving.allow_hosts, accounts=serving.accounts,
    )  # fmt: skip
