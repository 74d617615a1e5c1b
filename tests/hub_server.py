"""A real HTTP server on loopback that speaks what the clients of both hubs use, with faults on request."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub_uploads import Uploads

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_FROM = 1024
"""Bytes from which a file is kept apart from Git, and comes from the CDN."""


@dataclass(frozen=True)
class Content:
    """What a file holds: bytes, or a file on the disk for large ones. It does not change."""

    data: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.data, bytes):
            return hashlib.sha256(self.data).hexdigest()
        with self.data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def git_sha(self) -> str:
        assert isinstance(self.data, bytes)
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def lfs(self) -> bool:
        return self.size >= LFS_FROM


@dataclass
class Repository:
    """A model on both hubs."""

    files: dict[str, Content]
    gated: bool = False
    tags: list[str] = field(default_factory=list)
    downloads: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    """What the listing says of it that is not so, by name of the field: ``sha256``, ``size``."""


@dataclass
class Fault:
    """What goes wrong with a request for one file, or for the listing.

    Attributes:
        at: bytes of the answer's body after which it happens.
        what: ``close``, ``hold`` (until released), ``corrupt`` (every byte is another), ``short`` (an
            answer that ends there and says so), ``no_ranges`` (they are ignored).
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    what: str = ""
    at: int = 0
    times: int = 1


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    path: str
    range: str
    authorization: str
    at_cdn: bool


class HubServer:
    """Both hubs and their CDN, on two ports."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.seen: list[Seen] = []
        self.blobs: dict[str, bytes] = {}
        """Contents that were sent, by their SHA-256."""
        self.sent: list[str] = []
        """The same, in the order in which they came, whole."""
        self.commits: list[tuple[str, list[str]]] = []
        """Repository and files of each."""
        self.authorizations: set[str] = set()
        """Of requests that wanted to write."""
        self.held = threading.Event()
        """Set when an answer waits in its middle."""
        self.release = threading.Event()
        self._servers = [self._serve(at_cdn=False), self._serve(at_cdn=True)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def _serve(self, *, at_cdn: bool) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "at_cdn": at_cdn})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self) -> None:
        self.release.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, repo: str, files: dict[str, bytes | Path], **more: Any) -> Repository:
        """Publish a repository."""
        contents = {path: Content(data) for path, data in files.items()}
        self.repositories[repo] = Repository(contents, **more)
        return self.repositories[repo]

    def fault(self, path: str, **what: Any) -> None:
        """Let the next requests for a file go wrong; ``""`` is the listing of the repository."""
        self.faults.setdefault(path, []).append(Fault(**what))

    def next_fault(self, path: str) -> Fault:
        waiting = self.faults.get(path, [])
        if not waiting:
            return Fault()
        fault = waiting[0]
        fault.times -= 1
        if fault.times == 0:
            waiting.pop(0)
        return fault

    def ranges(self, path: str) -> list[str]:
        """The ``Range`` of each request that got an answer for a file's content, "" without one."""
        return [seen.range for seen in self.seen if seen.path == path]

    def environment(self, home: Path) -> dict[str, str]:
        """What makes both clients talk to this server, and to no login of the person who tests."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "MODELSCOPE_ENDPOINT": self.url,
            "MODELSCOPE_HOME": str(home / "modelscope"),
            "NO_PROXY": "127.0.0.1",
            # Its protocol of chunks is between its own library and its own store.
            "HF_HUB_DISABLE_XET": "1",
        }


class _Handler(Uploads, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    at_cdn: bool

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path), parse_qs(address.query)
        routes = (
            (r"/portal/.*", self._portal),
            (r"/cdn/((?:datasets/)?[^/]+/[^/]+)/(.+)", self._from_cdn),
            (r"/api/models", self._hf_search),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._hf_tree),
            (r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", self._hf_info),
            (r"/api/(datasets/[^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", self._hf_tree),
            (r"/api/(datasets/[^/]+/[^/]+?)(?:/revision/(.+))?", self._hf_info),
            (r"/openapi/v1/models", self._ms_search),
            (r"/openapi/v1/models/([^/]+/[^/]+)", self._ms_info),
            (r"/api/v1/models/([^/]+/[^/]+)/repo/files", self._ms_files),
            (r"/api/v1/models/([^/]+/[^/]+)/repo", self._ms_file),
            (r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._hf_file),
        )
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                self.query = {name: values[0] for name, values in query.items()}
                try:
                    answer(*match.groups())
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                return
        self._status(404)

    def _portal(self) -> None:
        self._answer(b"<html>Please log in", "text/html", 200)

    # Hugging Face

    def _hf_search(self) -> None:
        wanted = self.query.get("search", "").lower()
        filters = parse_qs(urlsplit(self.path).query).get("filter", [])
        if self._failed(""):
            return
        found = [
            {
                "id": repo,
                "downloads": model.downloads,
                "likes": 1,
                "lastModified": "2026-05-01T10:00:00.000Z",
                "tags": model.tags,
                "gated": "manual" if model.gated else False,
                "pipeline_tag": "text-generation",
                "safetensors": {"parameters": {"BF16": 4_000_000_000}, "total": 4_000_000_000},
            }
            for repo, model in self.hub.repositories.items()
            if wanted in repo.lower() and set(filters) <= set(model.tags)
        ]
        found.sort(key=lambda model: -int(str(model["downloads"])))
        self._json(found[: int(self.query.get("limit", 100))])

    def _hf_info(self, repo: str, revision: str | None) -> None:
        if self._failed(""):
            return
        model = self.hub.repositories.get(repo)
        if model is None:
            # As the hub does, which does not tell strangers what is private and what is not there.
            self._status(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", COMMIT):
            self._status(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [
                {"rfilename": path, **self._told(model, content)} for path, content in model.files.items()
            ]
            told = {"id": repo, "sha": COMMIT, "siblings": siblings, "gated": model.gated}
            self._json(told | {"private": "private" in model.tags})

    def _hf_tree(self, repo: str, revision: str, folder: str | None = None) -> None:
        model = self.hub.repositories[repo]
        begin = f"{folder}/" if folder else ""
        files = {path: content for path, content in model.files.items() if path.startswith(begin)}
        if not files:
            self._status(404, {"X-Error-Code": "EntryNotFound"})
            return
        self._json(
            [
                {"type": "file", "path": path, "oid": "0" * 40, **self._told(model, content)}
                for path, content in files.items()
            ]
        )

    @staticmethod
    def _told(model: Repository, content: Content) -> dict[str, Any]:
        size = model.told.get("size", content.size)
        if not content.lfs:
            return {"size": size, "blobId": model.told.get("git_sha", content.git_sha)}
        sha256 = model.told.get("sha256", content.sha256)
        lfs = {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 130}
        return {"size": size, "blobId": "0" * 40, "lfs": lfs}

    def _hf_file(self, repo: str, revision: str, path: str) -> None:
        model = self.hub.repositories.get(repo)
        content = model.files.get(path) if model else None
        if model is None or content is None:
            self._status(404, {"X-Error-Code": "EntryNotFound" if model else "RepoNotFound"})
        elif model.gated and not self.headers["Authorization"]:
            self._status(401, {"X-Error-Code": "GatedRepo"})
        else:
            etag = content.sha256 if content.lfs else content.git_sha
            self._content(
                repo,
                path,
                content,
                {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(content.size)},
            )

    # ModelScope

    def _ms_search(self) -> None:
        if self._failed(""):
            return
        wanted = self.query.get("search", "").lower()
        size, number = int(self.query.get("page_size", 10)), int(self.query.get("page_number", 1))
        models = [
            {"id": repo, "downloads": model.downloads, "likes": 1, "tags": model.tags, "gated": model.gated}
            for repo, model in self.hub.repositories.items()
            if wanted in repo.lower()
        ]
        page = models[size * (number - 1) : size * number]
        told = {"models": page, "total_count": len(models), "page_number": number, "page_size": size}
        self._json({"success": True, "data": told})

    def _ms_info(self, repo: str) -> None:
        model = self.hub.repositories[repo]
        told = {"id": repo, "private": "private" in model.tags}
        self._json({"success": True, "data": told})

    def _ms_files(self, repo: str) -> None:
        if self._failed(""):
            return
        model = self.hub.repositories.get(repo)
        if model is None:
            self._json({"Code": 10010205001, "Message": "模型不存在", "Success": False}, status=404)
            return
        files = [
            {
                "Path": path,
                "Name": path.rpartition("/")[2],
                "Type": "blob",
                "Size": model.told.get("size", content.size),
                "Sha256": model.told.get("sha256", content.sha256),
            }
            for path, content in model.files.items()
        ]
        self._json({"Code": 200, "Success": True, "Data": {"Files": files}})

    def _ms_file(self, repo: str) -> None:
        path = self.query["FilePath"]
        model = self.hub.repositories.get(repo)
        content = model.files.get(path) if model else None
        if model is None or content is None:
            self._status(404)
        elif model.gated and not self.headers["Authorization"]:
            self._status(403)
        else:
            self._content(repo, path, content, {})

    # Contents

    def _content(self, repo: str, path: str, content: Content, headers: dict[str, str]) -> None:
        if content.lfs:
            # As both hubs do: large files are elsewhere.
            where = f"{self.hub.cdn_url}/cdn/{repo}/{quote(path)}?Signature=secret"
            self._status(302, {**headers, "Location": where, "X-Linked-ETag": headers.get("ETag", "")})
        else:
            self._send(path, content, headers)

    def _from_cdn(self, repo: str, path: str) -> None:
        content = self.hub.repositories[repo].files[path]
        # On one host with the hub, as here, huggingface_hub looks for the commit behind the redirect.
        self._send(path, content, {"ETag": f'"{content.sha256}"', "X-Repo-Commit": COMMIT})

    def _send(self, path: str, content: Content, headers: dict[str, str]) -> None:
        asked = self.headers.get("Range", "")
        if self.command == "GET":
            self.hub.seen.append(Seen(path, asked, self.headers.get("Authorization", ""), self.at_cdn))
        fault = self.hub.next_fault(path) if self.command == "GET" else Fault()
        if fault.status:
            self._status(fault.status, fault.headers)
            return
        size = fault.at if fault.what == "short" else content.size
        begin = 0
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if match and fault.what != "no_ranges":
            begin = int(match[1])
            if begin >= size:
                self._status(416, {"Content-Range": f"bytes */{size}"})
                return
            end = min(int(match[2] or size - 1), size - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
            size = end + 1
        else:
            self.send_response(200)
        for name, value in ({"Accept-Ranges": "bytes"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        if self.command == "GET":
            self._body(content, begin, size, fault)

    def _body(self, content: Content, begin: int, end: int, fault: Fault) -> None:
        if isinstance(content.data, Path):
            with content.data.open("rb") as file:
                self._from_disk(file, begin, end)
            return
        data = content.data[begin:end]
        if fault.what == "corrupt":
            data = bytes(byte ^ 0xFF for byte in data)
        if fault.what not in ("close", "hold"):
            self.wfile.write(data)
            return
        self.wfile.write(data[: fault.at])
        self.wfile.flush()
        self.close_connection = True
        if fault.what == "hold":
            self.hub.held.set()
            self.hub.release.wait()

    def _from_disk(self, file: BinaryIO, begin: int, end: int) -> None:
        self.wfile.flush()
        while begin < end:
            begin += os.sendfile(self.connection.fileno(), file.fileno(), begin, end - begin)

    def _failed(self, path: str) -> bool:
        fault = self.hub.next_fault(path)
        if fault.what == "hold":
            self.hub.held.set()
            self.hub.release.wait()
        if fault.status:
            self._status(fault.status, fault.headers)
        return bool(fault.status)

    def _json(self, told: object, status: int = 200) -> None:
        self._answer(json.dumps(told).encode(), "application/json", status)

    def _answer(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving() -> Iterator[HubServer]:
    """A server for as long as the context lasts."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()
