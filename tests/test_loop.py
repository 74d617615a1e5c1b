"""The loop closed: the bundled model learns, is measured before and after, becomes a GGUF, and that answers.

Once from the screens alone, once from the command line alone; with the real trainer, two steps of it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("sacrebleu")

from textual.widgets import Input

from drkun_tui import paths
from drkun_tui.evaluation.evaluations import Evaluation
from drkun_tui.i18n import t
from drkun_tui.library import provenance
from drkun_tui.publishing import converters
from drkun_tui.sampling import Sampling
from drkun_tui.training import runs
from drkun_tui.ui.screens.choose import Choose
from drkun_tui.ui.screens.confirm import Confirm
from drkun_tui.ui.screens.consult import ConsultScreen
from drkun_tui.ui.screens.evaluations import EvaluationsScreen
from drkun_tui.ui.screens.export import ExportScreen
from drkun_tui.ui.screens.models import ModelsScreen
from drkun_tui.ui.screens.new_evaluation import NewEvaluationScreen
from drkun_tui.ui.screens.training import TrainingScreen
from tests import publishing_files, ui_helpers
from tests.test_pull import command
from tests.test_ui_models import at_models, dialog, highlight
from tests.test_ui_real_run import begin
from tests.ui_helpers import DIZZY, Chat, chat, flat, plainly, settings_on_disk

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("unmeasured")]

BASE, ADAPTER = "drkun/starter-bf16", "drkun/starter-starter-cpu"
GGUF = "drkun/starter-starter-cpu-GGUF/starter-starter-cpu-Q8_0"
Q8_0 = 3
"""Its place in the list of the export screen."""


@pytest.fixture(autouse=True)
def ready(home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Converters from a file; nobody's threads spin while they wait for each other."""
    monkeypatch.setenv(converters.SOURCE, str(publishing_files.source(request.config.cache)))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(ui_helpers, "PATIENCE_S", 300)


# From the screens alone


async def measured(it: Chat, count: int) -> Evaluation:
    """The form is open: begin, and wait until so many evaluations are through."""
    await dialog(it, NewEvaluationScreen)
    for name, value in {"limit": "3", "length": "16"}.items():
        field = it.app.screen.query_one(f"#field-{name}", Input)
        field.focus()
        field.clear()
        await it.type(value)
    await it.press("ctrl+s")
    await dialog(it, EvaluationsScreen)
    await it.until(lambda: [each.phase for each in it.app.evaluations_now].count("done") == count)
    return it.app.evaluations_now[0]


async def test_from_the_screens_alone() -> None:
    brief = plainly(sampling=Sampling(temperature=0, max_tokens=40))
    async with chat(brief, loaded=False, size=(132, 40)) as it:
        # Training.
        await begin(it, steps="2", epochs="", batch="2", context="128", rank="4")
        await it.until(lambda: isinstance(it.app.screen, TrainingScreen))
        await it.until(lambda: it.app.runs_now and it.app.runs_now[0].phase == "done")
        await it.until(lambda: flat(t("runs.phase_done")) in it.seen("#runs"))
        (run,) = await runs.Runs().all()
        # The base and the adapter on the rows that the run held out.
        await at_models(it, "bf16")
        await highlight(it, BASE)
        await it.press("t")
        await dialog(it, NewEvaluationScreen)
        await it.press("enter")
        await dialog(it, Choose)
        await it.press("enter")
        before = await measured(it, 1)
        assert (before.order.suite, before.order.settings.adapter) == (run.id, None)
        await it.press("f4")
        await it.until(lambda: isinstance(it.app.screen, TrainingScreen))
        await it.until(lambda: flat(t("keys.evaluate")) in it.hints())
        await it.press("e")
        await dialog(it, NewEvaluationScreen)
        it.app.screen.query_one("#field-limit", Input).value = "3"
        it.app.screen.query_one("#field-against").focus()
        await it.press("enter")
        await dialog(it, Choose)
        await it.press("down", "enter")
        after = await measured(it, 2)
        assert (after.order.settings.model, after.order.settings.adapter) == (BASE, ADAPTER)
        assert after.result is not None and before.result is not None
        assert after.result.fingerprint == before.result.fingerprint
        assert after.result.overlap is not None and after.result.overlap.rows > 200
        await it.until(lambda: "McNemar" in it.seen("#evaluation"))
        await it.until(lambda: flat(t("evaluation_screen.comparing")) not in it.seen("#evaluation"))
        await it.press("w")
        await it.until(lambda: "README.md" in it.notice())
        # The GGUF.
        await it.press("f3")
        await dialog(it, ModelsScreen)
        await at_models(it, "starter-starter-cpu")
        await highlight(it, ADAPTER)
        await it.press("e")
        await dialog(it, ExportScreen)
        await it.press(*["down"] * Q8_0, "enter")
        await dialog(it, Confirm)
        await it.press("y")
        await it.until(lambda: it.app.exports_now and not it.app.exports_now[0].running)
        assert it.app.exports_now[0].error is None, it.app.exports_now[0].error
        await it.press("escape")
        await it.until(lambda: "Q8_0" in it.seen("#models"))
        # The consultation.
        await highlight(it, GGUF)
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, ConsultScreen))
        await it.until(lambda: it.app.session.plan is not None and it.app.session.plan.model.name == GGUF)
        await it.loaded()
        turn = await it.ask(DIZZY)
        assert turn.answer or turn.reasoning
        assert turn.model == GGUF
    assert settings_on_disk().model == GGUF
    adapter = paths.model_store() / ADAPTER
    assert "## Evaluation" in (adapter / "README.md").read_text("utf8")
    made = next((paths.model_store() / GGUF).parent.glob("*.gguf"))
    assert made.stat().st_size > 10_000_000


# From the command line alone


def drkun(*words: str) -> list[Any]:
    """The JSON that a command prints, one object a line."""
    done = subprocess.run(
        command(*words, "--json"), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_from_the_command_line_alone(home: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "brief.toml"
    recipe.write_text(
        'preset = "starter-cpu"\n[data]\npath = "demo"\n[adapter]\nrank = 4\n'
        "[training]\nmax_steps = 2\nbatch_size = 2\ncontext_length = 128\nwarmup_steps = 0\n"
    )
    trained = drkun("train", str(recipe))[-1]
    assert trained["type"] == "finished"
    (told,) = drkun("runs")
    run = told["runs"][0]["id"]
    brief = ("--model", BASE, "--limit", "3", "--max-tokens", "16", "--threads", "1")
    (before,) = drkun("eval", run, *brief)
    (after,) = drkun("eval", run, *brief, "--adapter", ADAPTER, "--against", before["id"], "--card")
    assert after["questions"] == after["answered"] == 3
    assert {each["name"] for each in after["differences"]} >= {"loss", "bleu4", "ends"}
    assert "## Evaluation" in (Path(trained["folder"]) / "README.md").read_text("utf8")
    exported = drkun("export", ADAPTER, "--type", "Q8_0")[-1]
    assert (exported["type"], exported["name"]) == ("finished", GGUF)
    kept = provenance.read(Path(trained["folder"]))
    assert kept is not None and kept.demonstration
    (answer,) = drkun("ask", "--model", GGUF, "--max-tokens", "40", "--temperature", "0", DIZZY)
    assert answer["model"] == GGUF
    assert answer["thinking"] or answer["answer"]
