"""How a training ends when it cannot go on."""

from __future__ import annotations

from drkun_tui.training.protocol import Values


class TrainingError(Exception):
    """`kind` is a key of the catalogue's ``training`` section, filled with `values`."""

    def __init__(self, kind: str, **values: str | int) -> None:
        super().__init__(kind)
        self.kind = kind
        self.values: Values = values


class StopRequested(Exception):  # noqa: N818  # nothing has gone wrong
    """Somebody asked it to end before there was anything to save."""
