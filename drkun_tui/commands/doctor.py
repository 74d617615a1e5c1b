"""``drkun doctor``: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import locale
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from drkun_tui import __version__, hardware, llama_build, paths, profiles, settings
from drkun_tui.consult.store import Store
from drkun_tui.engine.client import EngineClient
from drkun_tui.errors import EXIT_DONE, EXIT_FAILED, DrkunError
from drkun_tui.i18n import set_language, t
from drkun_tui.library.plan import STARTER, plan_load
from drkun_tui.settings import Settings
from drkun_tui.ui.table import size

PACKAGES = ("textual", "llama-cpp-python", "torch", "transformers", "peft", "bitsandbytes", "trl", "unsloth")
SIGNS = {"ok": "ok  ", "warning": "!   ", "failed": "x   "}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    state: Literal["ok", "warning", "failed"]
    text: str
    hint: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Report; the exit code says whether anything has failed."""
    findings = [
        _settings(),
        *_machine(),
        *_packages(),
        _llama_cpp(),
        *_torch(),
        *_disk(),
        _terminal(),
        *_profiles(),
        *_decoding(),
        asyncio.run(_engine()),
    ]
    failed = any(finding.state == "failed" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(f) for f in findings]}, ensure_ascii=False))
    else:
        for finding in findings:
            hint = f"  {finding.hint}" if finding.hint else ""
            print(f"{SIGNS[finding.state]}{finding.name:18}{finding.text}{hint}")
    return EXIT_FAILED if failed else EXIT_DONE


def _settings() -> Finding:
    try:
        own = settings.load(paths.settings_file())
    except DrkunError as error:
        return Finding("settings", "failed", error.message, error.hint)
    set_language(own.language)
    return Finding("drkun", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")


def _machine() -> list[Finding]:
    machine = hardware.read()
    cpu = t("doctor.cpu", name=machine.cpu, cores=machine.physical_cores, logical=machine.logical_cores)
    memory = t("doctor.memory", free=size(machine.ram_available), total=size(machine.ram_total))
    gpus = [
        Finding("gpu", "ok", f"{gpu.name}, {size(gpu.free_bytes or 0)} / {size(gpu.total_bytes or 0)}")
        for gpu in machine.gpus
    ]
    return [Finding("cpu", "ok", cpu), Finding("memory", "ok", memory), *gpus]


def _packages() -> list[Finding]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [Finding("packages", "ok", ", ".join(found))]


def _llama_cpp() -> Finding:
    """Which build it is, and how to get the other."""
    if backend := llama_build.gpu_backend():
        hint = t("doctor.llama_to_cpu", command=llama_build.CPU_BUILD)
        return Finding("llama.cpp", "ok", t("doctor.llama_gpu", backend=backend), hint)
    if hardware.read().nvidia is None:
        return Finding("llama.cpp", "ok", t("doctor.llama_cpu"))
    hint = t("doctor.llama_to_gpu", command=llama_build.CUDA_BUILD)
    return Finding("llama.cpp", "warning", t("doctor.llama_cpu"), hint)


def _torch() -> list[Finding]:
    """Which build it is, where it is installed, and how to get the other."""
    if not profiles.installed("torch"):
        return []
    if profiles.torch_has_cuda():
        return [Finding("torch", "ok", t("doctor.torch_cuda"))]
    if hardware.read().nvidia is None:
        return [Finding("torch", "ok", t("doctor.torch_cpu"))]
    return [Finding("torch", "warning", t("doctor.torch_cpu"), t("doctor.torch_to_cuda"))]


def _disk() -> list[Finding]:
    home, findings = paths.home(), []
    free = shutil.disk_usage(home).free
    state: Literal["ok", "warning"] = "ok" if free > 1_000_000_000 else "warning"
    findings.append(Finding("data", state, t("doctor.disk", folder=str(home), free=size(free))))
    try:
        store = Store(paths.database())
        store.close()
        findings.append(Finding("conversations", "ok", str(paths.database())))
    except DrkunError as error:
        findings.append(Finding("conversations", "failed", error.message, error.hint))
    return findings


def _terminal() -> Finding:
    encoding = locale.getencoding()
    term = os.environ.get("TERM", "?")
    text = f"{term}, {encoding}, {'x'.join(map(str, shutil.get_terminal_size()))}"
    if encoding.lower().replace("-", "") != "utf8" and sys.platform != "win32":
        return Finding("terminal", "warning", text, t("doctor.utf8_hint"))
    return Finding("terminal", "ok", text)


def _profiles() -> list[Finding]:
    machine = hardware.read()
    findings = []
    for profile in (profiles.Profile.CPU, profiles.Profile.GPU8, profiles.Profile.GPU16):
        possible, reason = profiles.availability(profile, machine)
        findings.append(Finding(f"profile {profile}", "ok" if possible else "warning", reason))
    return findings


def _decoding() -> list[Finding]:
    """Is there what the Transformers engine's kernels are compiled with?"""
    if hardware.read().nvidia is None or profiles.missing_packages(profiles.Profile.GPU16):
        return []
    there = {
        "triton": profiles.installed("triton"),
        "gcc": os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"),
        "Python.h": (Path(sysconfig.get_path("include")) / "Python.h").is_file(),
    }
    if missing := [name for name, found in there.items() if not found]:
        text = t("doctor.decoding_missing", missing=", ".join(missing))
        return [Finding("decoding", "warning", text, t("doctor.decoding_hint"))]
    return [Finding("decoding", "ok", t("doctor.decoding"))]


async def _engine() -> Finding:
    """Load the bundled model for real."""
    engine = EngineClient(paths.engine_log(), paths.machine_file())
    try:
        plan = plan_load(Settings(model=STARTER))
        async for _ in engine.load(plan.load):
            pass
        ready = engine.ready
        mode = "doctor.engine_safe" if ready and ready.safe_mode else "doctor.engine_ok"
        return Finding("engine", "ok", t(mode, seconds=f"{ready.load_s:.2f}" if ready else "?"))
    except DrkunError as error:
        return Finding("engine", "failed", error.message, error.hint)
    finally:
        await engine.close()
