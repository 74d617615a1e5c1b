"""Hugging Face, through huggingface_hub; in child processes only."""

from __future__ import annotations

import os

# Questions about a model are nobody else's business: no telemetry with them. Read on import.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from drkun_tui import __version__
from drkun_tui.library.hub.base import HubError, from_status, host_of, public
from drkun_tui.library.hub.parameters import parameters_in
from drkun_tui.library.hub.protocol import Filters, Found, Limits, Listing, RepoFile
from drkun_tui.library.hub.retry import retry_after

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# As `Any`, because versions of the library type it differently.
_ASKED: Any = ["downloads", "likes", "lastModified", "tags", "gated", "pipeline_tag", "safetensors", "gguf"]


class HuggingFace:
    """Endpoint, mirror and token as huggingface_hub takes them: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``.

    Args:
        limits: its times without an answer.
    """

    def __init__(self, limits: Limits) -> None:
        self.token = get_token() or ""
        # The library waits for ever; its client is httpx's or, from version 2 on, httpx2's.
        session: Any = get_session()
        self._http = sys.modules[type(session).__module__.partition(".")[0]]
        session.timeout = self._timeout = self._http.Timeout(limits.stall_s, connect=limits.connect_s)
        # A search says so itself with each request, over the client's own.
        session.event_hooks["request"].append(self._hurry)
        self._api = HfApi(library_name="drkun", library_version=__version__)

    def search(self, query: str, filters: Filters, limit: int) -> list[Found]:
        """Models whose name matches, the most downloaded first."""
        wanted = [name for name in (filters.format, filters.language) if name]
        bounds = [f"{name}:{size}M" for name, size in (("min", filters.least), ("max", filters.most)) if size]
        with self._told(query):
            models = self._api.list_models(
                search=query or None,
                filter=wanted or None,
                pipeline_tag=filters.task or None,
                num_parameters=",".join(bounds) or None,
                sort="downloads",
                limit=limit,
                expand=_ASKED,
            )
            return [_found(model) for model in models]

    def files(self, repo: str, revision: str) -> Listing:
        """All files at the commit that `revision` is now."""
        with self._told(repo):
            info = self._api.model_info(
                repo, revision=revision or None, files_metadata=True, timeout=self._timeout
            )
        files = [
            RepoFile(
                str(file.rfilename),
                int((file.lfs.size if file.lfs else file.size) or 0),
                str((file.lfs.sha256 if file.lfs else file.blob_id) or ""),
            )
            for file in info.siblings or []
        ]
        return Listing(info.sha or revision or "main", files)

    def url(self, repo: str, revision: str, path: str) -> str:
        """Where one file is."""
        return hf_hub_url(repo, path, revision=revision or None)

    def page(self, repo: str) -> str:
        """The model's page, for people."""
        return public(f"{constants.ENDPOINT}/{repo}")

    def headers(self) -> dict[str, str]:
        """What requests for files carry."""
        return build_hf_headers(library_name="drkun", library_version=__version__)

    def _hurry(self, request: Any) -> None:
        asked = request.extensions.get("timeout", {})
        told = {name: limit for name, limit in asked.items() if limit is not None}
        request.extensions["timeout"] = {**self._timeout.as_dict(), **told}

    @contextmanager
    def _told(self, repo: str) -> Iterator[None]:
        """Turns the library's exceptions, and its HTTP client's, into `HubError`."""
        if constants.HF_HUB_OFFLINE:
            raise HubError("offline")
        try:
            yield
        except HfHubHTTPError as error:
            answer = error.response
            raise from_status(
                answer.status_code,
                repo,
                self.page(repo),
                code=answer.headers.get("X-Error-Code", ""),
                after_s=retry_after(answer.headers.get("Retry-After")),
            ) from None
        except HFValidationError:
            raise HubError("bad_repo", repo=repo) from None
        except self._http.TimeoutException:
            raise HubError("stalled", retry=True, host=host_of(constants.ENDPOINT)) from None
        except self._http.TransportError as error:
            raise HubError(
                "unreachable", retry=True, host=host_of(constants.ENDPOINT), reason=type(error).__name__
            ) from None
        except (ValueError, KeyError, TypeError):
            # An answer that is none of the hub's: a login page of a hotel, for example.
            raise HubError("nonsense", host=host_of(constants.ENDPOINT)) from None


def _found(model: ModelInfo) -> Found:
    parameters = model.safetensors.total if model.safetensors else None
    if model.gguf:
        parameters = int(model.gguf.get("total") or 0) or parameters
    return Found(
        hub="hf",
        repo=model.id,
        downloads=model.downloads or 0,
        likes=model.likes or 0,
        updated=model.last_modified.isoformat() if model.last_modified else "",
        tags=list(model.tags or [])[:100],
        task=model.pipeline_tag or "",
        parameters=parameters or parameters_in(model.id),
        gated=bool(model.gated),
    )
