"""Training runs as the screen finds them: folders written by a real process, which trains nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from drkun_tui import paths
from drkun_tui.jobs import detached
from drkun_tui.training import recipe, runs
from tests.conftest import has_ended, wait_until

CHILD = """
    import json, math, os, sys, time
    from pathlib import Path
    from drkun_tui.jobs.detached import RUNS_ALREADY, Reporter, RunsAlreadyError
    from drkun_tui.training import protocol as p

    folder = Path(sys.argv[1])
    try:
        reporter = Reporter(folder)
    except RunsAlreadyError:
        sys.exit(RUNS_ALREADY)
    print("to the log", flush=True)
    plan = json.loads((folder / "plan.json").read_text())
    say = lambda event: reporter.event(p.encode(event))
    saved_file = folder / "saved"
    saved = int(saved_file.read_text()) if saved_file.exists() else 0
    reporter.state("training")
    say(p.Prepared(rows=120, held_out=12, tokens=9000, trained_tokens=4000))
    say(p.Planned(backend="peft", device=plan["device"], total_steps=plan["total"], rows_per_step=4.0,
                  batch_size=4, gradient_accumulation=1, trainable_parameters=1000, parameters=100000))
    say(p.Began(step=saved))
    for step in range(saved + 1, plan["total"] + 1):
        loss = plan["bias"] + 3 * math.exp(-4 * step / plan["total"]) + 0.2 * math.sin(step * 1.7)
        say(p.Step(step=step, loss=loss, learning_rate=1e-3 * (1 - step / (plan["total"] + 1)), grad_norm=0.5,
                   epoch=step / 30, tokens=step * 500, tok_s=1234.0, eta_s=float(plan["total"] - step)))
        if step % max(1, plan["total"] // 8) == 0:
            say(p.HeldOut(step=step, loss=loss + 0.1))
            say(p.Sample(step=step, **{name: plan[name] for name in ("question", "thinking", "answer")}))
        if step == plan["save_at"]:
            saved_file.write_text(str(step))
            say(p.Saved(step=step))
        while step >= plan["wait_at"] and not (folder / "go").exists():
            if reporter.stop_requested:
                saved_file.write_text(str(step))
                say(p.Saved(step=step))
                say(p.Stopped(step=step))
                reporter.state("stopped")
                sys.exit(0)
            time.sleep(0.01)
    say(p.Finished(step=plan["total"], folder=plan["adapter"], held_out_loss=loss))
    reporter.state("done")
"""
"""Stops, waits and saves where ``plan.json`` says, and goes on from its checkpoint."""

QUESTION = "高血压患者能吃党参吗？"


def root() -> Path:
    return paths.home() / "runs"


def put(name: str, **plan: object) -> Path:
    """The folder of a run that was never started; each is newer than those before."""
    folder = root() / f"20260101-0000{len(detached.folders(root())):02}-abcdef"
    folder.mkdir(parents=True)
    made = recipe.Recipe(
        preset="starter-cpu",
        base=recipe.Base(model="starter"),
        data=recipe.Data(path="demo"),
        adapter=recipe.Adapter(name=name),
        training=recipe.Training(epochs=3),
    )
    (folder / runs.RECIPE).write_text(recipe.dump(made), "utf8")
    whole = {
        "total": 40, "device": "CPU", "bias": 1.0, "save_at": 10, "wait_at": 10**9,
        "adapter": str(folder / "none"), "question": QUESTION, "thinking": "先想一想。",
        "answer": "可以适量服用。", **plan,
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(whole), "utf8")
    return folder


def kill(folder: Path) -> None:
    """As an out-of-memory killer does it."""
    now = detached.state(folder)
    assert now is not None and now.alive
    pid = int(now.process.split()[0])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid))
