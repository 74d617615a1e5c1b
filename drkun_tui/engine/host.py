"""The engine process: ``python -m drkun_tui.engine.host``.

Reads requests from standard input, writes events to what was standard output. It ends when its
input does, so it never outlives the interface, and ending is how a model is unloaded.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from drkun_tui import hardware
from drkun_tui.engine import protocol
from drkun_tui.engine.base import BatchEngine, Emit, Engine, EngineError, Prompt, Stream
from drkun_tui.engine.protocol import (
    AdapterSet,
    Cancel,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Load,
    Loading,
    Score,
    Scored,
    SetAdapter,
    Started,
    Timings,
    Usage,
)
from drkun_tui.engine.thinking import Kind, Reclassify, Segment, Splitter, opened_by, start_state

FLUSH_S = 0.03
"""Text is sent at most this often: a reader sees no difference, and the pipe costs two per cent."""


def main() -> None:
    """Run until standard input ends."""
    _no_core_dumps()
    host = Host(_take_over_stdout())
    threading.Thread(target=host.read, args=(sys.stdin.buffer,), daemon=True).start()
    host.serve()


Waiting = queue.Queue[Load | Generate | Score | SetAdapter]
"""Requests that nobody has begun with."""


class Host:
    """Runs one engine on the main thread while another thread listens."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._requests: Waiting = queue.Queue()
        self._cancelled: set[int] = set()
        self._engine: Engine | None = None

    def read(self, lines: BinaryIO) -> None:
        """Take requests until the input ends, then end the process, whatever it is doing."""
        try:
            for line in lines:
                request = protocol.decode_request(line)
                if isinstance(request, Cancel):
                    self._cancelled.add(request.id)
                else:
                    self._requests.put(request)
        finally:
            # Also where a request cannot be read: a process that hears nothing would stay for ever.
            os._exit(0)

    def serve(self) -> None:
        """Answer requests one after the other."""
        while True:
            request = self._requests.get()
            try:
                if isinstance(request, Load):
                    self._load(request)
                elif isinstance(request, SetAdapter):
                    self._set_adapter(request)
                elif isinstance(request, Generate):
                    self._generate(request)
                else:
                    raise EngineError("wrong_request")
            except EngineError as error:
                self._failed(request, error)
            except Exception as error:
                traceback.print_exc()
                self._failed(request, EngineError("engine_fault", reason=_reason(error)))
                # Nobody knows what state it is in; a GPU that has failed stays so until the process ends.
                sys.stderr.flush()
                os._exit(1)

    def _failed(self, request: Load | Generate | Score | SetAdapter, error: EngineError) -> None:
        number = None if isinstance(request, Load) else request.id
        self._emit(Failed(kind=error.kind, values=error.values, id=number))

    def _emit(self, event: protocol.Event) -> None:
        self._output.write(protocol.encode(event) + b"\n")
        self._output.flush()

    def _load(self, request: Load) -> None:
        self._emit(Loading("start", 0.0))
        # Before anything of CUDA is imported, which reads it once.
        if request.device == "cpu":
            # A build for the GPU would take some of its memory though no layer goes there.
            os.environ[hardware.VISIBLE] = ""
        elif request.gpu:
            os.environ[hardware.VISIBLE] = request.gpu
        if request.sequences > 1:
            many = _batch_engine(request)
            self._emit(many.load(request, self._emit))
            Many(many, self._requests, self._emit).serve()
        engine = _engine(request)
        self._emit(engine.load(request, self._emit))
        self._engine = engine

    def _set_adapter(self, request: SetAdapter) -> None:
        if self._engine is None:
            raise EngineError("no_model")
        self._engine.set_adapter(request.path, request.scale)
        self._emit(AdapterSet(request.id))

    def _generate(self, request: Generate) -> None:
        if self._engine is None:
            raise EngineError("no_model")
        answer = Answer(request, self._emit)
        prompt = self._engine.prepare(request)
        answer.start(prompt)
        tokens = self._engine.generate(request, prompt, lambda: request.id in self._cancelled)
        finished = answer.finish(answer.stream(tokens))
        self._cancelled.discard(request.id)
        self._emit(finished)
        if finished.finish_reason == "stop":
            # Failing to prepare the next turn is no failure of this one.
            with contextlib.suppress(EngineError):
                self._engine.settle(request, answer.text, lambda: not self._requests.empty())


class Answer:
    """One generation on its way out: split, counted, timed, and sent in few pieces."""

    def __init__(self, request: Generate, emit: Emit) -> None:
        self._request = request
        self._emit = emit
        self._began = time.perf_counter()
        self._first: float | None = None
        self._last_thought = 0.0
        self._flushed = 0.0
        self._thinking = self._answer = ""
        self._reclassify = False
        self._thinking_tokens = self._answer_tokens = 0
        self.text = request.resume.answer if request.resume else ""
        """The whole answer without its reasoning."""

    def start(self, prompt: Prompt) -> None:
        """Send how the prompt was built, and put the splitter where the model stands."""
        self._prompt = prompt
        self._splitter = Splitter(start_state(prompt.opening), opened_by(prompt.opening))
        self._splitter.feed(prompt.carried)
        # What it holds back for now was part of the partial answer already.
        self._splitter.finish()
        self._emit(
            Started(
                id=self._request.id,
                prompt_tokens=prompt.tokens,
                reused_tokens=prompt.reused_tokens,
                dropped_messages=prompt.dropped_messages,
                seed=prompt.seed,
            )
        )

    def stream(self, tokens: Stream) -> FinishReason:
        """Send every token; return why they ended."""
        while True:
            try:
                if (text := next(tokens)) is not None:
                    self.add(text)
            except StopIteration as end:
                reason: FinishReason = end.value
                return reason
            except Exception:
                # What had come is the reader's.
                self._take(self._splitter.finish())
                self._flush(time.perf_counter())
                raise
            now = time.perf_counter()
            if text is None or now - self._flushed >= FLUSH_S:
                self._flush(now)

    def add(self, text: str) -> None:
        """Take one token, to be sent with the next ones."""
        now = time.perf_counter()
        self._first = self._first or now
        self._take(self._splitter.feed(text))
        if self._splitter.thinking:
            self._thinking_tokens += 1
            self._last_thought = now
        else:
            self._answer_tokens += 1

    def finish(self, reason: FinishReason) -> Finished:
        """Send the rest; return the closing event."""
        ended = time.perf_counter()
        self._take(self._splitter.finish())
        self._flush(ended)
        first = self._first or ended
        later_tokens = self._thinking_tokens + self._answer_tokens - 1
        return Finished(
            id=self._request.id,
            finish_reason=reason,
            thinking_truncated=self._splitter.truncated,
            usage=Usage(
                prompt_tokens=self._prompt.tokens,
                thinking_tokens=self._thinking_tokens,
                answer_tokens=self._answer_tokens,
                reused_tokens=self._prompt.reused_tokens,
            ),
            timings=Timings(
                ttft_s=first - self._began,
                decode_tok_s=later_tokens / (ended - first) if later_tokens > 0 else 0.0,
                thinking_s=max(0.0, self._last_thought - first),
            ),
        )

    def _take(self, pieces: list[Segment | Reclassify]) -> None:
        for piece in pieces:
            if isinstance(piece, Reclassify):
                self._reclassify = True
                self._thinking += self._answer
                self._answer = self.text = ""
                self._thinking_tokens += self._answer_tokens
                self._answer_tokens = 0
            elif piece.kind is Kind.THINKING:
                self._thinking += piece.text
            elif piece.kind is Kind.ANSWER:
                self._answer += piece.text
                self.text += piece.text

    def _flush(self, now: float) -> None:
        if self._thinking or self._answer or self._reclassify:
            self._flushed = now
            self._emit(
                Delta(
                    id=self._request.id,
                    thinking=self._thinking,
                    answer=self._answer,
                    reclassify=self._reclassify,
                    thinking_tokens=self._thinking_tokens,
                    answer_tokens=self._answer_tokens,
                )
            )
            self._thinking = self._answer = ""
            self._reclassify = False


class Many:
    """Answers many questions at once, with whichever are there, for as long as the process lives.

    Args:
        engine: loaded.
        requests: where they come in.
        emit: where the events go.
    """

    def __init__(self, engine: BatchEngine, requests: Waiting, emit: Emit) -> None:
        self._engine = engine
        self._requests = requests
        self._emit = emit
        self._answers: dict[int, Answer] = {}

    def serve(self) -> NoReturn:
        """Answer until the process ends."""
        while True:
            self._take()
            try:
                pieces = self._engine.step()
            except EngineError as error:
                for id in self._answers:
                    self._emit(Failed(kind=error.kind, values=error.values, id=id))
                self._answers.clear()
                continue
            for piece in pieces:
                if piece.reason is None:
                    self._answers[piece.id].add(piece.text)
                else:
                    self._emit(self._answers.pop(piece.id).finish(piece.reason))

    def _take(self) -> None:
        """Begin what there is room for; wait where there is nothing else to do."""
        while not self._answers or self._engine.free:
            try:
                request = self._requests.get(block=not self._answers)
            except queue.Empty:
                return
            try:
                self._begin(request)
            except EngineError as error:
                self._emit(Failed(kind=error.kind, values=error.values, id=getattr(request, "id", None)))

    def _begin(self, request: Load | Generate | Score | SetAdapter) -> None:
        if isinstance(request, Score):
            loss, tokens = self._engine.score(request)
            self._emit(Scored(id=request.id, loss=loss, tokens=tokens))
        elif isinstance(request, Generate):
            answer = Answer(request, self._emit)
            answer.start(self._engine.begin(request))
            self._answers[request.id] = answer
        else:
            raise EngineError("wrong_request")


def _engine(request: Load) -> Engine:
    """The engine that `request` names. What is heavy or can crash is imported here, after the first word."""
    with _import_faults(request):
        if request.engine == "transformers":
            from drkun_tui.engine.transformers.engine import Transformers

            return Transformers()
        if request.engine == "openai":
            from drkun_tui.engine.openai import OpenAi

            return OpenAi()
        from drkun_tui.engine.llama_cpp import LlamaCpp

        return LlamaCpp()


def _batch_engine(request: Load) -> BatchEngine:
    """As `_engine`, for many answers at once."""
    with _import_faults(request):
        if request.engine == "transformers":
            from drkun_tui.engine.transformers.batch import TransformersBatch

            return TransformersBatch()
        from drkun_tui.engine.llama_cpp_batch import LlamaCppBatch

        return LlamaCppBatch()


@contextlib.contextmanager
def _import_faults(request: Load) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        kind = "gpu_packages" if request.engine == "transformers" else "engine_missing"
        raise EngineError(kind, reason=_reason(error)) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _take_over_stdout() -> BinaryIO:
    """Keep the pipe for events alone: whatever a native library prints goes to standard error."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return events


def _no_core_dumps() -> None:
    # A crash here is expected on some machines and handled; it must not fill the user's disk.
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
