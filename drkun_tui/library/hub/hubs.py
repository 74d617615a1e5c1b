"""The hubs by name."""

from __future__ import annotations

from drkun_tui.library.hub.base import Hub
from drkun_tui.library.hub.protocol import HubName, Limits


def connect(name: HubName, limits: Limits) -> Hub:
    """A hub, through its client library, which is imported here."""
    if name == "hf":
        from drkun_tui.library.hub.hugging_face import HuggingFace

        return HuggingFace(limits)
    from drkun_tui.library.hub.modelscope import ModelScope

    return ModelScope(limits)
