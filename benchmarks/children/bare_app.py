"""The smallest Textual application: what the chat screen's start and memory are compared with."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static

TEXT = "A bare Textual application"


class BareApp(App[None]):
    """One Static."""

    def compose(self) -> ComposeResult:
        """The text that the benchmark waits for."""
        yield Static(TEXT)


if __name__ == "__main__":
    BareApp().run()
