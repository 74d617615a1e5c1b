"""How an export or an upload ends when it cannot go on."""

from __future__ import annotations

from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import has, t
from drkun_tui.library.fit import size_text
from drkun_tui.library.printable import printable

Values = dict[str, str | int]
"""What the sentence of an error or a warning is filled with."""

_BAD_INPUT = {
    *("unknown_target", "export_exists", "bad_name", "not_only_lora", "no_tensor", "wrong_shape", "tied"),
    *("needs_imatrix", "imatrix_unused", "imatrix_unreadable", "imatrix_other", "no_card", "no_job"),
    *("calibration_short", "calibration_unreadable"),
    *("repo_name", "repo_taken", "personal_data", "local_path", "no_licence", "licence_unknown"),
}
_NO_MODEL = {"not_exportable", "not_published", "no_base", "base_quantised", "packages_missing"}


class PublishingError(Exception):
    """`kind` is a key of the catalogue's ``publishing`` section, filled with `values`."""

    def __init__(self, kind: str, **values: str | int) -> None:
        super().__init__(kind)
        self.kind = kind
        self.values: Values = values


class StopRequested(Exception):  # noqa: N818  # nothing has gone wrong
    """Somebody asked it to end early."""


def error_of(kind: str, values: Values) -> DrkunError:
    """The error that a kind of failure is, in the reader's language.

    Args:
        kind: a key of the catalogue's ``publishing`` section; anything else is told as it is.
        values: texts may be a stranger's. Of a number there is also ``{NAME_size}``, as bytes are read.
    """
    shown: Values = {}
    for name, value in values.items():
        if isinstance(value, str):
            shown[name] = printable(value)
        else:
            shown |= {name: value, f"{name}_size": size_text(value)}
    if "message" in shown:
        # Told by a floor below, in its own words.
        return DrkunError(kind, str(shown["message"]), str(shown.get("hint", "")), EXIT_FAILED)
    if not has(f"publishing.{kind}"):
        shown, kind = {"reason": printable(kind)}, "internal"
    code = EXIT_BAD_INPUT if kind in _BAD_INPUT else EXIT_NO_MODEL if kind in _NO_MODEL else EXIT_FAILED
    hint = f"publishing.{kind}_hint"
    return DrkunError(kind, t(f"publishing.{kind}", **shown), t(hint, **shown) if has(hint) else "", code)
