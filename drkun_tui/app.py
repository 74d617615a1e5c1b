"""The Textual application: its places, its settings, and the one engine behind them."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from textual import work
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.screen import Screen
from textual.theme import ThemeProvider

from drkun_tui import i18n, paths
from drkun_tui import settings as settings_file
from drkun_tui.consult import safety
from drkun_tui.consult.session import Session
from drkun_tui.consult.store import Store
from drkun_tui.engine.client import EngineClient, Restarting
from drkun_tui.engine.protocol import Loading, Ready
from drkun_tui.errors import EXIT_FAILED, DrkunError
from drkun_tui.i18n import t
from drkun_tui.settings import Settings
from drkun_tui.ui import terminal, theme
from drkun_tui.ui.evaluation_watch import EvaluationWatch
from drkun_tui.ui.fetching import Fetching
from drkun_tui.ui.progress import loading_text
from drkun_tui.ui.publishing_watch import PublishingWatch
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.training_watch import TrainingWatch
from drkun_tui.ui.typeset.markdown import render_block
from drkun_tui.ui.widgets.header import Header
from drkun_tui.ui.widgets.key_hints import KeyHints
from drkun_tui.ui.widgets.notice import Notice
from drkun_tui.ui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from drkun_tui.hardware import GpuUse
    from drkun_tui.library.plan import Plan

SWITCH_S = 0.0005
"""How long a thread that computes, such as a scan, keeps the interpreter from the one that draws. That one
asks for it again after every wait, a dozen times for one key, so Python's 5 ms add up to what is felt."""

GPU_EVERY_S = 1.0
"""How often the GPU is looked at while a model is on it."""

TERMINAL_EVERY_S = 1.0
"""How often it is looked whether the terminal is still there."""

LEAVE_S = 2.0
"""What the workers get to end when the program is left."""


class DrkunApp(Fetching, TrainingWatch, PublishingWatch, EvaluationWatch):
    """See the module.

    Args:
        settings: as read from `settings_path`.
        settings_path: where changes are written.
        notice: something to tell at the start, e.g. that the settings file is wrong.
        debug: a mistake in the program ends it with a traceback, not with one line.
    """

    TITLE = "Dr. Kun"
    CSS_PATH = [  # noqa: RUF012  # typed by Textual
        paths.PACKAGE / "ui" / "styles" / f"{name}.tcss" for name in ("base", "consult", "dialogs")
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "go('consult')", "keys.go_consult", id="app.consult", show=False),
        Binding("f3", "go('models')", "keys.go_models", id="app.models", priority=True),
        Binding("f4", "go('training')", "keys.go_training", id="app.training", priority=True),
        Binding("f5", "go('compare')", "keys.go_compare", id="app.compare", priority=True),
        Binding("f9", "choose_profile", "keys.profile", id="app.profile", show=False),
        Binding("f12", "guide", "keys.guide", id="app.guide", show=False),
        Binding("f6", "go('settings')", "keys.go_settings", id="app.settings", priority=True),
        Binding("ctrl+p", "command_palette", "keys.palette", id="app.palette", priority=True),
        Binding("f1", "help", "keys.help", id="app.help", priority=True),
        Binding("ctrl+q", "quit", "keys.quit", id="app.quit", show=False, priority=True),
    ]

    def __init__(
        self,
        settings: Settings,
        settings_path: Path | None = None,
        notice: DrkunError | None = None,
        *,
        debug: bool = True,
    ) -> None:
        super().__init__()
        self.mistake: Exception | None = None
        """What ended the program, if it was none of its users."""
        self._tracebacks = debug
        self.settings = settings
        self._settings_path = settings_path
        self._notice = notice
        self.store = self._open_store()
        self.session = Session(self.store, EngineClient(paths.engine_log(), paths.machine_file()))
        self.gpu_now: GpuUse | None = None
        """What the GPU does, while a model is on it."""
        self.planned = asyncio.Event()
        """It is known which model answers, or that none can."""

    def _open_store(self) -> Store:
        try:
            return Store(paths.database())
        except DrkunError as error:
            # One can still ask; only nothing is kept, and that is said.
            self._notice = DrkunError(error.kind, error.message, t("consult.not_kept"))
            return Store(":memory:")

    def on_mount(self) -> None:
        """Paint first, load after."""
        self.register_theme(theme.DARK)
        self.register_theme(theme.LIGHT)
        self.theme = self.settings.theme if self.settings.theme in self.available_themes else theme.DARK.name
        self.theme_changed_signal.subscribe(self, lambda new: self.change_settings(theme=new.name))
        self.set_keymap(self.settings.keys)
        self.push_screen(ConsultScreen(self.session))
        self.call_after_refresh(self._after_first_paint)
        if not self.is_headless:
            self.set_interval(TERMINAL_EVERY_S, self._leave_without_terminal)

    def _after_first_paint(self) -> None:
        gc.freeze()
        gc.enable()
        if self._notice is not None:
            self._fail(self._notice)
        self.load_model()
        self.watch_downloads()
        self.watch_runs()
        self.watch_publishing()
        self.watch_evaluations()
        self.run_worker(_warm_up, thread=True)

    # Settings

    def change_settings(self, **changes: Any) -> None:
        """Change settings and keep them; a disk that cannot be written is told, the change holds."""
        if "model" in changes and self.settings.profile == "remote":
            # Whoever chooses a model that is here wants it to answer.
            changes = {"profile": "auto", **changes}
        changed = msgspec.structs.replace(self.settings, **changes)
        if changed == self.settings:
            return
        self.settings = changed
        if self._settings_path is None:
            return
        try:
            settings_file.save(changed, self._settings_path)
        except DrkunError as error:
            self._fail(error)

    def change_language(self, language: str) -> None:
        """Show everything in another language; not while an answer is being shown."""
        if self.session.turn is not None:
            self.action_go("consult")
            self._say(t("consult.busy"))
            return
        self.change_settings(language=language)
        i18n.set_language(language)
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.push_screen(ConsultScreen(self.session))

    # The model

    @work(group="load", exclusive=True)
    async def load_model(self) -> None:
        """Load the model that the settings name, showing how far it is."""
        # Imported late: the first frame does not wait for it.
        from drkun_tui.library.plan import plan_load
        from drkun_tui.ui import room

        session = self.session
        try:
            if not session.engine.loaded and session.turn is None:
                # One that was still loading; how much memory it has taken by now is not known.
                await session.engine.close()
            loaded = session.plan if session.engine.loaded else None
            machine = await asyncio.to_thread(room.machine, session)
            plan = await asyncio.to_thread(
                plan_load, self.settings, fall_back=True, machine=machine, loaded=loaded
            )
            self._tell(plan)
            if plan.load.device == "cuda":
                self.watch_gpu()
            async for event in session.load(plan):
                self.planned.set()
                self.show_loading(event)
        except DrkunError as error:
            self._fail(error)
        finally:
            self.show_loading(None)
            self.planned.set()
            self.look_for_guide()

    @work(group="gpu", exclusive=True)
    async def watch_gpu(self) -> None:
        """Show the memory and load of the GPU that the model is on, as long as it is."""
        from drkun_tui import hardware

        while (plan := self.session.plan) is not None and plan.load.device == "cuda":
            self.gpu_now = await asyncio.to_thread(hardware.gpu_use, plan.load.gpu)
            if (screen := self._consult_screen()) is not None:
                screen.refresh_status()
            await asyncio.sleep(GPU_EVERY_S)
        self.gpu_now = None

    def _tell(self, plan: Plan) -> None:
        if plan.notice:
            self._say(plan.notice)

    def show_loading(self, event: Loading | Restarting | Ready | None) -> None:
        """Show the progress of a load; None when it has come to its end."""
        if (screen := self._consult_screen()) is None:
            return
        if isinstance(event, Restarting):
            screen.query_one(Notice).say(t("engine.safe_mode"))
        elif isinstance(event, Loading):
            screen.show_progress(loading_text(event))
        else:
            screen.show_progress("")
            if event is not None and not event.has_template:
                screen.query_one(Notice).say(t("engine.no_template"), "warning")
            if event is not None and event.cpu_layers:
                screen.query_one(Notice).say(t("engine.cpu_layers", layers=event.cpu_layers))
            if event is not None and event.not_fused:
                screen.query_one(Notice).say(t("engine.not_fused", reason=event.not_fused), "warning")

    @work(group="profile", exclusive=True)
    async def action_choose_profile(self) -> None:
        """Choose how the model is loaded; what cannot be chosen says why."""
        from drkun_tui import hardware, profiles
        from drkun_tui.ui.screens.choose import Choice, Choose

        machine = await asyncio.to_thread(hardware.read)
        choices = []
        for profile in profiles.Profile:
            possible, reason = profiles.availability(profile, machine, self.settings)
            choices.append(Choice(str(profile), (t(f"profile.{profile}"), reason), possible))
        plan = self.session.plan
        current = str(self.settings.profile)
        chosen = await self.push_screen_wait(
            Choose(t("models.profiles"), choices, current, hint=plan.reason if plan else "")
        )
        if chosen and chosen != current:
            if self.session.turn is not None:
                self._say(t("consult.busy"))
                return
            self.change_settings(profile=chosen)
            self.load_model()

    # Places

    def action_go(self, place: str) -> None:
        """Go to one of the places; imported when first wanted."""
        while not isinstance(self.screen, ConsultScreen):
            self.pop_screen()
        if place == "consult":
            # Wherever the focus was when one went away: who comes to consult comes to type.
            self.screen.query_one(Prompt).focus()
        elif place == "models":
            from drkun_tui.ui.screens.models import ModelsScreen

            self.push_screen(ModelsScreen())
        elif place == "training":
            from drkun_tui.ui.screens.training import TrainingScreen

            self.push_screen(TrainingScreen())
        elif place == "compare":
            from drkun_tui.ui.screens.compare import CompareScreen

            self.push_screen(CompareScreen())
        elif place == "settings":
            from drkun_tui.ui.screens.settings import SettingsScreen

            self.push_screen(SettingsScreen())

    def action_help(self) -> None:
        """Every key and what it does; the same key closes it."""
        from drkun_tui.ui.screens.help import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        else:
            self.push_screen(HelpScreen(self.screen))

    def on_header_went(self, event: Header.Went) -> None:
        """A place was clicked in the top line."""
        self.action_go(event.place)

    def on_key_hints_pressed(self, event: KeyHints.Pressed) -> None:
        """A key was clicked in the bottom line."""
        self.simulate_key(event.key)

    def action_command_palette(self) -> None:
        """Every action by name."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder=t("keys.palette_help")))

    def search_themes(self) -> None:
        """Every theme by name."""
        self.push_screen(CommandPalette([ThemeProvider], placeholder=t("keys.theme_help")))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action of the screen, by name; then the languages, the themes, and export."""
        seen = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.id and active.enabled and binding.action not in seen:
                seen.add(binding.action)
                name = t(binding.description)
                yield SystemCommand(name, t(f"{binding.description}_help"), self._runner(binding.action))
        for language, name in i18n.LANGUAGES.items():
            change = partial(self.change_language, language)
            yield SystemCommand(name, t("keys.language_help"), change)
        yield SystemCommand(t("keys.theme"), t("keys.theme_help"), self.action_change_theme)
        if self.session.conversation.turns:
            yield SystemCommand(t("keys.export"), t("keys.export_help"), partial(self.export, "md"))
            as_json = partial(self.export, "json")
            yield SystemCommand(t("keys.export_json"), t("keys.export_json_help"), as_json)

    def _runner(self, action: str) -> Any:
        async def run() -> None:
            await self.screen.run_action(action)

        return run

    def export(self, form: Literal["md", "json"]) -> None:
        """Write the conversation into the current folder, as Markdown or JSON."""
        from drkun_tui.consult import export

        conversation = self.session.conversation
        path = Path.cwd() / f"drkun-{conversation.id}.{form}"
        text = export.to_markdown(conversation) if form == "md" else export.to_json(conversation)
        try:
            export.write(path, text)
        except DrkunError as error:
            self._fail(error)
        else:
            self._say(t("consult.exported", path=str(path)))

    def _handle_exception(self, error: Exception) -> None:
        if self._tracebacks:
            super()._handle_exception(error)
        elif self.mistake is None:
            self.mistake = error
            self.exit(return_code=EXIT_FAILED)

    async def action_quit(self) -> None:
        """Keep what has come, unload the model, leave."""
        await self.session.close()
        await self._end_workers()
        self.exit()

    async def _end_workers(self) -> None:
        """Let them close their child processes while there still is an event loop to do it in."""
        workers = [worker for worker in self.workers if not worker.is_finished]
        for worker in workers:
            worker.cancel()
        waiting = [asyncio.ensure_future(worker.wait()) for worker in workers]
        if waiting:
            await asyncio.wait(waiting, timeout=LEAVE_S)
        for ended in waiting:
            ended.cancelled() or (ended.done() and ended.exception())

    async def _leave_without_terminal(self) -> None:
        """Nobody is there any more; what has come is kept."""
        if terminal.is_gone():
            await self.action_quit()

    async def on_unmount(self) -> None:
        """The terminal may also go away."""
        await self.session.close()
        self.store.close()


def _warm_up() -> None:
    """Import and compile now what the first question would otherwise wait for."""
    render_block("**", 80)
    safety.red_flags("-")


def run(
    settings: Settings, settings_path: Path | None, notice: DrkunError | None = None, *, debug: bool = False
) -> int:
    """Show the application until it is left; the exit code.

    Raises:
        DrkunError: ``internal``, a mistake in the program ended it; every answer so far is kept.
    """
    app = DrkunApp(settings, settings_path, notice, debug=debug)
    sys.setswitchinterval(SWITCH_S)
    app.run()
    if app.mistake is not None:
        reason = f"{type(app.mistake).__name__}: {app.mistake}"
        raise DrkunError("internal", t("error.internal", reason=reason), t("error.internal_hint"))
    return app.return_code or 0
