"""The one exception that people see: what happened, and what to do about it."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_NO_MODEL = 3
EXIT_FAILED = 4
EXIT_INTERRUPTED = 130


class DrkunError(Exception):
    """A failure with one line for the reader.

    Args:
        kind: stable machine-readable name, e.g. ``"model_not_found"``.
        message: what happened, one line, already in the reader's language.
        hint: what to do, one line, or "".
        exit_code: the process's exit code when this ends a command.
    """

    def __init__(self, kind: str, message: str, hint: str = "", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[DrkunError], tuple[str, str, str, int]]:
        # An exception is otherwise pickled with its message alone.
        return type(self), (self.kind, self.message, self.hint, self.exit_code)

    def as_dict(self) -> dict[str, str]:
        """The ``error`` object of the command-line contract."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}
