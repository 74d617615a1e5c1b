"""ModelScope, through modelscope-hub, the hub client of its SDK; in child processes only."""

from __future__ import annotations

import datetime
import logging
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from modelscope_hub import HubApi, errors
from modelscope_hub.config import HubConfig
from modelscope_hub.types import RepoInfo
from requests.adapters import HTTPAdapter

from drkun_tui import __version__
from drkun_tui.library.hub.base import HubError, from_status, host_of, public
from drkun_tui.library.hub.parameters import parameters_in
from drkun_tui.library.hub.protocol import Filters, Found, Limits, Listing, RepoFile

BRANCH = "master"
"""The default branch."""

_PAGE, _PAGES = 50, 6
"""Results of one request, and most requests of one search."""


class ModelScope:
    """Endpoint and token as the SDK takes them: ``MODELSCOPE_ENDPOINT`` or ``MODELSCOPE_DOMAIN``,
    ``MODELSCOPE_API_TOKEN`` or the login file below ``MODELSCOPE_HOME``.

    The SDK tells no commit for a branch, so a listing keeps the name that it was asked for.
    """

    def __init__(self, limits: Limits) -> None:
        with warnings.catch_warnings():
            # MODELSCOPE_DOMAIN is old, and what people have set.
            warnings.simplefilter("ignore", FutureWarning)
            self._config = HubConfig()
        self.token = self._config.token or ""
        # It reports its own retries there, in words that nobody asked for.
        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        self._api = HubApi(self._config, user_agent=f"drkun/{__version__}")
        _let_us_wait(self._api)
        self._limits = limits

    def search(self, query: str, filters: Filters, limit: int) -> list[Found]:
        """Models whose name matches, the most downloaded first. The hub itself filters by task only."""
        found: list[Found] = []
        for number in range(1, _PAGES + 1):
            with self._told(query):
                page = self._api.list_repos(
                    "model",
                    search=query or None,
                    sort="downloads",
                    page_number=number,
                    page_size=_PAGE,
                    task=filters.task or None,
                )
            each = [_found(info) for info in page.items]
            found += [model for model in each if _passes(model, filters)]
            if len(found) >= limit or not page.has_next:
                break
        return found[:limit]

    def files(self, repo: str, revision: str) -> Listing:
        """All files at `revision`."""
        revision = revision or BRANCH
        with self._told(repo):
            files = self._api.list_repo_files(repo, "model", revision=revision)
        return Listing(
            revision,
            [RepoFile(file.path, file.size, file.sha256 or "") for file in files if not file.is_dir],
        )

    def url(self, repo: str, revision: str, path: str) -> str:
        """Where one file is."""
        return self._api.legacy.get_download_url(repo, "model", path, revision or BRANCH)

    def page(self, repo: str) -> str:
        """The model's page, for people."""
        return public(f"{self._config.endpoint}/models/{repo}")

    def headers(self) -> dict[str, str]:
        """What requests for files carry. One identifier for a whole download is counted as one."""
        headers = {"User-Agent": f"drkun/{__version__}", "Snapshot-Identifier": uuid.uuid4().hex}
        return headers | ({"Authorization": f"Bearer {self.token}"} if self.token else {})

    @contextmanager
    def _told(self, repo: str) -> Iterator[None]:
        """Turns the SDK's exceptions into `HubError`."""
        host = host_of(str(self._config.endpoint))
        try:
            yield
        except errors.RequestTimeoutError:
            raise HubError("stalled", retry=True, host=host) from None
        except errors.NetworkError as error:
            cause = error.__cause__ or error
            raise HubError("unreachable", retry=True, host=host, reason=type(cause).__name__) from None
        except errors.NotExistError:
            raise from_status(404, repo, self.page(repo)) from None
        except errors.AuthenticationError:
            raise from_status(401, repo, self.page(repo)) from None
        except errors.PermissionDeniedError:
            raise from_status(403, repo, self.page(repo)) from None
        except errors.APIError as error:
            after = getattr(error, "retry_after", None)
            raise from_status(error.status_code or 0, repo, self.page(repo), after_s=after) from None
        except (errors.HubError, ValueError, KeyError, TypeError, AttributeError):
            raise HubError("nonsense", host=host) from None


def _let_us_wait(api: HubApi) -> None:
    """The SDK sleeps in silence for as long as a server asks it to, an hour if that is what it says, and has
    no setting against that. What waits here tells, and can be stopped (`retry.Backoff`)."""
    session = api.legacy._session
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=0))
    api.openapi._max_retries = 1


def _found(info: RepoInfo) -> Found:
    repo = str(info.repo_id or "")
    tags = [str(tag) for tag in info.tags or []][:100]
    updated = info.last_modified
    return Found(
        hub="modelscope",
        repo=repo,
        downloads=info.downloads or 0,
        likes=info.likes or 0,
        updated=updated.isoformat() if isinstance(updated, datetime.datetime) else str(updated or ""),
        tags=tags,
        task=str((info.tasks or [""])[0]),
        parameters=parameters_in(repo),
        gated=bool(info.gated or info.login_required),
    )


def _passes(model: Found, filters: Filters) -> bool:
    tags = {tag.lower().rpartition(":")[2] for tag in model.tags}
    if filters.format and filters.format not in tags and filters.format not in model.repo.lower():
        return False
    if filters.language and filters.language.lower() not in tags:
        return False
    millions = (model.parameters or 0) / 1e6
    if filters.least and millions < filters.least:
        return False
    return not (filters.most and (not millions or millions > filters.most))
