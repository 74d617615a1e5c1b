"""The bottom line: the keys that matter here, as they are bound now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import RenderResult
from textual.binding import ActiveBinding
from textual.message import Message
from textual.widget import Widget

from drkun_tui.i18n import t
from drkun_tui.ui.keys import display


class KeyHints(Widget):
    """Bindings with ``show=True``, in their order, as many as there is room for."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-hints--key", "key-hints--text"}

    @dataclass
    class Pressed(Message):
        """A hint was clicked."""

        key: str

    def on_mount(self) -> None:
        """Follow the bindings, which change with the focus and with what is possible."""
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> RenderResult:
        """The line."""
        key_style = self.get_component_rich_style("key-hints--key", partial=True)
        text_style = self.get_component_rich_style("key-hints--text", partial=True)
        hints: dict[str, Text] = {}
        for active in sorted(self.screen.active_bindings.values(), key=self._nearness):
            binding = active.binding
            if binding.show and active.enabled and binding.description not in hints:
                click = Style(meta={"key": binding.key})
                hint = Text(display(binding.key, binding.key_display), key_style + click)
                hints[binding.description] = hint.append(f" {t(binding.description)}", text_style + click)
        shown = list(hints.values())
        while len(shown) > 1 and sum(hint.cell_len + 3 for hint in shown) > self.size.width + 1:
            # The last is the help, which lists all the others.
            shown.pop(-2)
        line = Text("   ", no_wrap=True, overflow="crop").join(shown)
        return Text(" ", no_wrap=True, overflow="crop").append_text(line)

    def _nearness(self, active: ActiveBinding) -> int:
        """The keys of the focused widget first, then the screen's, then the application's."""
        return 2 if active.node is self.app else 1 if active.node is self.screen else 0

    def on_click(self, event: events.Click) -> None:
        """Press the key that was clicked."""
        if key := event.style.meta.get("key"):
            self.post_message(self.Pressed(key))
