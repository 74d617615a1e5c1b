"""The two themes of the house: quiet greys, one accent, amber for warnings, red for danger."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="drkun-dark",
    primary="#5fb3a1",
    secondary="#8fa3b8",
    accent="#5fb3a1",
    warning="#d9a74a",
    error="#d9695f",
    success="#5fb3a1",
    foreground="#d7dde3",
    background="#11161a",
    surface="#171e25",
    panel="#1e2831",
    dark=True,
)

LIGHT = Theme(
    name="drkun-light",
    primary="#1f7a68",
    secondary="#51647a",
    accent="#1f7a68",
    warning="#8a5a00",
    error="#b3261e",
    success="#1f7a68",
    foreground="#1c2329",
    background="#fbfbf9",
    surface="#f1f2ef",
    panel="#e4e7e4",
    dark=False,
)
