"""The export process: ``python -m drkun_tui.publishing.job FOLDER``.

It runs the stages of one export and puts the result into its place when it is proved. What it writes on the
way is in a hidden folder of the model store, in which no model is looked for; whatever an export that was
killed has left there, the next one removes.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import filelock
import msgspec

from drkun_tui import hardware, paths, settings
from drkun_tui.engine.chat_template import NAMED
from drkun_tui.errors import EXIT_DONE, EXIT_FAILED
from drkun_tui.i18n import set_language
from drkun_tui.jobs import detached
from drkun_tui.library import adapters, inspection, inventory, plan, provenance
from drkun_tui.library.files import files_below, size_of
from drkun_tui.library.kinds import Values
from drkun_tui.library.provenance import Provenance
from drkun_tui.publishing import card, converters, modelfile, steps, targets
from drkun_tui.publishing.faults import PublishingError, StopRequested
from drkun_tui.publishing.protocol import (
    Event,
    Failed,
    Finished,
    Phase,
    Progress,
    Proved,
    Request,
    Stopped,
    encode,
    read_request,
)
from drkun_tui.publishing.tasks import Calibrate, Convert, Merge, Prove, Quantise

IMATRIX = ".imatrix"
"""What the matrix that was computed for a file ends in, beside it. Its content is a GGUF, but no model's."""

_UNFINISHED = ".export-"
_LOCK = "lock"


def main() -> int:
    """Run the job; the exit code."""
    folder = Path(sys.argv[1])
    try:
        reporter = detached.Reporter(folder)
    except detached.RunsAlreadyError:
        return detached.RUNS_ALREADY
    request = read_request(folder)
    if request is None:
        sys.exit(f"no request in {folder}")
    export = Export(request, folder.name, reporter)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: export.stop())
    return export.run()


class Export:
    """A request on its way to a file."""

    def __init__(self, request: Request, id: str, reporter: detached.Reporter) -> None:
        self._request = request
        self._id = id
        self._reporter = reporter
        self._wish = False
        self._stage: Phase = "starting"
        self._began = 0.0

    def stop(self) -> None:
        """End soon, and leave nothing."""
        self._wish = True

    def run(self) -> int:
        """Make it; the exit code."""
        self._enter("starting")
        began = time.monotonic()
        try:
            set_language(settings.load(paths.settings_file()).language)
            store = paths.model_store()
            store.mkdir(parents=True, exist_ok=True)
            clean_up(store)
            work = store / f"{_UNFINISHED}{self._id}"
            work.mkdir()
            with filelock.FileLock(work / _LOCK):
                try:
                    size = self._make(work)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
            seconds = time.monotonic() - began
            path = str(self._request.result)
            self._tell(Finished(name=self._request.name, path=path, size=size, seconds=seconds))
            self._enter("done")
        except StopRequested:
            self._tell(Stopped())
            self._enter("stopped")
        except PublishingError as error:
            return self._fail(error.kind, error.values)
        except OSError as error:
            traceback.print_exc()
            if error.errno in steps.FULL:
                return self._fail("disk_full", {})
            told = {
                "folder": str(error.filename or paths.model_store()),
                "reason": error.strerror or str(error),
            }
            return self._fail("unwritable", {**told})
        except Exception as error:
            traceback.print_exc()
            return self._fail(
                "internal", {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            )
        return EXIT_DONE

    # What is made

    def _make(self, work: Path) -> int:
        """Everything up to the result in its place; its bytes."""
        request = self._request
        if request.target == targets.MERGED:
            made = work / "merged"
            made.mkdir()
            task = Merge(base=request.base, adapter=request.adapter, target=str(made))
            self._run("merging", "drkun_tui.publishing.merge", task)
            return self._place_folder(made, self._prove(made))
        self._enter("fetching")
        kept = str(converters.ensure(self._stopping))
        if request.target == targets.LORA:
            made = work / "lora.gguf"
            self._convert(kept, made, as_lora=True)
            # llama.cpp attaches it to a base in its own format.
            self._convert(kept, whole := work / "base.gguf", bare=True)
            return self._place_file(made, self._prove(whole, lora=made))
        self._convert(kept, whole := work / "whole.gguf")
        made, matrix = whole, request.imatrix
        if request.target not in targets.WHOLE:
            if request.imatrix_from:
                matrix = str(work / "computed.imatrix")
                self._calibrate(kept, whole, matrix)
            made = work / "quantised.gguf"
            self._run(
                "quantising",
                "drkun_tui.publishing.quantise",
                Quantise(
                    source=str(whole),
                    out=str(made),
                    file_type=targets.file_type(request.target),
                    threads=hardware.read().physical_cores,
                    imatrix=matrix,
                    converters=kept,
                ),
            )
            whole.unlink()
        proved = self._prove(made)
        return self._place_file(made, proved, matrix=Path(matrix) if request.imatrix_from else None)

    def _calibrate(self, kept: str, whole: Path, out: str) -> None:
        prompt = self._trained.prompt if self._trained else None
        task = Calibrate(
            model=str(whole),
            source=self._request.imatrix_from,
            out=out,
            converters=kept,
            base=self._request.base,
            template=prompt.template if prompt else "",
            system=prompt.system if prompt else "",
            threads=hardware.read().physical_cores,
        )
        self._run("calibrating", "drkun_tui.publishing.calibrate", task)

    def _convert(self, kept: str, out: Path, *, as_lora: bool = False, bare: bool = False) -> None:
        request = self._request
        trained = self._trained
        task = Convert(
            converters=kept,
            base=request.base,
            adapter="" if bare else request.adapter,
            as_lora=as_lora,
            out=str(out),
            out_type=self._out_type(as_lora=as_lora),
            name=request.name.rpartition("/")[2],
            base_name=self._base_name(as_lora=as_lora) if request.adapter and not bare else "",
            trained=provenance.dump(provenance.public(trained)) if trained and not bare else "",
            template="" if bare else self._template(),
        )
        self._run("converting", "drkun_tui.publishing.convert", task)

    def _base_name(self, *, as_lora: bool) -> str:
        """What the file calls its base. A GGUF LoRA goes with a GGUF, so for one that was unpacked from a
        GGUF it is that."""
        unpacked = provenance.read(Path(self._request.base)) if as_lora else None
        if unpacked is not None and not unpacked.trained and unpacked.base_model:
            return unpacked.base_model
        return card.base_named(self._request, self._trained)

    def _out_type(self, *, as_lora: bool) -> str:
        if as_lora:
            return "f16"
        if self._request.target in targets.WHOLE:
            return self._request.target.lower()
        # What is quantised loses nothing on its way.
        return "f16" if inventory.at(Path(self._request.base)).quantization == "F16" else "bf16"

    @property
    def _trained(self) -> Provenance | None:
        """How the source was trained."""
        return inventory.at(Path(self._request.adapter or self._request.base)).provenance

    def _template(self) -> str:
        """The chat template that the file must hold, where it is not the base's own."""
        trained = self._trained
        if trained is not None and trained.prompt.template in NAMED:
            return NAMED[trained.prompt.template]
        if self._request.adapter and not _own_template(self._request.base):
            return _own_template(self._request.adapter)
        return ""

    def _prove(self, made: Path, lora: Path | None = None) -> Proved:
        """Let only pass what says what its source says.

        Raises:
            PublishingError: what `targets.check` raises, or it cannot be compared.
        """
        machine, trained = hardware.read(), self._trained
        weights = inventory.at(Path(self._request.base)).size_bytes
        prompt = trained.prompt if trained else None
        task = Prove(
            base=self._request.base,
            adapter=self._request.adapter,
            model=str(made),
            lora=str(lora or ""),
            template=prompt.template if prompt else "",
            system=prompt.system if prompt else "",
            think=prompt is None or prompt.thinking_tags is not None,
            threads=machine.physical_cores,
            # 32 bits are exact, and on most processors quicker; beyond that it is a matter of memory.
            full=3 * weights < machine.ram_available,
        )
        found = Proved(**self._run("proving", "drkun_tui.publishing.prove", task))
        targets.check(self._request.target, found)
        self._tell(found)
        return found

    # Into its place

    def _place_folder(self, made: Path, proved: Proved) -> int:
        target = self._request.result
        if self._trained is not None:
            provenance.write(made, provenance.public(self._trained))
        text = card.of_export(self._request, self._trained, proved, _old_card(self._request))
        (made / "README.md").write_text(text, "utf8")
        target.parent.mkdir(parents=True, exist_ok=True)
        size = sum(size_of(file) for file in files_below(made))
        if target.exists():
            raise PublishingError("export_exists", name=self._request.name)
        made.rename(target)
        return size

    def _place_file(self, made: Path, proved: Proved, matrix: Path | None = None) -> int:
        """The file last: without it nothing in the folder is a model."""
        request, target = self._request, self._request.result
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise PublishingError("export_exists", name=request.name)
        text = card.of_export(request, self._trained, proved, _old_card(request))
        # Other types of the model lie in the same folder, each with a card of its own.
        detached.write_whole(target.with_suffix(".md"), text.encode())
        template = self._template() or _own_template(request.base)
        if request.target == targets.LORA:
            base = _base_of_lora(made, request)
            text = modelfile.write(base, template, self._trained, adapter=f"./{target.name}")
        else:
            text = modelfile.write(f"./{target.name}", template, self._trained)
        detached.write_whole(target.with_suffix(".Modelfile"), text.encode())
        if matrix is not None:
            matrix.rename(target.with_suffix(IMATRIX))
        size = size_of(made)
        made.rename(target)
        return size

    # Telling

    def _run(self, stage: Phase, module: str, task: msgspec.Struct) -> dict[str, Any]:
        self._enter(stage)
        self._began = time.monotonic()
        return steps.run(module, task, self._moved, self._stopping)

    def _moved(self, done: int, total: int) -> None:
        took = time.monotonic() - self._began
        speed = done / took if took else 0.0
        eta = (total - done) / speed if speed and total else None
        self._tell(Progress(stage=self._stage, done=done, total=total, speed=speed, eta_s=eta))

    def _stopping(self) -> bool:
        return self._wish or self._reporter.stop_requested

    def _enter(self, phase: Phase, error: Values | None = None) -> None:
        self._stage = phase
        self._reporter.state(phase, error)

    def _tell(self, event: Event) -> None:
        self._reporter.event(encode(event))

    def _fail(self, kind: str, values: Values) -> int:
        try:
            self._tell(Failed(kind=kind, values=values))
        finally:
            self._enter("failed", {"kind": kind, **values})
        return EXIT_FAILED


def clean_up(store: Path) -> None:
    """Remove what exports that were killed have left in the store; not what one is at work on."""
    for left in store.glob(f"{_UNFINISHED}*"):
        lock = filelock.FileLock(left / _LOCK)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            continue
        except OSError:  # it went meanwhile
            continue
        shutil.rmtree(left, ignore_errors=True)
        lock.release()


def _base_of_lora(lora: Path, request: Request) -> str:
    """The model that Ollama is to put a GGUF LoRA on: the base's GGUF where one is here, else its folder."""
    models = inventory.scan(plan.folders(settings.load(paths.settings_file())))
    found = adapters.named_base(inventory.at(lora), models)
    return str(found.path) if found is not None else request.base


def _own_template(folder: str) -> str:
    return inspection.details(inventory.at(Path(folder))).chat_template or ""


def _old_card(request: Request) -> str:
    return inspection.card(inventory.at(Path(request.adapter or request.base)))


if __name__ == "__main__":
    sys.exit(main())
