"""How an evaluation fails."""

from __future__ import annotations

from drkun_tui.errors import DrkunError
from drkun_tui.library.kinds import Kinds

_BAD_INPUT = {
    *("no_evaluation", "no_questions", "no_departments", "no_suite", "no_result", "other_questions"),
    *(
        "still_running",
        "model_changed",
        "no_held_out",
        "unreadable_suite",
        "packages_missing",
        "no_card",
        "remote",
        "bad_usage",
        "remove_unconfirmed",
    ),
}


class StopRequested(Exception):  # noqa: N818  # no error
    """Somebody asked to end early."""


def evaluation_error(kind: str, **values: str | int) -> DrkunError:
    """The error of a kind of the catalogue's section ``evaluation``."""
    return error_of(kind, values)


error_of = Kinds("evaluation", _BAD_INPUT).error_of
