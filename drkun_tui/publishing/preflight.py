"""What is looked at before an export begins, so that it is refused now and not after gigabytes."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from drkun_tui import hardware, paths
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import adapters, inventory
from drkun_tui.library.files import read_json
from drkun_tui.library.manage import checked_name, safe_name
from drkun_tui.library.model import Kind, Model
from drkun_tui.library.plan import folders
from drkun_tui.publishing import converters, targets
from drkun_tui.publishing.faults import PublishingError, error_of
from drkun_tui.publishing.protocol import Request
from drkun_tui.publishing.sources import other_method
from drkun_tui.publishing.tasks import is_text
from drkun_tui.settings import Settings

PACKAGES = ("torch", "transformers", "safetensors", "peft")

DEMO = "demo"
"""Names the data set that comes with the program."""

SPARE_BYTES = 256 * 1024 * 1024
"""Left free on the disk: tokenizer, card, and other programs."""

PROCESS_BYTES = 1024**3
"""A process with PyTorch and Transformers in it, and what it works with beside the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """An export that can begin.

    Attributes:
        disk_bytes: what it takes on the way, the result included.
        result_bytes: about how large the result is.
        memory_bytes: what it takes at most; the largest stage is the comparison with the source.
        warnings: sentences that somebody should read before it begins.
    """

    request: Request
    disk_bytes: int
    result_bytes: int
    memory_bytes: int
    warnings: tuple[str, ...] = ()


def check(
    model: str,
    target: str,
    settings: Settings,
    *,
    base: str = "",
    name: str = "",
    imatrix: str = "",
    imatrix_from: str = "",
) -> Preflight:
    """Look at everything that can be known before something is written.

    Args:
        model: an adapter or a base model, by name or path.
        target: as `drkun_tui.publishing.targets.parse` takes it.
        base: of an adapter that fits several; "" takes the one that it names.
        name: what the result is to be called, ``org/name``; "" takes the model's.
        imatrix: the file of an importance matrix, or "".
        imatrix_from: a text or a data set to compute one on, or "".

    Raises:
        DrkunError: it cannot begin, and why.
    """
    try:
        return _check(model, target, settings, base, name, imatrix, imatrix_from)
    except PublishingError as error:
        raise error_of(error.kind, error.values) from error


def _check(
    model: str, target: str, settings: Settings, base: str, name: str, imatrix: str, imatrix_from: str
) -> Preflight:
    target = targets.parse(target)
    where = folders(settings)
    source = inventory.find(model, where)
    _check_source(source, target)
    warnings = []
    if source.kind is Kind.LORA:
        _check_method(source, target)
        stem = source.name
        found = _base_of(source, base, inventory.scan(where))
        if adapters.base_for(source, [found]) is None and source.base_model:
            warnings.append(t("publishing.other_base", named=source.base_model, base=found.name))
        if source.provenance is None:
            warnings.append(t("publishing.no_provenance"))
    else:
        found = source
        stem = source.name
    parameters = _parameters(found)
    _check_packages(found, with_adapter=found is not source)
    _check_imatrix(target, imatrix, imatrix_from)
    folder, file, called = _place(stem, target, name)
    request = Request(
        model=source.name,
        base=str(found.path),
        base_name=found.name,
        adapter=str(source.path) if found is not source else "",
        target=target,
        folder=str(folder),
        file=file,
        name=called,
        imatrix=_absolute(imatrix),
        imatrix_from=imatrix_from if imatrix_from == DEMO else _absolute(imatrix_from),
    )
    result = targets.bytes_of(parameters, target) if target != targets.LORA else source.size_bytes
    between = 0 if target in targets.WHOLE or target == targets.MERGED else 2 * parameters
    need = result + between + SPARE_BYTES
    store = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(store).free
    if need > free:
        raise PublishingError("disk_short", need=need, free=free)
    # The source is loaded as it is stored.
    memory = found.size_bytes + source.size_bytes * (found is not source) + PROCESS_BYTES
    available = hardware.read().ram_available
    if memory > available:
        raise PublishingError("memory_short", need=memory, free=available)
    if converters.present() is False and target != targets.MERGED:
        warnings.append(t("publishing.fetches_converters"))
    return Preflight(
        request=request,
        disk_bytes=need,
        result_bytes=result,
        memory_bytes=memory,
        warnings=tuple(warnings),
    )


def _check_source(source: Model, target: str) -> None:
    why = ""
    if source.kind is Kind.GGUF_LORA or source.kind is Kind.GGUF:
        why = t("publishing.is_gguf")
    elif not source.complete:
        why = str(source.problems[0]).rstrip("。.")
    elif target == targets.LORA and source.kind is not Kind.LORA:
        why = t("publishing.is_no_adapter")
    elif target == targets.MERGED and source.kind is not Kind.LORA:
        why = t("publishing.is_merged")
    if why:
        raise PublishingError("not_exportable", name=source.name, reason=why)


def _check_method(adapter: Model, target: str) -> None:
    """What the adapter's configuration gives away; its weights are looked at when they are read."""
    config = read_json(adapter.path / "adapter_config.json")
    if other := other_method(config):
        raise PublishingError("not_only_lora", tensor=other)
    if target == targets.LORA and (saved := config.get("modules_to_save")):
        named = saved if isinstance(saved, list) else [saved]
        raise PublishingError("lora_has_weights", tensor=", ".join(map(str, named)))


def _base_of(adapter: Model, named: str, models: list[Model]) -> Model:
    """The base to merge with.

    Raises:
        PublishingError: ``no_base``.
        DrkunError: ``adapter_mismatch``, or there is no model of the name.
    """
    if named:
        found = inventory.chosen(named, models)
        if reason := adapters.mismatch(adapter, found):
            raise DrkunError("adapter_mismatch", reason, t("plan.mismatch_hint"), 3)
        return found
    of_name = adapters.base_for(adapter, models)
    if of_name is None:
        problem = adapter.problems[0] if adapter.problems else None
        told = problem.text if problem else t("publishing.several_bases")
        raise PublishingError("no_base", name=adapter.name, reason=told.rstrip("。."))
    return of_name


def fitting_bases(adapter: Model, settings: Settings) -> list[Model]:
    """The bases that are here and that an adapter can be merged with. Scans the folders."""
    models = inventory.scan(folders(settings))
    return [m for m in models if m.kind is Kind.BASE and m.complete and not adapters.mismatch(adapter, m)]


def _parameters(base: Model) -> int:
    """Of a base whose weights are whole and in 16 or 32 bits."""
    if not base.complete or base.shape is None:
        raise PublishingError("not_exportable", name=base.name, reason=str(base.problems[0]).rstrip("。."))
    if not base.shape.parameters or base.quantization not in ("BF16", "F16", "F32"):
        raise PublishingError("base_quantised", name=base.name, type=base.quantization or "?")
    return base.shape.parameters


def _check_packages(base: Model, *, with_adapter: bool) -> None:
    wanted = [*PACKAGES] if with_adapter else [name for name in PACKAGES if name != "peft"]
    if (base.path / "tokenizer.model").exists():
        wanted.append("sentencepiece")
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        raise PublishingError("packages_missing", packages=", ".join(missing))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _check_imatrix(target: str, imatrix: str, imatrix_from: str) -> None:
    if (imatrix or imatrix_from) and not targets.is_quantised(target):
        raise PublishingError("imatrix_unused", target=target)
    if imatrix_from:
        if imatrix_from != DEMO:
            _check_readable(Path(imatrix_from).expanduser(), "calibration_unreadable")
        if not is_text(imatrix_from) and importlib.util.find_spec("pyarrow") is None:
            raise PublishingError("packages_missing", packages="pyarrow")
        return
    if not imatrix:
        if target in targets.NEEDS_IMATRIX:
            raise PublishingError("needs_imatrix", target=target)
        return
    _check_readable(Path(imatrix).expanduser(), "imatrix_unreadable")


def is_matrix(path: Path) -> bool:
    """Is it an importance matrix already, and nothing to compute one on?"""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF" or path.suffix.lower() == ".dat"
    except OSError:
        return False


def _check_readable(path: Path, kind: str) -> None:
    """Also a folder, of which only a data set can be one."""
    try:
        if path.is_dir() and kind == "calibration_unreadable":
            return
        with path.open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise PublishingError(kind, file=path.name, reason=reason) from error


def _place(stem: str, target: str, name: str) -> tuple[Path, str, str]:
    """Folder, file name and library name of the result.

    Raises:
        PublishingError: ``export_exists``.
        DrkunError: the name leads somewhere else.
    """
    organisation, _, short = (checked_name(name) if name else safe_name(stem)).rpartition("/")
    organisation = organisation or "drkun"
    if target == targets.MERGED:
        called = f"{organisation}/{short}" + ("" if name else "-merged")
        folder, file = paths.model_store() / called, ""
    else:
        folder = paths.model_store() / organisation / f"{short}-GGUF"
        file = f"{short}-{'LoRA-F16' if target == targets.LORA else target}.gguf"
        called = f"{organisation}/{short}-GGUF/{file.removesuffix('.gguf')}"
    if (folder / file).exists():
        raise PublishingError("export_exists", name=called)
    return folder, file, called
