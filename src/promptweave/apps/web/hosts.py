"""Under which names a page is reached, and from which pages: another site must not use it through a visitor's browser.

A browser sends the name under which it looked the page up (Host) and the site that asks (Origin). A site whose name
points to this machine, as in DNS rebinding, gives its own name; numeric addresses cannot be pointed anywhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit


class Forbidden(ValueError):
    """A request under a foreign name or from a foreign site."""


def loopback(host: str) -> bool:
    """Whether the address is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Hosts:
    """The names of a page that listens on `host`; `allowed`: further ones, such as that of a reverse proxy."""

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        self.alone = loopback(host)
        self.allowed = {name.lower().rstrip(".") for name in allowed}
        own = {"localhost", host.lower()} | ({socket.gethostname().lower()} - {""} if not self.alone else set())
        self.names = own | self.allowed

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise Forbidden unless a request with these headers is for this page and from it."""
        host = headers.get("host", "")
        if not self._known(_name(f"//{host}")):
            raise Forbidden(
                f"This page is not reached under the name {host[:100]!r}. Open it at its address, or start it with "
                "--allow-host NAME."
            )
        origin = headers.get("origin")
        if origin is None and headers.get("sec-fetch-site") != "cross-site":
            return
        if headers.get("sec-fetch-mode") == "navigate":  # a link to the page
            return
        if origin is None or not self._same(origin, host):
            raise Forbidden("Other sites cannot use this page. Open it at its own address.")

    def _known(self, name: str) -> bool:
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return address.is_loopback or not self.alone or name in self.names

    def _same(self, origin: str, host: str) -> bool:
        parts = urlsplit(origin)
        return parts.netloc.lower() == host.lower() or (bool(parts.netloc) and _name(origin) in self.allowed)


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
