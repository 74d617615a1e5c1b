"""The server elsewhere that may answer: its address, the model asked for, the key.

The environment (``DRKUN_REMOTE_URL``, ``DRKUN_REMOTE_MODEL``, ``DRKUN_REMOTE_KEY``) goes before the
settings. The key is read by whoever sends it and by nobody else, so it is in no message and no event.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import t
from drkun_tui.settings import Settings


@dataclass(frozen=True, slots=True)
class Server:
    """An OpenAI-compatible server.

    Attributes:
        url: what ``/chat/completions`` is put behind.
        model: what the server calls the model; "" leaves it to the server's list.
        host: with the port, as it is shown.
        local: it is on this very machine, so that nothing leaves it.
    """

    url: str
    model: str
    host: str
    local: bool

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self.model}@{self.host}" if self.model else self.host

    @property
    def notice(self) -> str:
        """What has to be said before anything is sent: where it goes."""
        return t("remote.stays" if self.local else "remote.leaves", host=self.host)


def server(settings: Settings) -> Server | None:
    """The configured server; None where none is.

    Raises:
        DrkunError: ``remote_url``, what is configured is no address of a server.
    """
    given = os.environ.get("DRKUN_REMOTE_URL", "").strip() or settings.remote_url.strip()
    if not given:
        return None
    model = os.environ.get("DRKUN_REMOTE_MODEL", "").strip() or settings.remote_model.strip()
    try:
        parts = urlsplit(given)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        raise _bad_url() from None
    # A key in the address would be on the screen with it.
    if parts.scheme not in ("http", "https") or not name or parts.username or parts.password:
        raise _bad_url()
    host = f"[{name}]" if ":" in name else name
    if port is not None:
        host = f"{host}:{port}"
    path = parts.path.rstrip("/") or "/v1"
    return Server(f"{parts.scheme}://{host}{path}", model, host, _is_loopback(name))


def key(settings: Settings) -> str:
    """What the server wants to be shown; "" where it wants nothing."""
    return os.environ.get("DRKUN_REMOTE_KEY", "").strip() or settings.remote_key.strip()


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _bad_url() -> DrkunError:
    return DrkunError("remote_url", t("remote.bad_url"), t("remote.bad_url_hint"), EXIT_BAD_INPUT)
