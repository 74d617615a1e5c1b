"""The bottom line: the keys that matter here, as they are bound now."""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import RenderResult
from textual.widget import Widget

from drkun_tui.i18n import t
from drkun_tui.ui.keys import display


class KeyHints(Widget):
    """Bindings with ``show=True``, in their order, as many as there is room for."""

    COMPONENT_CLASSES = {"key-hints--key", "key-hints--text"}

    def on_mount(self) -> None:
        """Follow the bindings, which change with the focus and what is possible."""
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> RenderResult:
        """The line."""
        key_style = self.get_component_rich_style("key-hints--key", partial=True)
        text_style = self.get_component_rich_style("key-hints--text", partial=True)
        line = Text(" ", no_wrap=True, overflow="crop")
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.show or not active.enabled or binding.action in seen:
                continue
            seen.add(binding.action)
            key, text = display(binding.key, binding.key_display), t(binding.description)
            if line.cell_len + cell_len(key) + cell_len(text) + 4 > self.size.width:
                break
            click = Style.from_meta({"@click": f"app.press('{binding.key}')"})
            line.append(key, key_style + click)
            line.append(f" {text}   ", text_style + click)
        return line
