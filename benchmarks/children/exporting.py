"""One way from an adapter to files, timed without the interpreter's start: ``exporting.py WAY FOLDER OUT``.

- ``copy``: the base's files read and written.
- ``merge``: our merge; ``peft``: PEFT's, saved. These three begin and end on the disk.
- ``export``: our converter and quantiser, the adapter added on the way.
- ``tools``: PEFT's merge saved, ``convert_hf_to_gguf.py``, and llama.cpp's quantiser.
- ``plain``: our converter and quantiser on the base alone; ``own``: llama.cpp's, nothing before them.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drkun_tui.publishing import converters, steps, targets
from drkun_tui.publishing.tasks import Convert, Merge, Quantise

TARGET = "Q4_K_M"
THREADS = 2


def copy(folder: Path, out: Path) -> None:
    """Read and write, in blocks that stay in the processor's cache."""
    with _from_disk_to_disk(folder, out):
        for path in sorted((folder / "base").glob("*.safetensors")):
            with path.open("rb") as source, (out / path.name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def merge(folder: Path, out: Path) -> None:
    """Ours, in this process."""
    from drkun_tui.publishing.merge import merge as work

    with _from_disk_to_disk(folder, out):
        work(
            Merge(base=str(folder / "base"), adapter=str(folder / "adapter"), target=str(out)),
            lambda *_: None,
        )


def peft(folder: Path, out: Path) -> None:
    """PEFT's, in this process."""
    _import_peft()
    with _from_disk_to_disk(folder, out):
        saved(folder, out)


def saved(folder: Path, out: Path) -> None:
    """PEFT's, for the tools that come after it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    merged: Any = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    merged.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(out)


def _import_peft() -> None:
    import peft
    import transformers

    del peft
    # It imports on the first use of a name.
    _ = transformers.AutoModelForCausalLM, transformers.AutoTokenizer


def export(folder: Path, out: Path) -> None:
    """As the export's job does it, stage by stage."""
    _stages(folder, out, str(folder / "adapter"))


def plain(folder: Path, out: Path) -> None:
    """The same without an adapter."""
    _stages(folder, out, "")


def _stages(folder: Path, out: Path, adapter: str) -> None:
    kept = str(converters.ensure(lambda: False))
    convert = Convert(
        converters=kept,
        base=str(folder / "base"),
        adapter=adapter,
        out=str(out / "whole.gguf"),
        out_type="bf16",
        name="random",
    )
    quantise = Quantise(
        source=convert.out, out=str(out / "small.gguf"), file_type=targets.file_type(TARGET), threads=THREADS
    )
    steps.run("drkun_tui.publishing.convert", convert, lambda *_: None, lambda: False)
    steps.run("drkun_tui.publishing.quantise", quantise, lambda *_: None, lambda: False)


def tools(folder: Path, out: Path) -> None:
    """Each tool a process of its own, as their documents have it."""
    (out / "merged").mkdir()
    _processes(folder, ("saved", out / "merged"), ("script", out), ("quantiser", out))


def own(folder: Path, out: Path) -> None:
    """llama.cpp's tools alone, on the base."""
    (out / "merged").symlink_to(folder / "base")
    _processes(folder, ("script", out), ("quantiser", out))


def _processes(folder: Path, *ways: tuple[str, Path]) -> None:
    me = [sys.executable, "-m", "benchmarks.children.exporting"]
    for way, where in ways:
        subprocess.run([*me, way, str(folder), str(where)], check=True, stdout=subprocess.DEVNULL)


def script(folder: Path, out: Path) -> None:
    """llama.cpp's converter; only told the name of the pre-tokenizer, which it would refuse."""
    del folder
    kept = converters.ensure(lambda: False)
    sys.path.insert(0, str(kept))
    from conversion import base  # type: ignore[import-not-found]

    base.TextModel.get_vocab_base_pre = lambda *_: "qwen2"
    sys.argv = ["", str(out / "merged"), "--outfile", str(out / "whole.gguf"), "--outtype", "bf16"]
    runpy.run_path(str(kept / "convert_hf_to_gguf.py"), run_name="__main__")


def quantiser(folder: Path, out: Path) -> None:
    """llama.cpp's quantiser, one call of its library."""
    import ctypes

    import llama_cpp

    del folder
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = targets.file_type(TARGET), THREADS
    paths = (str(out / name).encode() for name in ("whole.gguf", "small.gguf"))
    if llama_cpp.llama_model_quantize(*paths, ctypes.byref(params)):
        raise RuntimeError("llama_model_quantize")


@contextlib.contextmanager
def _from_disk_to_disk(folder: Path, out: Path) -> Iterator[None]:
    """Time what is done in it: it finds the base on the disk, not in the system's cache, and has ended when
    everything is on the disk again."""
    os.sync()
    for path in (folder / "base").iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    yield
    for path in out.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _tell(began)


def _tell(began: float) -> None:
    """Seconds; those of the processors, system included; and the most memory that the process has held."""
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"s": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}
    print(json.dumps(told), flush=True)


TIMED = (copy, merge, peft)
"""They take their time themselves."""

WAYS = {way.__name__: way for way in (*TIMED, saved, export, plain, tools, own, script, quantiser)}


def main(way: str, folder: Path, out: Path) -> None:
    """Go it."""
    began = time.perf_counter()
    WAYS[way](folder, out)
    if WAYS[way] not in TIMED:
        _tell(began)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
