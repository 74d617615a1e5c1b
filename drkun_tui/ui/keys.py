"""How keys are written for people."""

from __future__ import annotations

_NAMES = {
    "escape": "Esc",
    "enter": "Enter",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "left": "Left",
    "right": "Right",
    "up": "Up",
    "down": "Down",
    "home": "Home",
    "end": "End",
    "delete": "Del",
    "space": "Space",
    "tab": "Tab",
}


def display(key: str, chosen: str | None = None) -> str:
    """``"ctrl+t"`` as ``"^T"``, ``"f1"`` as ``"F1"``; `chosen` wins when it is given."""
    if chosen:
        return chosen
    *modifiers, name = key.split("+")
    shown = _NAMES.get(name, name.upper() if len(name) > 1 or modifiers else name)
    if modifiers == ["ctrl"]:
        return f"^{shown}"
    return "+".join([*(m.capitalize() for m in modifiers), shown])
