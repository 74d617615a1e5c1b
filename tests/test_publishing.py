"""``drkun publish`` against a hub on this machine: what arrives, under which card, and every way to fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drkun_tui import paths
from drkun_tui.library import inspection, inventory, provenance
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import folders
from drkun_tui.library.provenance import Prompt, Provenance
from drkun_tui.publishing import licences, release
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.licences import Licences
from drkun_tui.settings import Settings
from drkun_tui.training import card as training_card
from drkun_tui.training import recipe
from drkun_tui.training.history import History
from tests import hub_uploads, model_files
from tests.conftest import PATIENCE_S, has_ended, wait_until
from tests.hub_server import HubServer, serving
from tests.hub_uploads import COMMIT, CREATE, SEND, TOKEN
from tests.test_pull import command, drkun

REPO = "me/taught"
HUBS = ("hf", "modelscope")
RECIPE = '[base]\nmodel = "starter"\n[data]\npath = "/home/someone/patients.csv"\n'
CARD = """---
license: apache-2.0
base_model: org/base
---

# Taught

Fine-tuned on dialogues.
"""
WHOLE = f"{CARD}\n## Licences\n\n- base model: apache-2.0\n\n"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
        yield server


@pytest.fixture
def adapter(home: Path) -> Path:
    """An adapter as a training run leaves it, trained on a file of this machine."""
    folder = model_files.put_lora(
        paths.model_store() / "drkun" / "taught", base_model_name_or_path="/home/someone/base"
    )
    trained = Provenance(
        base_model="/home/someone/base", prompt=Prompt(system="你是医生。"), recipe=RECIPE, seed=1
    )
    provenance.write(folder, trained)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def gguf(home: Path) -> Path:
    """A GGUF large enough to be sent apart from its commit."""
    path = paths.model_store() / "drkun" / "taught-GGUF" / "taught-Q4_K_M.gguf"
    path.parent.mkdir(parents=True)
    shutil.copyfile(paths.starter(), path)
    path.with_suffix(".Modelfile").write_text("FROM ./taught-Q4_K_M.gguf\n")
    return path


def publish(*words: str) -> subprocess.CompletedProcess[str]:
    return drkun("publish", *words, "--json")


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert "Traceback" not in done.stderr, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def files(hub: HubServer, repo: str = REPO) -> dict[str, bytes]:
    return {
        path: content.data if isinstance(content.data, bytes) else content.data.read_bytes()
        for path, content in hub.repositories[repo].files.items()
    }


LICENSED = ("--license", "apache-2.0", "--data-license", "mit", "--yes")


@pytest.mark.parametrize("name", HUBS)
def test_an_adapter_arrives_private_with_its_card(hub: HubServer, adapter: Path, name: str) -> None:
    done = publish("drkun/taught", REPO, "--to", name, *LICENSED)
    told = last(done)
    assert (done.returncode, told["type"], told["private"]) == (0, "finished", True), done.stderr
    assert told["page"].startswith(hub.url) and REPO in told["page"]
    there = files(hub)
    assert {"adapter_config.json", "adapter_model.safetensors", "drkun.json", "README.md"} <= there.keys()
    assert there["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert hub.repositories[REPO].tags == ["private"]
    assert len(hub.commits) == 1
    card = there["README.md"].decode()
    assert "license: apache-2.0" in card and "- data (patients.csv): mit" in card
    # Nothing of this machine goes along.
    assert not [path for path, data in there.items() if b"/home/someone" in data]
    known = provenance.parse(there["drkun.json"].decode())
    assert known is not None and known.prompt.system == "你是医生。" and "patients.csv" in known.recipe


@pytest.mark.parametrize("name", HUBS)
def test_a_gguf_arrives_whole_and_its_bytes_are_told(hub: HubServer, gguf: Path, name: str) -> None:
    done = publish("taught-Q4_K_M", REPO, "--to", name, "--public", "--yes")
    assert last(done)["type"] == "finished", done.stderr
    there = files(hub)
    assert there[gguf.name] == gguf.read_bytes()
    assert there["taught-Q4_K_M.Modelfile"].startswith(b"FROM ")
    assert hub.repositories[REPO].tags == ["public"]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    moved = [event for event in told if event["type"] == "progress"]
    assert moved[-1]["done"] == moved[-1]["total"] >= gguf.stat().st_size


@pytest.mark.parametrize("name", HUBS)
def test_what_broke_off_goes_on_and_sends_nothing_twice(hub: HubServer, gguf: Path, name: str) -> None:
    hub.fault(COMMIT, status=403)
    error = last(publish("taught-Q4_K_M", REPO, "--to", name, "--yes"))["error"]
    assert error["kind"] == ("not_allowed" if name == "hf" else "broke_off")
    assert len(hub.sent) == 1
    done = publish("taught-Q4_K_M", REPO, "--to", name, "--yes")
    assert last(done)["type"] == "finished", done.stderr
    assert len(hub.sent) == 1
    assert files(hub)[gguf.name] == gguf.read_bytes()


@pytest.mark.parametrize("name", HUBS)
def test_what_broke_off_within_a_file_goes_on(
    hub: HubServer, gguf: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault(SEND, what="close", at=1000, times=999)
    with monkeypatch.context() as patch:
        # ModelScope's client would try again for minutes.
        patch.setenv("MODELSCOPE_UPLOAD_BLOB_MAX_ATTEMPTS", "1")
        error = last(publish("taught-Q4_K_M", REPO, "--to", name, "--yes"))["error"]
    assert error["kind"] == "broke_off"
    assert not hub.sent and gguf.name not in files(hub)
    # ModelScope's client commits the small files that have arrived.
    assert name == "modelscope" or not hub.commits
    hub.faults.clear()
    done = publish("taught-Q4_K_M", REPO, "--to", name, "--yes")
    assert last(done)["type"] == "finished", done.stderr
    assert files(hub)[gguf.name] == gguf.read_bytes()
    assert len(hub.sent) == 1 and hub.repositories[REPO].tags == ["private"]


def test_modelscope_is_asked_again_by_itself(hub: HubServer, gguf: Path) -> None:
    """Twice within the file, as a connection that goes for a moment."""
    hub.fault(SEND, what="close", at=1000)
    hub.fault(SEND, what="close", at=300_000)
    done = publish("taught-Q4_K_M", REPO, "--to", "modelscope", "--yes")
    assert last(done)["type"] == "finished", done.stderr
    assert files(hub)[gguf.name] == gguf.read_bytes()
    assert len(hub.sent) == len(hub.commits) == 1 and not hub.faults[SEND]


@pytest.mark.parametrize("name", HUBS)
def test_a_killed_upload_goes_on(hub: HubServer, gguf: Path, name: str) -> None:
    hub.fault(SEND, what="hold", at=1000)
    started = subprocess.Popen(
        command("publish", "taught-Q4_K_M", REPO, "--to", name, "--yes"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert hub.held.wait(PATIENCE_S)
    (state,) = (paths.home() / "uploads").glob("*/state.json")
    pid = int(json.loads(state.read_text())["process"].split()[0])
    os.kill(pid, signal.SIGKILL)
    assert started.wait(PATIENCE_S) == 4
    wait_until(lambda: has_ended(pid))
    hub.release.set()
    done = publish("taught-Q4_K_M", REPO, "--to", name, "--yes")
    assert last(done)["type"] == "finished", done.stderr
    assert files(hub)[gguf.name] == gguf.read_bytes()


def test_a_stopped_upload_is_told_so(hub: HubServer, gguf: Path) -> None:
    hub.fault(SEND, what="hold", at=1000)
    started = subprocess.Popen(
        command("publish", "taught-Q4_K_M", REPO, "--yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert hub.held.wait(PATIENCE_S)
    started.send_signal(signal.SIGINT)
    assert started.wait(PATIENCE_S) == 130


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize(
    ("at", "fault", "kind"),
    [
        (CREATE, {"status": 401}, "token_refused"),
        (CREATE, {"status": 400}, "repo_name"),
        (CREATE, {"status": 403}, "not_allowed"),
    ],
)
def test_refusals_are_one_line(
    hub: HubServer, adapter: Path, name: str, at: str, fault: dict[str, Any], kind: str
) -> None:
    hub.fault(at, times=9, **fault)
    done = publish("drkun/taught", REPO, "--to", name, *LICENSED)
    assert (done.returncode in (2, 4), last(done)["error"]["kind"]) == (True, kind)


@pytest.mark.parametrize("name", HUBS)
def test_a_repository_that_is_there_is_only_added_to_when_asked(
    hub: HubServer, adapter: Path, name: str
) -> None:
    hub.add(REPO, {"old.txt": b"old"}, tags=["private"])
    assert last(publish("drkun/taught", REPO, "--to", name, *LICENSED))["error"]["kind"] == "repo_taken"
    assert files(hub) == {"old.txt": b"old"}
    done = publish("drkun/taught", REPO, "--to", name, "--update", *LICENSED)
    assert last(done)["type"] == "finished", done.stderr
    assert {"old.txt", "adapter_model.safetensors"} <= files(hub).keys()


@pytest.mark.parametrize("name", HUBS)
def test_what_is_private_does_not_go_into_a_public_repository(
    hub: HubServer, adapter: Path, name: str
) -> None:
    repository = hub.add(REPO, {"old.txt": b"old"}, tags=["public"])
    words = ("drkun/taught", REPO, "--to", name, "--update", *LICENSED)
    for _ in range(2):
        assert last(publish(*words))["error"]["kind"] == "repo_public"
        assert files(hub) == {"old.txt": b"old"} and not hub.sent
    assert last(publish(*words, "--public"))["private"] is False
    repository.tags = ["private"]
    # What the hub has counts, not what was wished.
    assert last(publish(*words, "--public"))["private"] is True


@pytest.mark.parametrize("name", HUBS)
def test_without_a_login_nothing_is_sent(
    hub: HubServer, adapter: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    error = last(publish("drkun/taught", REPO, "--to", name, *LICENSED))["error"]
    assert error["kind"] == f"no_token_{name}"
    assert not hub.authorizations


@pytest.mark.parametrize("name", HUBS)
def test_a_hub_that_is_not_there_is_told(
    hub: HubServer, adapter: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    error = last(publish("drkun/taught", REPO, "--to", name, *LICENSED))["error"]
    assert error["kind"] == "broke_off" and "127.0.0.1:9" in error["message"]


def test_the_token_is_nowhere_but_on_its_way(hub: HubServer, adapter: Path) -> None:
    hub.fault(CREATE, status=500, times=99)
    done = publish("drkun/taught", REPO, *LICENSED)
    assert done.returncode == 4
    assert f"Bearer {TOKEN}" in hub.authorizations
    kept = [path for path in (paths.home() / "uploads").rglob("*") if path.is_file()]
    assert len(kept) > 4
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr


# The card


def test_nobody_publishes_what_nobody_has_seen(hub: HubServer, adapter: Path) -> None:
    assert last(publish("drkun/taught", REPO))["error"]["kind"] == "no_review"
    assert not hub.authorizations


def test_a_card_of_ones_own_is_taken_as_it_is(hub: HubServer, adapter: Path, tmp_path: Path) -> None:
    mine = tmp_path / "card.md"
    mine.write_text(f"{WHOLE}- data (patients.csv): mit\n")
    assert last(publish("drkun/taught", REPO, "--card", str(mine)))["type"] == "finished"
    assert files(hub)["README.md"] == mine.read_bytes()
    assert last(publish("drkun/taught", REPO, "--card", str(tmp_path / "no")))["error"]["kind"] == "no_card"


PATHS = (
    *(
        "/workspace/a.csv",
        "/data/patients.csv",
        "`/scratch/x`",
        "/content/drive/x",
        "(/opt/models)",
        "/var/lib/x",
    ),
    *(
        "/Volumes/Disk/a",
        "file:///srv/a.csv",
        "\\\\srv\\share\\a.csv",
        "D:/records/a.csv",
        "来自C:\\病历\\a.csv",
    ),
    *("~/clinic/a.csv", "数据：/home/x/a.csv", "在/workspace/a.csv", "train=/mnt/x", "see:/data/a.csv"),
    *("| data | /clinic/patients.csv |", "/病历/张三.csv", "x/home/someone/a.csv", str(Path.home() / "a")),
    *(f"数据在{Path.cwd()}", "https://example.org/x 与 /srv/a"),
)
NUMBERS = (
    *("138-1234-5678", "138 1234 5678", "+86 138-1234-5678", "010-12345678", "0571-8888-1234"),
    *("（021）87654321", "+86-10-12345678"),
)
HARMLESS = (
    *("Qwen/Qwen3-4B", "https://example.org/home/page", "https://example.org:8000/data/x", "2024/01/02"),
    *(
        "血压150/95，3~5/天",
        "and/or, N/A, mg/L, BLEU-4/ROUGE-L",
        "头痛/头晕/恶心",
        "血压/BP/HR",
        "1.381234567",
    ),
    *(
        "```\ndrkun ask --model drkun/a-GGUF/a-Q4_K_M\nollama create m -f ./m.Modelfile\n```",
        "[a](docs/a.md)",
    ),
    *("/no_think and /think, <think></think>", "POST /v1/chat/completions", "hf://datasets/org/data/x"),
    *("2026-01-02 to 2026-12-31", "5e-05, 0.12 12345678", "5,138,123,456 tokens", "`\\n\\n`"),
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("# no metadata\n", "no_licence"),
        ("---\nlicense: unknown\n---\n", "no_licence"),
        (CARD, "licence_missing"),
        (CARD + "\n## Licences\n\n- base model: mit\n- data (x): unknown\n", "licence_unknown"),
        (WHOLE + "Ask someone@example.org.\n", "personal_data"),
        (WHOLE + "电话 13812345678。\n", "personal_data"),
        (WHOLE + "身份证 11010519900307123X。\n", "personal_data"),
        (WHOLE + "data: /home/someone/patients.csv\n", "local_path"),
        (WHOLE + "data: C:\\Users\\someone\\patients.csv\n", "local_path"),
        *((f"{WHOLE}{text}\n", "local_path") for text in PATHS),
        *((f"{WHOLE}{text}\n", "personal_data") for text in NUMBERS),
        *((f"{WHOLE}{text}\n", "") for text in HARMLESS),
    ],
)
def test_a_card_is_looked_through(text: str, kind: str) -> None:
    if not kind:
        release.check_card(text, Licences())
        return
    with pytest.raises(PublishingError) as raised:
        release.check_card(text, Licences())
    assert raised.value.kind == kind


def test_the_licences_of_base_and_data_are_named(home: Path, adapter: Path) -> None:
    models = inventory.scan(folders(Settings()))
    model = next(model for model in models if model.name == "drkun/taught")
    (adapter / "README.md").write_text("# Taught\n")
    made = release.draft(model, models)
    assert made.licences == Licences(data="patients.csv")
    assert "- base model: unknown" in made.card and "- data (patients.csv): unknown" in made.card
    told = licences.with_licences(made.card, model="mit", data="cc-by-4.0")
    assert inspection.licence_of(told) == "mit" and "unknown" not in told
    starter = next(model for model in models if model.name == "starter")
    assert inspection.licence_of(release.draft(starter, models).card) == "apache-2.0"
    release.check_card(release.draft(starter, models).card, release.draft(starter, models).licences)


def put_base(licence: str) -> None:
    """The base that `adapter` names, with its makers' card."""
    folder = model_files.put_base(paths.model_store() / "org" / "base")
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n\n# Base\n")


def trained_on(adapter: Path, base: str) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def test_a_licence_of_the_model_does_not_rewrite_that_of_its_base(
    hub: HubServer, adapter: Path, tmp_path: Path
) -> None:
    put_base("cc-by-nc-4.0")
    trained_on(adapter, "org/base")
    words = ("drkun/taught", REPO, "--data-license", "mit", "--yes", "--license")
    error = last(publish(*words, "mit"))["error"]
    assert error["kind"] == "licence_wider" and "cc-by-nc-4.0" in error["message"]
    mine = tmp_path / "card.md"
    for text, kind in (
        (WHOLE, "licence_other"),
        (WHOLE.replace("- base model: apache-2.0", "- base model: cc-by-nc-4.0"), "licence_missing"),
    ):
        mine.write_text(text)
        assert last(publish("drkun/taught", REPO, "--card", str(mine)))["error"]["kind"] == kind
    assert not hub.authorizations
    assert last(publish(*words, "cc-by-nc-sa-4.0"))["type"] == "finished"
    card = files(hub)["README.md"].decode()
    assert "\nlicense: cc-by-nc-sa-4.0\n" in card and "- base model: cc-by-nc-4.0\n" in card


def test_the_base_of_what_was_merged_is_found_through_its_provenance(home: Path) -> None:
    put_base("cc-by-nc-4.0")
    merged = model_files.put_base(paths.model_store() / "mine" / "merged")
    (merged / "README.md").write_text("---\nlicense: mit\n---\n\n# Merged\n")
    provenance.write(merged, Provenance(base_model="org/base", recipe='[data]\npath = "demo"\n'))
    models = inventory.scan(folders(Settings()))
    made = release.draft(next(model for model in models if model.name == "mine/merged"), models)
    # And the data set that comes with the program is under the program's licence.
    assert made.licences == Licences(base="cc-by-nc-4.0", data="demo", of_data="mit")
    assert "- base model: cc-by-nc-4.0\n- data (demo): mit\n" in made.card
    shutil.rmtree(paths.model_store() / "org")
    assert licences.known(made.model, inventory.scan(folders(Settings()))).base == licences.UNKNOWN


def test_each_gguf_of_a_folder_has_its_own_card(hub: HubServer, gguf: Path) -> None:
    (gguf.parent / "README.md").write_text(CARD.replace("# Taught", "# taught-Q8_0"))
    gguf.with_suffix(".md").write_text(CARD.replace("# Taught", "# taught-Q4_K_M"))
    assert last(publish("taught-Q4_K_M", REPO, "--yes"))["type"] == "finished"
    card = files(hub)["README.md"].decode()
    assert "# taught-Q4_K_M" in card and "Q8_0" not in card


def test_a_base_below_the_home_is_named_without_its_path(hub: HubServer, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(Path.home() / "models" / "base")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert last(publish("drkun/taught", REPO, *LICENSED))["type"] == "finished"
    assert json.loads(files(hub)["adapter_config.json"])["base_model_name_or_path"] == "base"


def test_how_it_was_trained_names_no_folder_either(
    hub: HubServer, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clinic" / "ward").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for place in ('path = "clinic/patients.csv"', 'hub = "clinic/ward"', 'hub = "/srv/clinic/ward"'):
        told = provenance.public(Provenance(recipe=f"[data]\n{place}\n"))
        assert "clinic" not in told.recipe and ("patients.csv" in told.recipe or "ward" in told.recipe)
    of_hub = provenance.public(Provenance(recipe='[data]\nhub = "org/dialogues"\n'))
    assert "org/dialogues" in of_hub.recipe
    system = "你是医生。\n病历在 /srv/records/a.csv"
    provenance.write(adapter, Provenance(prompt=Prompt(system=system), recipe=RECIPE))
    error = last(publish("drkun/taught", REPO, *LICENSED))["error"]
    assert error["kind"] == "local_path"
    assert "drkun.json" in error["message"] and "/srv/records/a.csv" in error["message"]
    assert not hub.authorizations


def test_a_card_of_training_names_no_folder(tmp_path: Path) -> None:
    made = recipe.parse(
        f'preset = "starter-cpu"\n[data]\npath = ""\nhub = "{tmp_path}/ward"\n[adapter]\nname = "a/b"\n'
    )
    base = Model(name="org/base", kind=Kind.BASE, path=tmp_path)
    told = training_card.card(made, base, base.name, History())
    assert "| data | ward |" in told and str(tmp_path) not in told


def test_a_file_that_names_this_machine_is_not_sent(hub: HubServer, adapter: Path) -> None:
    (adapter / "training_args.json").write_text(json.dumps({"output": str(Path.home() / "runs")}))
    error = last(publish("drkun/taught", REPO, *LICENSED))["error"]
    assert error["kind"] == "local_path" and "training_args.json" in error["message"]
    assert not hub.authorizations


def test_bad_names_are_refused_before_anything_is_asked(hub: HubServer, adapter: Path) -> None:
    for repo in ("alone", "a/b/c", "me/../x"):
        assert last(publish("drkun/taught", repo, *LICENSED))["error"]["kind"] == "repo_name"
    assert last(publish("nobody", REPO, *LICENSED))["error"]["kind"] == "model_not_found"
    assert not hub.authorizations


def test_someone_elses_name_is_not_ours_to_write_to(hub: HubServer, adapter: Path) -> None:
    assert hub_uploads.OWNER != "you"
    assert last(publish("drkun/taught", "you/taught", *LICENSED))["error"]["kind"] == "not_allowed"
