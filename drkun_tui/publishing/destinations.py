"""Where models are published: Hugging Face and ModelScope, each through its own client library; in the
uploading process only."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from drkun_tui import __version__
from drkun_tui.library.hub.base import host_of, public
from drkun_tui.library.hub.protocol import HubName
from drkun_tui.publishing.faults import PublishingError

Count = Callable[[int], None]
"""Told of bytes that went out."""


class Destination(Protocol):
    """One hub, with somebody logged in. Its methods wait for the network and raise `PublishingError`."""

    token: str
    """It goes to the hub and nowhere else."""

    def create(self, repo: str, *, private: bool, licence: str) -> None:
        """Make a repository that is not there yet."""
        ...

    def is_private(self, repo: str) -> bool:
        """Is a repository that is there hidden from everybody else? Where the hub does not say: no."""
        ...

    def upload(self, repo: str, folder: Path, tracker: Path) -> None:
        """Send every file of a folder in one commit; what the hub has already is not sent again.

        Where a file breaks off, ModelScope's client commits those that have arrived, and the rest when it
        goes on.

        Args:
            tracker: a file in which the client may remember what it has done.
        """
        ...

    def page(self, repo: str) -> str:
        """The model's page, for people."""
        ...


def connect(hub: HubName, count: Count) -> Destination:
    """The hub of this name.

    Raises:
        PublishingError: ``no_token``.
    """
    made: Destination = HuggingFace(count) if hub == "hf" else ModelScope(count)
    if not made.token:
        raise PublishingError(f"no_token_{hub}")
    return made


def _from_status(status: int, repo: str, host: str, said: str) -> PublishingError:
    kind = {400: "repo_name", 401: "token_refused", 403: "not_allowed", 404: "not_allowed", 409: "repo_taken"}
    kind |= {413: "too_large", 422: "repo_name", 429: "rate_limited"}
    if status in kind:
        return PublishingError(kind[status], repo=repo, host=host, reason=said)
    return PublishingError("hub_error", status=status, host=host, reason=said)


class _Bar:
    """What the clients use of tqdm's bars, to count what goes out."""

    count: Count

    def __init__(self, given: Any = None, *_: Any, unit: str = "", desc: str = "", **__: Any) -> None:
        self._given = given
        # The other bars count files, or the same bytes once more.
        self._counts = unit == "B" and not str(desc).strip().startswith(("New Data", "Validating"))
        self.n, self.total = 0, 0
        self.format_dict: dict[str, Any] = {}

    def update(self, count: int = 1) -> None:
        """So many more."""
        self.n += count
        if self._counts:
            type(self).count(count)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._given)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _counting(count: Count, *modules: str) -> None:
    """Let the bars of these modules count."""
    bar = type("Bar", (_Bar,), {"count": staticmethod(count)})
    for name in modules:
        importlib.import_module(name).tqdm = bar  # type: ignore[attr-defined]


class HuggingFace:
    """Endpoint and token as huggingface_hub takes them: ``HF_ENDPOINT``, ``HF_TOKEN``, its login file."""

    def __init__(self, count: Count) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi, constants, get_session, get_token

        _counting(count, "huggingface_hub.utils.tqdm", "huggingface_hub.utils._xet_progress_reporting")
        self.token = get_token() or ""
        self._endpoint = constants.ENDPOINT
        self._http = sys.modules[type(get_session()).__module__.partition(".")[0]]
        self._api = HfApi(library_name="drkun", library_version=__version__)

    def create(self, repo: str, *, private: bool, licence: str) -> None:
        """See `Destination.create`. The licence is in the card."""
        del licence
        with self._told(repo):
            self._api.create_repo(repo, private=private, exist_ok=False)

    def is_private(self, repo: str) -> bool:
        """See `Destination.is_private`."""
        with self._told(repo):
            return self._api.model_info(repo).private is True

    def upload(self, repo: str, folder: Path, tracker: Path) -> None:
        """See `Destination.upload`. The hub itself knows which contents it has."""
        del tracker
        with self._told(repo):
            self._api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message="Upload with Dr. Kun", ignore_patterns=[]
            )

    def page(self, repo: str) -> str:
        """See `Destination.page`."""
        return public(f"{self._endpoint}/{repo}")

    @contextmanager
    def _told(self, repo: str) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        host = host_of(self._endpoint)
        try:
            yield
        except HFValidationError:
            raise PublishingError("repo_name", repo=repo, host=host, reason="") from None
        except Exception as error:
            # What fails in one of its threads comes as the cause of another error.
            for told in (error, error.__cause__):
                if isinstance(told, HfHubHTTPError):
                    said = str(told.server_message or "")[:200]
                    raise _from_status(told.response.status_code, repo, host, said) from None
                if isinstance(told, self._http.HTTPError | OSError):
                    raise PublishingError("broke_off", host=host, reason=type(told).__name__) from None
            raise PublishingError("hub_nonsense", host=host, reason=type(error).__name__) from None


class ModelScope:
    """Endpoint and token as the SDK takes them: ``MODELSCOPE_ENDPOINT`` or ``MODELSCOPE_DOMAIN``,
    ``MODELSCOPE_API_TOKEN`` or its login file."""

    def __init__(self, count: Count) -> None:
        from modelscope_hub import HubApi
        from modelscope_hub.config import HubConfig

        with warnings.catch_warnings():
            # MODELSCOPE_DOMAIN is old, and what people have set.
            warnings.simplefilter("ignore", FutureWarning)
            config = HubConfig()
        _counting(count, "modelscope_hub._upload")
        # It tells its own retries there, and some lines on standard output.
        logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        self.token = config.token or ""
        self._endpoint = str(config.endpoint)
        self._api = HubApi(config, user_agent=f"drkun/{__version__}")

    def create(self, repo: str, *, private: bool, licence: str) -> None:
        """See `Destination.create`."""
        with self._told(repo):
            self._api.create_repo(
                repo, "model", visibility="private" if private else "public", license=licence
            )

    def is_private(self, repo: str) -> bool:
        """See `Destination.is_private`."""
        from modelscope_hub.constants import Visibility

        with self._told(repo):
            return self._api.get_repo(repo, "model").visibility == Visibility.PRIVATE

    def upload(self, repo: str, folder: Path, tracker: Path) -> None:
        """See `Destination.upload`."""
        with self._told(repo), contextlib.redirect_stdout(io.StringIO()):
            self._api.upload_folder(
                repo, "model", folder, commit_message="Upload with Dr. Kun", tracker_path=tracker,
                use_cache=True,
            )  # fmt: skip

    def page(self, repo: str) -> str:
        """See `Destination.page`."""
        return public(f"{self._endpoint}/models/{repo}")

    @contextmanager
    def _told(self, repo: str) -> Iterator[None]:
        from modelscope_hub import errors

        host = host_of(self._endpoint)
        try:
            yield
        except errors.AlreadyExistsError:
            raise PublishingError("repo_taken", repo=repo, host=host, reason="") from None
        except errors.AuthenticationError:
            raise _from_status(401, repo, host, "") from None
        except (errors.PermissionDeniedError, errors.NotExistError):
            raise _from_status(403, repo, host, "") from None
        except errors.NetworkError as error:
            reason = type(error.__cause__ or error).__name__
            raise PublishingError("broke_off", host=host, reason=reason) from None
        except errors.InvalidParameter as error:
            raise PublishingError("repo_name", repo=repo, host=host, reason=str(error)[:200]) from None
        except errors.APIError as error:
            raise _from_status(error.status_code or 0, repo, host, str(error)[:200]) from None
        except (errors.StorageError, RuntimeError) as error:
            # It has tried for a while, and tells no more than that it has given up.
            raise PublishingError("broke_off", host=host, reason=str(error).partition(".")[0]) from None
        except (errors.HubError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PublishingError("hub_nonsense", host=host, reason=type(error).__name__) from None
