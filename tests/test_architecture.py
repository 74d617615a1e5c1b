"""The floors of the house: imports go down only, and nothing heavy is in the process that draws."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import drkun_tui

PACKAGE = Path(drkun_tui.__file__).parent

FLOORS = [
    {"errors", "i18n", "paths", "remote", "sampling", "settings"},
    {"jobs"},
    {"hardware", "profiles", "learned", "llama_build"},
    {"engine"},
    {"library"},
    {"training"},
    {"publishing"},
    {"consult"},
    {"evaluation"},
    {"comparison"},
    {"ui"},
    {"app", "commands", "cli", "__main__"},
]
"""Lowest first; a floor may import itself and what is below."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

HEAVY = {
    *("torch", "transformers", "peft", "trl", "unsloth", "datasets", "bitsandbytes", "accelerate"),
    *("triton", "tokenizers", "safetensors", "llama_cpp", "numpy", "jinja2", "pyarrow", "pandas", "gguf"),
}

ENGINE_ONLY = {
    *("drkun_tui.engine.llama_cpp", "drkun_tui.engine.chat_template", "drkun_tui.engine.host"),
    *("drkun_tui.engine.probe", "drkun_tui.engine.prompting", "drkun_tui.engine.openai"),
    *("drkun_tui.engine.llama_cpp_batch", "drkun_tui.engine.llama_sampler"),
}
"""What only the engine's processes may import, besides the Transformers engine."""


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}

ENGINE_ONLY |= {name for name in MODULES if name.startswith("drkun_tui.engine.transformers")}
ENGINE_ONLY |= {
    f"drkun_tui.training.{name}"
    for name in (
        *("adapter", "base_model", "callback", "examples", "job", "rendering", "sft", "tokens", "trainer"),
        *("checking.check", "checking.job", "checking.vocabulary", "probe"),
    )
}
ENGINE_ONLY |= {
    f"drkun_tui.publishing.{name}"
    for name in (
        *(
            "activations",
            "calibrate",
            "convert",
            "imatrix",
            "loading",
            "job",
            "lora",
            "merge",
            "modelfile",
            "pre_tokenizer",
            "prove",
            "quantise",
        ),
    )
}

DATA_ONLY = {name for name in MODULES if name.startswith("drkun_tui.training.data.")} - {
    "drkun_tui.training.data.summary"
}
"""What reads data sets: in the training process, and in the command that checks them."""

DATA_ONLY |= {
    f"drkun_tui.evaluation.{name}"
    for name in (
        "asking",
        "comparing",
        "comparison",
        "overlap",
        "resampling",
        "suite",
        "tally",
        "text_metrics",
    )
}
"""What reads suites and measures answers: in an evaluation's process, and where two are compared."""


def imports(path: Path) -> Iterator[str]:
    """Whatever a file imports anywhere in it, in functions too, but not what only a type checker reads."""
    tree = ast.parse(path.read_text("utf8"))
    unread = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in unread:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def floor_of(module: str) -> int:
    parts = module.split(".")
    return FLOOR[parts[1]] if len(parts) > 1 else -1


def test_imports_go_down_only() -> None:
    upwards = [
        (module, name)
        for module, path in MODULES.items()
        for name in imports(path)
        if name.split(".")[0] == "drkun_tui" and floor_of(name) > floor_of(module)
    ]
    assert upwards == []


def test_every_floor_is_known() -> None:
    """A new module at the top of the package has its place in the table."""
    assert {module.split(".")[1] for module in MODULES if "." in module} <= FLOOR.keys()
    assert len(MODULES) > 50


def test_only_the_engine_process_imports_what_is_native() -> None:
    native = [
        (module, name)
        for module, path in MODULES.items()
        for name in imports(path)
        if module not in ENGINE_ONLY | DATA_ONLY and (name.split(".")[0] in HEAVY or name in ENGINE_ONLY)
    ]
    assert native == []


def test_commands_take_only_text_tools_from_the_screens() -> None:
    taken = {
        name
        for module, path in MODULES.items()
        if module.startswith("drkun_tui.commands")
        for name in imports(path)
        if name.startswith("drkun_tui.ui")
    }
    allowed = (
        "drkun_tui.ui.comparison_text",
        "drkun_tui.ui.data_text",
        "drkun_tui.ui.evaluation_text",
        "drkun_tui.ui.hub_rows",
        "drkun_tui.ui.model_rows",
        "drkun_tui.ui.progress",
        "drkun_tui.ui.publishing_text",
        "drkun_tui.ui.table",
        "drkun_tui.ui.typeset",
    )
    assert all(name.startswith(allowed) for name in taken)


def test_modules_import_each_other_in_one_direction() -> None:
    """No circles, at whatever distance."""
    needs = {
        module: {name for name in imports(path) if name in MODULES} - {module}
        for module, path in MODULES.items()
    }
    while needs:
        free = {module for module, names in needs.items() if not names & needs.keys()}
        assert free, f"in a circle: {sorted(needs)}"
        needs = {module: names for module, names in needs.items() if module not in free}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after `statement`."""
    told = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in told.stdout.splitlines() if line.startswith("LOADED"))
    return {name.split(".")[0] for name in line.split()[1:]}


def test_the_process_that_draws_loads_nothing_heavy() -> None:
    screens = [name for name in MODULES if name.startswith("drkun_tui.ui")]
    loaded = loaded_by("import " + ", ".join(["drkun_tui.app", *screens]))
    assert "textual" in loaded
    assert loaded & HEAVY == set()


def test_no_command_loads_what_is_heavy() -> None:
    commands = [name for name in MODULES if name.startswith("drkun_tui.commands.")]
    assert len(commands) >= 7
    loaded = loaded_by("import " + ", ".join(commands))
    assert loaded & HEAVY == set()
    assert "textual" not in loaded


def test_the_version_is_told_without_a_screen() -> None:
    statement = """
from drkun_tui import cli
try:
    cli.main(["--version"])
except SystemExit as end:
    assert end.code == 0
"""
    assert loaded_by(statement) & (HEAVY | {"textual", "rich", "asyncio", "msgspec"}) == set()


HUB_CLIENTS = {"huggingface_hub", "modelscope_hub", "requests", "urllib3", "httpx", "filelock"}
"""What only the processes that talk to the hubs load."""


def test_who_watches_downloads_loads_no_hub_client() -> None:
    watching = "downloads", "recommended", "choose", "resolve"
    loaded = loaded_by("import " + ", ".join(f"drkun_tui.library.hub.{name}" for name in watching))
    assert loaded & (HEAVY | HUB_CLIENTS | {"textual"}) == set()
    loaded = loaded_by("import drkun_tui.app, drkun_tui.commands.pull, drkun_tui.commands.search")
    assert loaded & HUB_CLIENTS == set()
