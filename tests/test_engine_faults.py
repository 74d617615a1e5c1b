"""Errors that nobody foresaw, in a real engine process: one clear line, and the process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from drkun_tui import i18n, paths
from drkun_tui.engine import client
from drkun_tui.engine.protocol import Failed, Load, Ready
from tests.conftest import EngineProcess, MakeChild, user

FAULTY = """
    from drkun_tui.engine import host
    from drkun_tui.engine.llama_cpp import LlamaCpp

    class Faulty(LlamaCpp):
        def load(self, request, emit):
            if {load}:
                raise RuntimeError("no kernel image is available\\nfor execution")
            return super().load(request, emit)

        def generate(self, request, prompt, stopping):
            tokens = super().generate(request, prompt, stopping)
            for _ in range(5):
                yield next(tokens)
            raise RuntimeError("an illegal memory access was encountered")

    host._engine = lambda request: Faulty()
    host.main()
"""


@pytest.mark.parametrize("moment", ["load", "answer"])
def test_an_error_that_nobody_foresaw_is_one_line_and_the_end(
    tmp_path: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(client, "HOST", child(FAULTY.format(load=moment == "load")))
    log = tmp_path / "engine.log"
    with EngineProcess(log) as engine:
        engine.send(Load(path=str(paths.starter()), context_length=512, threads=1, safe_mode=True))
        told = engine.until(Ready, Failed)[-1]
        if moment == "answer":
            assert isinstance(told, Ready)
            reply = engine.ask(user("头晕"))
            # What had come is kept.
            assert reply.thinking
            told = reply.failed
        assert isinstance(told, Failed)
        assert engine.process.wait(30) == 1
    assert told.kind == "engine_fault"
    sentence = i18n.t("engine.engine_fault", **told.values)
    assert "memory access" in sentence or "kernel image is available for execution" in sentence
    assert "\n" not in sentence
    assert "Traceback" in log.read_text("utf8")
