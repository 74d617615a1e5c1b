"""The interface's end of an engine process: load, ask, stop, and survive its death."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from drkun_tui import i18n
from drkun_tui.engine import context, protocol
from drkun_tui.engine.protocol import (
    AdapterSet,
    Cancel,
    Delta,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Loading,
    Ready,
    Score,
    Scored,
    SetAdapter,
    Started,
)
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_MODEL, DrkunError
from drkun_tui.jobs import Job, ended_by

KeyT = TypeVar("KeyT")

HOST = "drkun_tui.engine.host"

_EXIT_CODES = {
    "load_failed": EXIT_NO_MODEL,
    "gpu_packages": EXIT_NO_MODEL,
    "bitsandbytes_missing": EXIT_NO_MODEL,
    "gpu_full": EXIT_NO_MODEL,
    "gpu_full_16_bits": EXIT_NO_MODEL,
    "gpu_full_4_bits": EXIT_NO_MODEL,
    "adapter_failed": EXIT_NO_MODEL,
    "template_broken": EXIT_NO_MODEL,
    "template_refused": EXIT_NO_MODEL,
    "remote_no_model": EXIT_NO_MODEL,
    "remote_which_model": EXIT_NO_MODEL,
    "remote_no_resume": EXIT_BAD_INPUT,
    "prompt_too_long": EXIT_BAD_INPUT,
}


_OUT_OF_MEMORY = ("out of memory", "resource allocation failed")
"""What CUDA, and cuBLAS where it needs its own memory, say before ggml ends the process."""


class Restarting(msgspec.Struct, frozen=True):
    """The engine crashed on this machine while warming up and starts again in safe mode."""


class EngineClient:
    """One engine process at a time, with one model in it.

    Args:
        log: file for what the engine writes to its standard error.
        machine_memory: JSON file of what is learned about this machine, such as that it needs safe mode.
    """

    def __init__(self, log: Path, machine_memory: Path) -> None:
        self._log = log
        self.machine_memory = machine_memory
        """What is learned about this machine."""
        self._job: Job[Event] | None = None
        self._numbers = itertools.count(1)
        self._current: int | None = None
        self._loaded: Load | None = None
        """What was asked for to come where it is; None while that is not known for sure."""
        self._request: Load | None = None
        """What the newest process was started for, whatever has become of it."""
        self.ready: Ready | None = None
        """What is loaded, while the process lives."""

    @property
    def pid(self) -> int | None:
        """Process id of the engine while it runs."""
        return self._job.pid if self._job else None

    @property
    def loaded(self) -> bool:
        """Is there a model that answers?"""
        return self.ready is not None and self._job is not None and self._job.running

    async def load(self, request: Load) -> AsyncIterator[Loading | Restarting | Ready]:
        """End the engine that runs, start another, load the model; the last event is `Ready`.

        Raises:
            DrkunError: the model cannot be loaded, or the engine died.
        """
        # Imported late: the first frame of the screen does not wait for it.
        from drkun_tui.engine import safe_mode

        await self.close()
        if safe_mode.is_needed(self.machine_memory):
            request = msgspec.structs.replace(request, safe_mode=True)
        async for event in self._load_once(request):
            yield event
        if self.ready is None:
            yield Restarting()
            request = msgspec.structs.replace(request, safe_mode=True)
            async for event in self._load_once(request):
                yield event
            safe_mode.remember(self.machine_memory)

    def differs_in_adapter(self, request: Load) -> bool:
        """Is what runs the same as `request` but for the adapter or its scale?"""
        ours = self._loaded
        if ours is None or not self.loaded or ours == request:
            return False
        return request == msgspec.structs.replace(
            ours, adapter=request.adapter, adapter_scale=request.adapter_scale
        )

    async def set_adapter(self, path: str | None, scale: float = 1.0) -> None:
        """Attach this GGUF LoRA in the place of any other, or none; the model stays loaded.

        Raises:
            DrkunError: ``adapter_failed``, and the engine is as it was; or the engine died
                (``engine_died``), or no model is loaded.
        """
        job, ours = self._job, self._loaded
        if job is None or ours is None:
            raise error_of("no_model")
        number = next(self._numbers)
        self._loaded = None
        job.send(protocol.encode(SetAdapter(id=number, path=path, scale=scale)))
        while True:
            event = await job.next_event()
            if event is None:
                raise self._crashed(job)
            if isinstance(event, AdapterSet) and event.id == number:
                self._loaded = msgspec.structs.replace(ours, adapter=path, adapter_scale=scale)
                return
            if isinstance(event, Failed) and event.id == number:
                self._loaded = ours
                raise error_of(event.kind, **event.values)

    async def _load_once(self, request: Load) -> AsyncIterator[Loading | Ready]:
        """As `load`; ends without `Ready` when the engine crashed and safe mode may help."""
        self._job = job = Job(HOST, protocol.decode_event, self._log)
        self._request = request
        try:
            await job.start()
        except OSError as error:
            raise error_of("start_failed", reason=str(error)) from error
        if self._job is not job:
            # Closed while it started.
            await job.close()
        job.send(protocol.encode(request))
        while self.ready is None:
            event = await job.next_event()
            if isinstance(event, Loading):
                yield event
            elif isinstance(event, Ready):
                # Safe mode is the client's own choice, not the caller's wish.
                self.ready, self._loaded = event, msgspec.structs.replace(request, safe_mode=False)
                yield event
            elif isinstance(event, Failed):
                await self.close()
                raise error_of(event.kind, **event.values)
            elif event is None:
                if job.crashed and _has_fast_layouts(request):
                    return
                raise self._died(job, "died_loading")

    async def generate(self, request: Generate) -> AsyncIterator[Started | Delta | Finished]:
        """Ask; the last event is `Finished`. The request's id is set here.

        Raises:
            DrkunError: the prompt does not fit, or the engine died (``kind`` is ``engine_died``).
        """
        # Kept here: `close` may take it away in the middle.
        job = self._job
        if job is None or self.ready is None:
            raise error_of("no_model")
        number = next(self._numbers)
        self._current = number
        job.send(protocol.encode(msgspec.structs.replace(request, id=number)))
        try:
            while True:
                event = await job.next_event()
                if event is None:
                    self._current = None
                    raise self._crashed(job)
                # What was left before its end may still have events in the pipe.
                if isinstance(event, Loading | Ready | AdapterSet | Scored) or event.id != number:
                    continue
                if isinstance(event, Failed | Finished):
                    self._current = None
                if isinstance(event, Failed):
                    raise error_of(event.kind, **event.values)
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            # Nobody wants the rest of an answer that is left before its end.
            if self._current == number:
                job.send(protocol.encode(Cancel(number)))
                self._current = None

    async def many(
        self, requests: Iterator[tuple[KeyT, Generate | Score]]
    ) -> AsyncIterator[tuple[KeyT, Delta | Finished | Scored | Failed]]:
        """Send requests to an engine that was loaded for several at once, as it can take them. One that fails
        alone ends with `Failed`.

        Args:
            requests: each with whatever its events shall come with; ids are set here.

        Raises:
            DrkunError: the engine died (``engine_died``), or no model is loaded.
        """
        job, ours = self._job, self._loaded
        if job is None or ours is None:
            raise error_of("no_model")
        waiting: dict[int, KeyT] = {}
        while True:
            # Twice as many as are answered at once: none of its places waits for the pipe.
            for key, request in itertools.islice(requests, 2 * ours.sequences - len(waiting)):
                number = next(self._numbers)
                waiting[number] = key
                job.send(protocol.encode(msgspec.structs.replace(request, id=number)))
            if not waiting:
                return
            event = await job.next_event()
            if event is None:
                raise self._crashed(job)
            if isinstance(event, Delta | Finished | Scored | Failed) and event.id in waiting:
                yield waiting[event.id], event
                if not isinstance(event, Delta):
                    del waiting[event.id]

    def cancel(self) -> None:
        """Stop the generation that runs, if one does."""
        if self._current is not None and self._job is not None:
            self._job.send(protocol.encode(Cancel(self._current)))

    async def close(self) -> None:
        """Unload by ending the process."""
        job, self._job, self.ready, self._loaded = self._job, None, None, None
        if job is not None:
            await job.close()

    def _crashed(self, job: Job[Event]) -> DrkunError:
        """The engine is gone; remember it if safe mode would have helped."""
        request = self._request
        if job.crashed and self._job is job and self.ready and request and _has_fast_layouts(request):
            from drkun_tui.engine import safe_mode

            safe_mode.remember(self.machine_memory)
        return self._died(job, "engine_died")

    def _died(self, job: Job[Event], kind: str) -> DrkunError:
        if self._job is job:
            self._job, self.ready, self._loaded = None, None, None
            request = self._request
            if request is not None and request.device == "cuda" and _ran_out_of_memory(job):
                length = request.context_length
                return error_of("gpu_out_of_memory", context=length, smaller=context.smaller(length))
        return error_of(kind, how=ended_by(job.exit_code), log=str(self._log))


def _has_fast_layouts(request: Load) -> bool:
    """Only llama.cpp on a CPU has weight layouts that safe mode does without."""
    return request.engine == "llama_cpp" and request.device == "cpu" and not request.safe_mode


def _ran_out_of_memory(job: Job[Event]) -> bool:
    """Did the GPU's memory end it? Whoever kills it did not wait for that."""
    said = job.last_words().lower()
    return ended_by(job.exit_code) != "SIGKILL" and any(words in said for words in _OUT_OF_MEMORY)


def error_of(kind: str, **values: str | int) -> DrkunError:
    """The error that a kind of the catalogue's section ``engine`` is, in the reader's language."""
    hint = f"engine.{kind}_hint"
    return DrkunError(
        kind,
        i18n.t(f"engine.{kind}", **values),
        i18n.t(hint, **values) if i18n.has(hint) else "",
        _EXIT_CODES.get(kind, EXIT_FAILED),
    )
