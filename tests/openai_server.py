"""A server that speaks OpenAI's chat API on loopback, and fails as real ones do."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-of-this-test"

THOUGHTS = ("先想", "一想。")
WORDS = ("多", "喝水，", "注意休息。")


def piece(**delta: str) -> dict[str, Any]:
    """One chunk of the stream."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}


def end(reason: str = "stop") -> dict[str, Any]:
    """The chunk with which an answer ends."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 21, "prompt_tokens_details": {"cached_tokens": 8}}}


@dataclass
class Behaviour:
    """What the server does; change it at will.

    Attributes:
        chunks: sent one by one; text goes out as the line that it is.
        fault: after them ``cut`` breaks off, ``stall`` says nothing more until `go` is set.
        status: instead of an answer.
        strict: refuse fields that are not OpenAI's.
    """

    models: Sequence[str] | None = ("made-up", "another")
    chunks: Sequence[dict[str, Any] | str] = (
        *(piece(reasoning_content=text) for text in THOUGHTS),
        *(piece(content=text) for text in WORDS),
        end(),
        USAGE,
        "data: [DONE]",
    )
    fault: str = ""
    status: int = 200
    error: dict[str, Any] = field(default_factory=lambda: {"error": {"message": "说不出来"}})
    key: str = ""
    strict: bool = False
    lengths: bool = False
    """With a length in the head and not in chunks, as a server may that closes after each answer."""
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when who asked has gone."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all questions."""
    heads: list[dict[str, str]] = field(default_factory=list)


OWN_FIELDS = {
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "seed", "max_tokens"
}  # fmt: skip


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, Behaviour]]:
    """A server while the block runs: its address, and what it does."""
    behaviour = Behaviour()
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", behaviour
    finally:
        behaviour.go.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._note()
        if not self._allowed():
            return
        if self.behaviour.models is None or self.path != "/v1/models":
            self._answer(404, {"error": {"message": "no such page"}})
        else:
            models = [
                {"id": name, "object": "model", "max_model_len": 4096} for name in self.behaviour.models
            ]
            self._answer(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        self._note()
        does = self.behaviour
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        does.asked.append(body)
        if not self._allowed():
            return
        if does.fault == "moved":
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:1/v1/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif does.strict and (unknown := set(body) - OWN_FIELDS):
            self._answer(400, {"error": {"message": f"unknown fields {sorted(unknown)}"}})
        elif does.status != 200:
            self._answer(does.status, does.error)
        else:
            self._stream()

    def _stream(self) -> None:
        does = self.behaviour
        if does.fault == "stall-early":
            does.go.wait()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if does.lengths:
            self.send_header("Connection", "close")
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for chunk in does.chunks:
                line = chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk, ensure_ascii=False)}"
                self._write(f"{line}\n\n".encode())
            if does.fault == "stall":
                self._wait_until_left()
            if does.fault in ("cut", "stall"):
                self.close_connection = True
                self.connection.close()
            elif does.lengths:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            does.left.set()
            self.close_connection = True

    def _wait_until_left(self) -> None:
        self.connection.settimeout(0.02)
        while not self.behaviour.go.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    self.behaviour.left.set()
                    return

    def _write(self, raw: bytes) -> None:
        if not self.behaviour.lengths:
            raw = f"{len(raw):x}\r\n".encode() + raw + b"\r\n"
        self.wfile.write(raw)
        self.wfile.flush()

    def _note(self) -> None:
        self.behaviour.heads.append(dict(self.headers))

    def _allowed(self) -> bool:
        key = self.behaviour.key
        if not key or self.headers["Authorization"] == f"Bearer {key}":
            return True
        self._answer(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
        return False

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        raw = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
