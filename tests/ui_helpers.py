"""The screen as a person has it: keys go in as a terminal sends them, what is painted comes out as text."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.events import Key
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget
from textual.worker import Worker, WorkerState

from drkun_tui import hardware, llama_build, paths
from drkun_tui.app import DrkunApp
from drkun_tui.consult.conversation import Conversation, State, Turn
from drkun_tui.consult.store import Store
from drkun_tui.engine import safe_mode
from drkun_tui.errors import DrkunError
from drkun_tui.hardware import Gpu
from drkun_tui.profiles import Profile
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.widgets.line_view import LineView
from drkun_tui.ui.widgets.prompt import Prompt
from drkun_tui.ui.widgets.reasoning import ReasoningPane, ReasoningText
from drkun_tui.ui.widgets.transcript import Transcript

PATIENCE_S = 180
"""A test that waits longer has hung."""

GREEDY = Sampling(temperature=0)
RAMBLING = Sampling(temperature=0, repeat_penalty=0.5, max_tokens=0)
"""The bundled model goes round in a circle until the context is full."""

DIZZY = "最近总是头晕，应该怎么办？"


def plainly(**changes: Any) -> Settings:
    """Settings for tests. One thread: two that wait for each other are slow beside other work."""
    return Settings(**{"sampling": GREEDY, "threads": 1, **changes})


class Chat:
    """A program under test."""

    def __init__(self, app: DrkunApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    # What is there

    @property
    def screen(self) -> ConsultScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, ConsultScreen))

    @property
    def prompt(self) -> Prompt:
        return self.screen.query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        return self.screen.query_one(Transcript)

    @property
    def pane(self) -> ReasoningPane:
        return self.screen.query_one(ReasoningPane)

    @property
    def reasoning(self) -> ReasoningText:
        return self.screen.query_one(ReasoningText)

    @property
    def turns(self) -> list[Turn]:
        return self.app.session.conversation.turns

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    @property
    def engine(self) -> int:
        """Process id of the engine."""
        pid = self.app.session.engine.pid
        assert pid is not None
        return pid

    # What is painted

    def rows(self) -> list[str]:
        """The lines of the screen."""
        return painted(self.app)

    def seen(self, what: str | type[Widget] | None = None) -> str:
        """What the screen, or one of its parts, shows, without spaces, line breaks and scrollbars.

        Wrapped Chinese text reads as one piece, so that tests do not depend on where it was wrapped.
        """
        if what is None:
            return _flat(self.rows())
        widget = self.app.screen.query_one(what)
        if not widget.display or not widget.region:
            return ""
        region = widget.region
        strips = self.app.screen._compositor.render_strips()[region.y : region.bottom]
        return _flat([strip.crop(region.x, region.right).text for strip in strips])

    def hints(self) -> str:
        return self.seen("KeyHints")

    def notice(self) -> str:
        return self.seen("Notice")

    def header(self) -> str:
        return self.seen("Header")

    # What a person does

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for a condition; a crash of the program ends the wait at once."""
        began = time.monotonic()
        give_up = began + PATIENCE_S
        while not true():
            assert self.app._exception is None, self.app._exception
            assert time.monotonic() < give_up, "\n".join(["waited in vain; the screen:", *self.rows()])
            # What takes long is given the processor meanwhile.
            await self.pilot.pause(0.005 if time.monotonic() < began + 1 else 0.05)
        await self.settle()

    async def settle(self) -> None:
        """Wait until what was set off has been handled, painted too.

        A key goes from the application to the focused widget, up from there, becomes an action, which
        posts a message, which changes styles: every step is a message behind those before it. Waiting
        until the process idles, as the pilot does, would be long while an answer streams.
        """
        for _ in range(10):
            await self.pilot.pause(0)
        await self.pilot.wait_for_animation()

    async def type(self, text: str) -> None:
        """Type in one burst, as a terminal sends it: ``\\r`` is Enter, ``\\n`` is Ctrl+J."""
        for message in XTermParser().feed(text):
            self._send(message)
        await self.settle()

    async def press(self, *keys: str) -> None:
        """Press keys by name, one after the other."""
        for key in keys:
            self._send(Key(key, key if len(key) == 1 else None))
            await self.settle()

    def _send(self, message: Message) -> None:
        driver = self.app._driver
        assert driver is not None
        driver.send_message(message)

    async def loaded(self) -> None:
        """Wait for the model."""
        await self.until(lambda: self.app.session.engine.loaded)

    async def ask(self, question: str) -> Turn:
        """Ask, and wait for the end of the answer."""
        already = list(self.turns)
        await self.type(question + "\r")
        await self.until(lambda: self.turns and self.last not in already)
        return await self.answered()

    async def answered(self) -> Turn:
        """Wait for the end of the answer that is under way."""
        await self.until(lambda: self.app.session.turn is None and self.last.state is not State.STREAMING)
        await self.until(lambda: self.working() == set())
        return self.last

    async def streaming(self, characters: int = 20) -> Turn:
        """Wait until so much of an answer has come."""
        await self.until(
            lambda: (turn := self.app.session.turn) and len(turn.answer + turn.reasoning) >= characters
        )
        return self.last

    def working(self) -> set[str]:
        """Groups of the workers that run."""
        return {worker.group for worker in self.app.workers if worker.is_running}

    async def scrolled(self, view: LineView) -> None:
        """Wait until a view has come to rest."""
        await self.until(lambda: not self.app.animator.is_being_animated(view, "scroll_y"))


def painted(app: App[Any]) -> list[str]:
    """The lines of the screen that is on top."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def _flat(rows: list[str]) -> str:
    return flat("".join(rows))


def flat(text: str) -> str:
    """A text as `Chat.seen` gives it."""
    return re.sub(r"[\s\u2580-\u259f]+", "", text)


@contextlib.asynccontextmanager
async def chat(
    settings: Settings | None = None,
    *,
    size: tuple[int, int] = (120, 36),
    loaded: bool = True,
    notice: DrkunError | None = None,
    kept: bool = True,
    animated: bool = False,
) -> AsyncIterator[Chat]:
    """Start the program and leave it again. No worker may die in it, no engine may outlive it.

    Args:
        settings: as read from the settings file.
        size: of the terminal.
        loaded: wait until the model answers.
        notice: told at the start.
        kept: changes of the settings are written.
        animated: scroll as a person sees it, which takes its time.
    """
    safe_mode.remember(paths.machine_file())
    settings = plainly() if settings is None else settings
    app = DrkunApp(settings, paths.settings_file() if kept else None, notice)
    if not animated:
        app.animation_level = "none"
    troubles: list[object] = []
    engines: set[int] = set()

    def listen(message: Message) -> None:
        if isinstance(message, Worker.StateChanged) and message.state is WorkerState.ERROR:
            troubles.append((message.worker.name, message.worker.error))
        if pid := app.session.engine.pid:
            engines.add(pid)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    async with app.run_test(size=size, message_hook=listen) as pilot:
        under_test = Chat(app, pilot)
        await under_test.until(lambda: isinstance(app.screen, ConsultScreen))
        if loaded:
            await under_test.loaded()
        yield under_test
        if app._exception is None and not app._exit:
            await app.action_quit()
    assert not troubles
    assert not [pid for pid in engines if is_running(pid)]


def is_running(pid: int) -> bool:
    """Is there such a process, and more than its remains?"""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stored(*turns: tuple[str, str], **fields: Any) -> Conversation:
    """A conversation put into the database: questions and answers, and what their turns have in common."""
    store = Store(paths.database())
    try:
        conversation = store.create_conversation()
        for question, answer in turns:
            turn = Turn(
                0,
                conversation.id,
                question,
                answer=answer,
                **{"state": State.DONE, "created_at": time.time(), "model": "starter", **fields},
            )
            store.add_turn(turn)
        return store.load(conversation.id)
    finally:
        store.close()


def settings_on_disk() -> Settings:
    """What the program would read at its next start."""
    from drkun_tui import settings

    return settings.load(paths.settings_file())


def gguf_folder() -> Path:
    """Where models are put to be found."""
    folder = paths.model_store()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def with_card(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A card of which so much is free, and a llama.cpp that would use it."""
    cards = [Gpu("full", 8 * 1024**3, 0, "nvidia 1", "nvidia", uuid="GPU-0")] if free else []
    cards.append(Gpu("card", 8 * 1024**3, free, "nvidia 1", "nvidia", uuid="GPU-1"))
    here = dataclasses.replace(hardware.read(), gpus=cards)
    monkeypatch.setattr(hardware, "read", lambda: here)
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")


def hold_on_gpu(it: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that answers, as if it held most of the only card with room."""
    session = it.app.session
    assert session.engine.loaded and session.plan is not None
    on_gpu = msgspec.structs.replace(session.plan.load, device="cuda", gpu_layers=9, gpu="GPU-1")
    session.plan = dataclasses.replace(session.plan, load=on_gpu, profile=Profile.GPU16)
    with_card(monkeypatch, 300_000_000)
