"""An engine that holds no model: a server that speaks OpenAI's chat API (llama.cpp, vLLM, Ollama, …).

What is asked for beyond OpenAI's own fields (top-k, repeat penalty, whether to think) is left out for a
server that refuses it. A chunk of the stream counts as a token, which it is for the servers above.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3

from drkun_tui import paths, remote, settings
from drkun_tui.engine.base import Emit, EngineError, Prompt, Stopping, Stream
from drkun_tui.engine.protocol import FinishReason, Generate, Load, Ready
from drkun_tui.engine.thinking import XML_SPELLINGS
from drkun_tui.errors import DrkunError

CONNECT_S = 10.0
SILENCE_S = 300.0
"""Without a byte; a long prompt takes a slow server minutes."""

POLL_S = 0.05
"""How often it is looked whether the answer is still wanted."""

LINE_LIMIT = 1 << 20
"""Bytes of the longest line that is read."""

LIST_LIMIT = 1 << 24
"""Bytes of a list of models."""

_OPEN, _CLOSE = XML_SPELLINGS[0].open, XML_SPELLINGS[0].close
_REFUSES_FIELDS = (400, 422)


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    """vLLM's context length."""
    meta: dict[str, Any] | None = None
    """llama.cpp's, with ``n_ctx``."""


class _Models(msgspec.Struct):
    data: list[_Model]


class _Text(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    """llama.cpp, vLLM, DeepSeek."""
    reasoning: str | None = None
    """Ollama, and newer vLLM."""


class _Choice(msgspec.Struct):
    delta: _Text = msgspec.field(default_factory=_Text)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_models = msgspec.json.Decoder(_Models).decode


class OpenAi:
    """See `drkun_tui.engine.base.Engine`."""

    def load(self, request: Load, emit: Emit) -> Ready:  # noqa: ARG002  # nothing takes long enough to tell
        """Ask the server for its models; see `Engine.load`."""
        began = time.perf_counter()
        self._url = request.path
        self._host = urlsplit(self._url).netloc
        self._key = _key()
        self._plain = False
        """Only OpenAI's own fields; this server has refused others."""
        known = self._models()
        ids = [model.id for model in known]
        self._model = request.model or (ids[0] if ids else "")
        if not self._model:
            raise EngineError("remote_which_model", host=self._host)
        # Ollama answers to a name without its tag, too.
        if ids and not {self._model, f"{self._model}:latest"} & {*ids}:
            shown = ", ".join(ids[:5])
            raise EngineError("remote_no_model", host=self._host, model=self._model, known=shown[:200])
        context = next((_context(model) for model in known if model.id == self._model), 0)
        return Ready(
            engine="openai",
            architecture=self._model,
            parameters=0,
            size_bytes=0,
            context_length=context,
            threads=0,
            load_s=time.perf_counter() - began,
            safe_mode=False,
            has_template=True,
            can_toggle_thinking=True,
        )

    def set_adapter(self, path: str | None, scale: float) -> None:  # noqa: ARG002
        """See `Engine.set_adapter`; a server's model is as it is."""
        if path is not None:
            raise EngineError("remote_no_adapter", host=self._host)

    def prepare(self, request: Generate) -> Prompt:
        """See `Engine.prepare`; the server renders the prompt itself and tells its length in the end."""
        if request.resume is not None:
            raise EngineError("remote_no_resume", host=self._host)
        seed = request.sampling.seed
        return Prompt("", "", 0, 0, 0, random.getrandbits(31) if seed is None else seed)

    def generate(self, request: Generate, prompt: Prompt, stopping: Stopping) -> Stream:
        """See `Engine.generate`."""
        stream = _Stream(partial(self._ask, request, prompt.seed), self._broken)
        reason: FinishReason | None = None
        reasoning = False
        try:
            for line in stream.lines(stopping):
                if line is None:
                    yield None
                    continue
                if (chunk := self._chunk(line)) is None:
                    break
                if chunk.usage is not None:
                    prompt.tokens = chunk.usage.prompt_tokens
                    prompt.reused_tokens = _cached(chunk.usage)
                for choice in chunk.choices[:1]:
                    # Told apart by the server; put together again, so that one place splits all models' text.
                    if thought := choice.delta.reasoning_content or choice.delta.reasoning:
                        yield thought if reasoning else f"{_OPEN}\n{thought}"
                        reasoning = True
                    if text := choice.delta.content:
                        yield f"\n{_CLOSE}\n{text}" if reasoning else text
                        reasoning = False
                    if choice.finish_reason:
                        reason = "length" if choice.finish_reason == "length" else "stop"
            if stopping():
                return "cancelled"
            if reason is None:
                raise EngineError("remote_broke_off", host=self._host)
            return reason
        finally:
            stream.close()

    def settle(self, request: Generate, answer: str, stopping: Stopping) -> None:
        """See `Engine.settle`; the server's own business."""

    def _chunk(self, line: bytes) -> _Chunk | None:
        """What a line of the stream says; nothing where it says nothing, None at the end."""
        name, _, data = line.partition(b":")
        data = data.strip()
        if data == b"[DONE]":
            return None
        if name not in (b"data", b"error") or not data:
            return _Chunk()
        try:
            chunk = _decode_chunk(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise EngineError("remote_garbage", host=self._host) from None
        if chunk.error is not None or name == b"error":
            raise EngineError("remote_failed", host=self._host, reason=self._told(data))
        return chunk

    # HTTP

    def _models(self) -> list[_Model]:
        """The server's list; empty where it keeps none."""
        try:
            with self._send("GET", "models") as response:
                if response.status_code == 404:
                    return []
                self._ensure_good(response)
                return _decode_models(response.raw.read(LIST_LIMIT)).data
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise EngineError("remote_garbage", host=self._host) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._broken(error) from error

    def _ask(self, request: Generate, seed: int) -> requests.Response:
        """The answer's stream, its beginning at least."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": msgspec.to_builtins(request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        if sampling.max_tokens:
            body["max_tokens"] = sampling.max_tokens
        # llama.cpp and vLLM call the penalty differently, and both pass over what they do not know.
        more: dict[str, Any] = {
            "top_k": sampling.top_k,
            "repeat_penalty": sampling.repeat_penalty,
            "repetition_penalty": sampling.repeat_penalty,
            "chat_template_kwargs": {"enable_thinking": request.think},
        }
        response = self._send("POST", "chat/completions", body if self._plain else body | more)
        if response.status_code in _REFUSES_FIELDS and not self._plain:
            response.close()
            response = self._send("POST", "chat/completions", body)
            self._plain = response.ok
        self._ensure_good(response)
        return response

    def _send(self, method: str, name: str, body: dict[str, Any] | None = None) -> requests.Response:
        with requests.Session() as session:
            # A proxy is for what is elsewhere.
            session.trust_env = not _local(self._url)
            return session.request(
                method,
                f"{self._url}/{name}",
                json=body,
                # Given as a function, or the password of a .netrc would be sent in the key's place.
                auth=self._authorise,
                headers={"Accept-Encoding": "identity"},
                stream=True,
                timeout=(CONNECT_S, SILENCE_S),
                # The reader was told one host; the question goes to no other.
                allow_redirects=False,
            )

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _ensure_good(self, response: requests.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in (401, 403):
            raise EngineError("remote_refused", host=self._host, status=status)
        if 300 <= status < 400:
            raise EngineError("remote_moved", host=self._host, status=status)
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if told := self._told(response.raw.read(LINE_LIMIT)):
                raise EngineError("remote_failed", host=self._host, reason=f"{status}, {told}")
        raise EngineError("remote_failed", host=self._host, reason=str(status))

    def _told(self, raw: bytes) -> str:
        """A server's own words on one line; some repeat the key in them."""
        try:
            told = msgspec.json.decode(raw)
            while isinstance(told, dict):
                told = next((told[name] for name in ("error", "message", "detail") if name in told), "")
            text = str(told)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            text = ""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:200]

    def _broken(self, error: Exception) -> EngineError:
        if isinstance(error, EngineError):
            return error
        if isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError):
            return EngineError("remote_silent", host=self._host, seconds=round(SILENCE_S))
        if isinstance(error, requests.ConnectTimeout):
            return EngineError("remote_unreachable", host=self._host, reason=f"> {CONNECT_S:.0f} s")
        if isinstance(error, requests.ConnectionError):
            return EngineError("remote_unreachable", host=self._host, reason=_cause(error))
        return EngineError("remote_broke_off", host=self._host)


class _Stream:
    """The lines of an answer, read by a thread of its own: reading blocks, and a cancel must not wait.

    Args:
        ask: sends the question, and gives what comes back.
        broken: what a failure on the way is called.
    """

    def __init__(
        self, ask: Callable[[], requests.Response], broken: Callable[[Exception], EngineError]
    ) -> None:
        self._ask, self._broken = ask, broken
        self._came: queue.SimpleQueue[bytes | EngineError | None] = queue.SimpleQueue()
        self._response: requests.Response | None = None
        self._unwanted = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def lines(self, stopping: Stopping) -> Iterator[bytes | None]:
        """Each line as it comes, None while none comes, until the end or until `stopping`."""
        while not stopping():
            try:
                line = self._came.get(timeout=POLL_S)
            except queue.Empty:
                yield None
                continue
            if isinstance(line, EngineError):
                raise line
            if line is None:
                return
            yield line

    def close(self) -> None:
        """End the connection, by which a server learns that nobody listens."""
        self._unwanted.set()
        if self._response is not None:
            with contextlib.suppress(ValueError, OSError):
                # Closing would wait for the thread that reads.
                self._response.raw.shutdown()

    def _read(self) -> None:
        try:
            with self._ask() as self._response:
                rest = b""
                while not self._unwanted.is_set():
                    # What is there, not what would fill a buffer.
                    if not (piece := self._response.raw.read1(LINE_LIMIT)):
                        break
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._came.put(line)
                    if len(rest) > LINE_LIMIT:
                        raise urllib3.exceptions.ProtocolError
            self._came.put(None)
        except (EngineError, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._came.put(self._broken(error))


def _key() -> str:
    try:
        return remote.key(settings.load(paths.settings_file()))
    except DrkunError:
        # A broken file is told where it is read for its own sake.
        return remote.key(settings.Settings())


def _local(url: str) -> bool:
    server = remote.server(settings.Settings(remote_url=url))
    return server is not None and server.local


def _context(model: _Model) -> int:
    told = model.max_model_len or (model.meta or {}).get("n_ctx")
    return told if isinstance(told, int) else 0


def _cached(usage: _Usage) -> int:
    told = (usage.prompt_tokens_details or {}).get("cached_tokens")
    return told if isinstance(told, int) else 0


def _cause(error: BaseException) -> str:
    """The system's word for it, at the end of what the libraries wrap around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    reason = error.strerror if isinstance(error, OSError) else None
    return " ".join((reason or type(error).__name__).split())[:200]
