"""How an export or an upload ends when it cannot go on."""

from __future__ import annotations

from drkun_tui.library.kinds import Kinds, Values

_BAD_INPUT = {
    *("unknown_target", "export_exists", "bad_name", "not_only_lora", "no_tensor", "wrong_shape", "tied"),
    *("lora_has_weights",),
    *("needs_imatrix", "imatrix_unused", "imatrix_unreadable", "imatrix_other", "no_card", "no_job"),
    *("calibration_short", "calibration_unreadable", "bad_usage"),
    *("repo_name", "repo_taken", "repo_public", "personal_data", "local_path"),
    *("no_licence", "licence_missing", "licence_unknown", "licence_other", "licence_wider"),
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


error_of = Kinds("publishing", _BAD_INPUT, _NO_MODEL).error_of
