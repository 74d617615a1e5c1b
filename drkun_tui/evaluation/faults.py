"""How an evaluation fails."""

from __future__ import annotations

from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, DrkunError
from drkun_tui.evaluation.protocol import Values
from drkun_tui.i18n import has, t
from drkun_tui.library.printable import printable

_BAD_INPUT = {
    *("no_evaluation", "no_questions", "no_departments", "no_suite", "no_result", "other_questions"),
    *(
        "still_running",
        "model_changed",
        "no_held_out",
        "unreadable_suite",
        "packages_missing",
        "no_card",
        "bad_usage",
    ),
}


class StopRequested(Exception):  # noqa: N818  # no error
    """Somebody asked to end early."""


def evaluation_error(kind: str, **values: str | int) -> DrkunError:
    """The error of a kind of the catalogue's section ``evaluation``."""
    return error_of(kind, values)


def error_of(kind: str, values: Values) -> DrkunError:
    """The error that a kind of failure is, in the reader's language."""
    shown: Values = {name: printable(v) if isinstance(v, str) else v for name, v in values.items()}
    if "message" in shown:
        # Told by a floor below, in its own words.
        code = int(shown.get("exit_code", EXIT_FAILED))
        return DrkunError(kind, str(shown["message"]), str(shown.get("hint", "")), code)
    if not has(f"evaluation.{kind}"):
        shown, kind = {"reason": printable(kind)}, "internal"
    code = EXIT_BAD_INPUT if kind in _BAD_INPUT else EXIT_FAILED
    hint = f"evaluation.{kind}_hint"
    return DrkunError(kind, t(f"evaluation.{kind}", **shown), t(hint, **shown) if has(hint) else "", code)
