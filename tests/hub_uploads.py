"""The upload protocol of both hubs: repositories are made, contents sent to where the hub says, and commits
name them. Faults are those of `tests.hub_server`, for the names of requests below."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from tests.hub_server import HubServer

TOKEN = "hf_a-token-that-may-write"
OWNER = "me"
"""Whose token that is."""

LARGE_FROM = 100_000
"""Bytes from which on a file is sent apart from its commit."""

CREATE, SEND, COMMIT = "!create", "!send", "!commit"
"""Names of requests for `HubServer.fault`."""


class Uploads:
    """The part of the handler that takes contents."""

    hub: HubServer
    headers: Any
    rfile: Any
    command: str
    path: str
    close_connection: bool

    def do_POST(self) -> None:  # noqa: N802  # as the server calls it
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._route(
            body,
            (r"/api/repos/create", self._hf_create),
            (r"/api/validate-yaml", self._hf_validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/[^/]+", self._hf_modes),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._hf_batch),
            (r"/api/models/([^/]+/[^/]+)/commit/[^/]+", self._hf_commit),
            (r"/api/v1/models", self._ms_create),
            (r"/api/v1/repos/models/([^/]+/[^/]+)/info/lfs/objects/batch", self._ms_batch),
            (r"/api/v1/repos/models/([^/]+/[^/]+)/commit/[^/]+", self._ms_commit),
        )

    def do_PUT(self) -> None:  # noqa: N802  # as the server calls it
        size = int(self.headers.get("Content-Length") or 0)
        fault = self.hub.next_fault(SEND)
        if fault.what == "close":
            self.rfile.read(min(fault.at, size))
            self.close_connection = True
            self.connection.close()  # type: ignore[attr-defined]
            return
        if fault.what == "hold":
            self.rfile.read(min(fault.at, size))
            self.hub.held.set()
            self.hub.release.wait()
            self.close_connection = True
            return
        if fault.status:
            self.rfile.read(size)
            self._status(fault.status, fault.headers)
            return
        body = self.rfile.read(size)
        self._route(body, (r"/upload/([0-9a-f]{64})", self._take))

    def _route(self, body: bytes, *routes: tuple[str, Any]) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.authorizations.add(self.headers.get("Authorization", ""))
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                answer(*match.groups(), body)
                return
        self._status(404)

    def _take(self, digest: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            self._status(400)
            return
        self.hub.sent.append(digest)
        self.hub.blobs[digest] = body
        self._json({})

    def _refused(self, name: str, owner: str) -> bool:
        """Is this request refused, by a fault or for want of a right?"""
        if self._failed(name):
            return True
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._status(401)
            return True
        if owner != OWNER:
            self._status(403)
            return True
        return False

    def _put(self, repo: str, files: dict[str, bytes]) -> None:
        from tests.hub_server import Content

        kept = self.hub.repositories[repo].files
        kept |= {path: Content(data) for path, data in files.items()}
        self.hub.commits.append((repo, sorted(files)))

    # Hugging Face

    def _hf_create(self, body: bytes) -> None:
        told = json.loads(body)
        owner, name = told.get("organization") or OWNER, told["name"]
        if self._refused(CREATE, owner):
            return
        repo = f"{owner}/{name}"
        if repo in self.hub.repositories:
            self._json({"error": "You already created this model repo"}, status=409)
            return
        self.hub.add(repo, {}, tags=[told.get("visibility") or "public"])
        self._json({"url": f"{self.hub.url}/{repo}", "id": repo})

    def _hf_validate(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []} if body else {})

    def _hf_modes(self, repo: str, body: bytes) -> None:
        if self._refused("!modes", repo.partition("/")[0]):
            return
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] >= LARGE_FROM else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        )

    def _hf_batch(self, repo: str, body: bytes) -> None:
        if not self._refused("!batch", repo.partition("/")[0]):
            self._json({"transfer": "basic", "objects": self._wanted(body)})

    def _wanted(self, body: bytes) -> list[dict[str, Any]]:
        wanted = []
        for given in json.loads(body)["objects"]:
            told = {"oid": given["oid"], "size": given["size"]}
            if given["oid"] not in self.hub.blobs:
                told["actions"] = {"upload": {"href": f"{self.hub.cdn_url}/upload/{given['oid']}"}}
            wanted.append(told)
        return wanted

    def _hf_commit(self, repo: str, body: bytes) -> None:
        if self._refused(COMMIT, repo.partition("/")[0]):
            return
        files = {}
        for line in body.splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        self._put(repo, files)
        self._json({"success": True, "commitOid": "c" * 40, "commitUrl": f"{self.hub.url}/{repo}/commit/c"})

    # ModelScope

    def _ms_create(self, body: bytes) -> None:
        told = json.loads(body)
        repo = f"{told['Path']}/{told['Name']}"
        if self._refused(CREATE, told["Path"]):
            return
        if repo in self.hub.repositories:
            taken = {"Code": 10020101002, "Message": "repo already exists", "Success": False}
            self._json(taken, status=409)
            return
        self.hub.add(repo, {}, tags=["private" if told["Visibility"] == 1 else "public"])
        self._json({"Code": 200, "Success": True, "Data": {"Path": told["Path"], "Name": told["Name"]}})

    def _ms_batch(self, repo: str, body: bytes) -> None:
        if not self._refused("!batch", repo.partition("/")[0]):
            self._json({"Code": 200, "Success": True, "Data": {"objects": self._wanted(body)}})

    def _ms_commit(self, repo: str, body: bytes) -> None:
        if self._refused(COMMIT, repo.partition("/")[0]):
            return
        files = {}
        for action in json.loads(body)["actions"]:
            lfs = action["type"] == "lfs"
            files[action["path"]] = (
                self.hub.blobs[action["sha256"]] if lfs else base64.b64decode(action["content"])
            )
        self._put(repo, files)
        self._json({"Code": 200, "Success": True, "Data": {"oid": "c" * 40}})

    # Of the handler

    if TYPE_CHECKING:

        def _json(self, told: object, status: int = 200) -> None: ...

        def _status(self, status: int, headers: dict[str, str] | None = None) -> None: ...

        def _failed(self, path: str) -> bool: ...
