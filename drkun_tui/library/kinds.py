"""Kinds of failure, as jobs write them into their folders, and the errors that they are for a reader."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import has, t
from drkun_tui.library.fit import size_text
from drkun_tui.library.printable import printable

Values = dict[str, str | int]
"""What the sentence of an error or a warning is filled with."""


def retold(error: DrkunError) -> Values:
    """An error of a floor below as a job keeps it: told there, in its own words."""
    return {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}


@dataclass(frozen=True, slots=True)
class Kinds:
    """The failures of one part of the program.

    Attributes:
        section: of the catalogue: it has a sentence for each kind, and for some a hint.
        bad_input: those that whoever asked can mend.
        no_model: those for which a model is missing, or may not be had.
    """

    section: str
    bad_input: Collection[str]
    no_model: Collection[str] = ()

    def error_of(self, kind: str, values: Values) -> DrkunError:
        """The error that a failure is, in the reader's language.

        Args:
            kind: a key of the section; anything else is told as it is.
            values: texts may be a stranger's. Of a number there is also ``{NAME_size}``, as bytes are read.
        """
        shown: Values = {}
        for name, value in values.items():
            if isinstance(value, str):
                shown[name] = printable(value)
            else:
                shown |= {name: value, f"{name}_size": size_text(value)}
        if "message" in shown:
            code = int(shown.get("exit_code", EXIT_FAILED))
            return DrkunError(kind, str(shown["message"]), str(shown.get("hint", "")), code)
        if not has(f"{self.section}.{kind}"):
            shown, kind = {"reason": printable(kind)}, "internal"
        code = EXIT_FAILED
        if kind in self.bad_input:
            code = EXIT_BAD_INPUT
        elif kind in self.no_model:
            code = EXIT_NO_MODEL
        hint = f"{self.section}.{kind}_hint"
        message = t(f"{self.section}.{kind}", **shown)
        return DrkunError(kind, message, t(hint, **shown) if has(hint) else "", code)
