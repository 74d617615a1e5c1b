"""What the interface process holds in memory with a long conversation open."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.children import long_answers
from benchmarks.children.bare_app import TEXT
from benchmarks.machine import ROOT, Bench, drkun
from benchmarks.report import Row, Target, ratios
from benchmarks.terminal import Terminal
from drkun_tui.consult.conversation import State, Turn
from drkun_tui.consult.store import Store
from drkun_tui.i18n import catalogue

TURNS = 250
"""Five hundred messages."""

MOST = Target("at most", 150, of="ours")
MOST_PAGES = 1000
MEGA = 1_000_000


class Memory(dict[str, float]):
    """Megabytes: ``rss``, and where the system tells them ``pss`` and ``uss``."""

    def __str__(self) -> str:
        return ", ".join(f"{kind.upper()} {value:.0f}" for kind, value in self.items())


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    _keep_long_conversation(bench.home / "conversations.db")
    try:
        taken = bench.rounds_of(
            "memory", {"drkun": lambda: _ours(bench), "bare": lambda: {"bare": _bare(bench)}}
        )
    finally:
        bench.settings()
    bare = [memories["bare"] for memories in taken["bare"]]

    def row(name: str, stage: str, target: Target | None) -> Row:
        ours = [memories[stage] for memories in taken["drkun"]]
        text = ", ".join(
            f"{kind.upper()} {statistics.median(memory[kind] for memory in ours):.0f}"
            for kind in ("pss", "uss")
            if kind in ours[0]
        )
        own, other = ([memory["rss"] for memory in side] for side in (ours, bare))
        between = ratios(own, other)
        return Row(
            name,
            statistics.median(own),
            "MB",
            statistics.median(other),
            "bare Textual app",
            between,
            target,
            text,
        )

    return [
        row("interface process, RSS, nothing open", "empty", None),
        row(f"the same with {2 * TURNS} messages open", "opened", MOST),
        row("the same after scrolling through all of them", "read", MOST),
    ]


def _ours(bench: Bench) -> dict[str, Memory]:
    prompt = catalogue("zh")["consult.placeholder"][1:]
    first = long_answers.consultation(1)[0][:10]
    taken = {}
    # With the list folded away its key opens it and puts the cursor there; the program keeps that it is open.
    bench.settings(conversation_list=False)
    with Terminal([drkun()], bench.environment) as terminal:
        terminal.wait_for(prompt)
        terminal.wait_for("starter")
        taken["empty"] = _of(terminal.pid)
        terminal.press("C-l")
        time.sleep(0.5)
        terminal.press("Home", "Enter")
        terminal.wait_for(long_answers.closing(TURNS))
        taken["opened"] = _of(terminal.pid)
        for _ in range(0, MOST_PAGES, 20):
            terminal.press("-N", "20", "PPage")
            time.sleep(0.3)
            if first in terminal.screen():
                break
        else:
            raise RuntimeError("the first question does not come into sight")
        taken["read"] = _of(terminal.pid)
        terminal.quit()
    return taken


def _bare(bench: Bench) -> Memory:
    app = str(ROOT / "benchmarks" / "children" / "bare_app.py")
    with Terminal([sys.executable, app], bench.environment) as terminal:
        terminal.wait_for(TEXT)
        taken = _of(terminal.pid)
        terminal.quit()
    return taken


def _of(pid: int) -> Memory:
    """Of one process, once it has settled."""
    time.sleep(1.5)
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return Memory(rss=psutil.Process(pid).memory_info().rss / MEGA)
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    uss = kib["Private_Clean"] + kib["Private_Dirty"]
    return Memory(rss=kib["Rss"] * 1024 / MEGA, pss=kib["Pss"] * 1024 / MEGA, uss=uss * 1024 / MEGA)


def _keep_long_conversation(database: Path) -> None:
    """As if it had been held: every question asked, every answer kept."""
    store = Store(database)
    conversation = store.create_conversation()
    began = time.time() - TURNS * 60
    for number in range(1, TURNS + 1):
        question, reasoning, answer = long_answers.consultation(number)
        turn = Turn(
            id=0,
            conversation_id=conversation.id,
            question=question,
            created_at=began + number * 60,
            state=State.DONE,
        )
        turn.id = store.add_turn(turn)
        turn.reasoning, turn.answer, turn.model = reasoning, answer, "starter"
        turn.profile, turn.engine, turn.demonstration = "cpu", "llama_cpp", True
        turn.usage = {
            "prompt_tokens": 900,
            "reused_tokens": 870,
            "thinking_tokens": 120,
            "answer_tokens": 300,
        }
        turn.timings = {"ttft_s": 0.03, "decode_tok_s": 640.0, "thinking_s": 0.2}
        store.save(turn)
    store.close()
