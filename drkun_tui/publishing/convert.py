"""A stage: safetensors to GGUF through llama.cpp's converter. ``python -m drkun_tui.publishing.convert``

An adapter is added to each weight on its way, so that no merged copy of the model is written first. What the
file must say of itself beside what the converter finds (name, template, how it was trained) is added to its
metadata.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from drkun_tui.library import provenance
from drkun_tui.library.files import read_json
from drkun_tui.publishing import lora, pre_tokenizer, steps
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.lora import Changes, LowRank
from drkun_tui.publishing.sources import weight_files
from drkun_tui.publishing.tasks import Convert

_TEMPLATE = "tokenizer.chat_template"
_ENDS = "tokenizer.ggml.eos_token_id"
_LOCAL = ("general.source.url", "general.source.repo_url", "general.url", "general.repo_url")


def convert(task: Convert, tell: steps.Tell) -> dict[str, Any]:
    """Write it.

    Raises:
        PublishingError: ``unknown_architecture``, ``unknown_tokenizer``, or what is wrong with the adapter.
        OSError: it cannot be written.
    """
    sys.path.insert(0, task.converters)
    # Imported late: from the folder that the task names, and with the `gguf` beside it.
    import conversion  # type: ignore[import-not-found]
    import gguf

    _trust_no_code()
    _tell_of_writing(tell)
    base = Path(task.base)
    hparams = conversion.ModelBase.load_hparams(base, False)
    try:
        found = conversion.get_model_class(
            architecture := conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
        )
    except (NotImplementedError, KeyError, ValueError) as error:
        named = str((hparams.get("architectures") or ["?"])[0])
        raise PublishingError("unknown_architecture", name=named) from error
    if task.as_lora:
        changes = lora.read(Path(task.adapter), lora.shapes_of(weight_files(base)))
        _adding_metadata(gguf, task)
        with tempfile.TemporaryDirectory(dir=Path(task.out).parent) as aside:
            _write_lora(task, evenly_scaled(Path(task.adapter), changes, Path(aside)))
        return {"pre": ""}
    changes = Changes()
    if task.adapter:
        changes = lora.read(Path(task.adapter), lora.shapes_of(weight_files(base)))
    _adding_metadata(gguf, task)
    kind = _adapted(found, changes, conversion.LazyTorchTensor)
    file_type = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}[task.out_type]

    def write() -> None:
        with torch.inference_mode():
            kind(
                base, getattr(gguf.LlamaFileType, file_type), Path(task.out), model_name=task.name,
                metadata_override=None,
            ).write()  # fmt: skip

    try:
        write()
    except _UnknownTokenizerError as error:
        kind.pre = pre_tokenizer.find(
            error.tokenizer, _known_names(found), Path(task.out).with_suffix(".vocab"),
            lambda path: _write_vocab(kind, base, gguf, path, task.name),
        )  # fmt: skip
        write()
    return {"pre": kind.pre, "architecture": architecture}


class _UnknownTokenizerError(Exception):
    """The converter does not know how this tokenizer splits a text before it looks for tokens."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer


def _adapted(found: Any, changes: Changes, lazy_kind: Any) -> Any:
    """The converter's class for this architecture, with an adapter's changes, and asked about tokenizers."""

    class Adapted(found):  # type: ignore[misc]
        model_arch = found.model_arch
        pre = ""

        @classmethod
        def filter_tensors(cls, item: tuple[str, Callable[[], Any]]) -> Any:
            name, stored = item
            if name in changes.of:
                item = (name, lambda: changed(name, stored()))
            return super().filter_tensors(item)

        def get_vocab_base_pre(self, tokenizer: Any) -> str:
            if self.pre:
                return self.pre
            try:
                return str(super().get_vocab_base_pre(tokenizer))
            except NotImplementedError as error:
                raise _UnknownTokenizerError(tokenizer) from error

    def changed(name: str, weight: Any) -> Any:
        # In 32 bits up to the file, so that the small changes are not rounded away twice.
        meta = lazy_kind.meta_with_dtype_and_shape(torch.float32, weight.shape)
        return lazy_kind(
            meta=meta, args=(weight,), func=lambda eager: changes.apply(name, eager, torch.float32)
        )

    return Adapted


def _known_names(found: Any) -> list[str]:
    """Every pre-tokenizer that the converter knows, in its order."""
    source = inspect.getsource(found.get_vocab_base_pre)
    return list(dict.fromkeys(re.findall(r'res = "([\w.-]+)"', source)))


def _write_vocab(kind: Any, base: Path, gguf: Any, path: Path, name: str) -> None:
    """A GGUF with the vocabulary alone."""
    kind.pre = "default"
    kind(base, gguf.LlamaFileType.MOSTLY_F16, path, model_name=name).write_vocab()


def evenly_scaled(adapter: Path, changes: Changes, aside: Path) -> Path:
    """An adapter in which every change is scaled by ``alpha / rank``, as llama.cpp reads it: this one, or a
    copy of it whose ``B`` make up for another rule.

    Raises:
        PublishingError: ``lora_has_weights``: the converter takes pairs of ``A`` and ``B``, and nothing else.
    """
    config = json.loads((adapter / "adapter_config.json").read_text("utf8"))
    even = True
    weights: dict[str, torch.Tensor] = {}
    for name, change in changes.of.items():
        if not isinstance(change, LowRank):
            raise PublishingError("lora_has_weights", tensor=name)
        factor = change.scale * change.down.shape[0] / config["lora_alpha"]
        even = even and math.isclose(factor, 1)
        module = f"base_model.model.{name.removesuffix('.weight')}"
        kind = "lora_embedding_{}" if change.transposed else "lora_{}.weight"
        weights[f"{module}.{kind.format('A')}"] = change.down.contiguous()
        weights[f"{module}.{kind.format('B')}"] = (change.up.float() * factor).contiguous()
    if even:
        return adapter
    save_file(weights, aside / "adapter_model.safetensors")
    shutil.copyfile(adapter / "adapter_config.json", aside / "adapter_config.json")
    return aside


def _write_lora(task: Convert, adapter: Path) -> None:
    """As ``convert_lora_to_gguf.py --base`` does; it has no function to call."""
    script = Path(task.converters, "convert_lora_to_gguf.py")
    before = sys.argv
    sys.argv = [
        *(str(script), "--base", task.base, "--outfile", task.out, "--outtype", task.out_type, str(adapter))
    ]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise PublishingError("converter_refused", reason=str(error.code)) from error
    finally:
        sys.argv = before


def _adding_metadata(gguf: Any, task: Convert) -> None:
    """Let every file that is written say more of itself."""
    before = gguf.GGUFWriter.write_header_to_file
    texts = {
        "general.name": task.name,
        provenance.GGUF_KEY: task.trained,
        _TEMPLATE: "" if task.as_lora else task.template,
    }
    if task.base_name:
        texts["general.base_model.0.name"] = task.base_name
    base = Path(task.base)

    def write(self: Any, path: Path | None = None) -> None:
        # What the converter took from folders' names and cards would lead nowhere elsewhere.
        for key in _LOCAL:
            self.remove_key(key)
        for key, text in texts.items():
            if text:
                self.remove_key(key)
                self.add_string(key, text)
        if task.base_name:
            for key in ("count", "0.organization", "0.repo_url", "0.version"):
                self.remove_key(f"general.base_model.{key}")
            self.add_uint32("general.base_model.count", 1)
            if "/" in task.base_name:
                self.add_base_model_organization(0, task.base_name.partition("/")[0])
        found = self.kv_data[0].get(_ENDS)
        own = found.value if found else None
        if not task.as_lora and (ends := end_of_answer(base, own)) not in (None, own):
            self.remove_key(_ENDS)
            self.add_uint32(_ENDS, ends)
        before(self, path)

    gguf.GGUFWriter.write_header_to_file = write


def _trust_no_code() -> None:
    """Some of the converter's classes would run code that lies beside a model."""
    from transformers import AutoConfig, AutoTokenizer

    def safely(load: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **options: load(*given, **{**options, "trust_remote_code": False})

    kinds: tuple[Any, ...] = (AutoConfig, AutoTokenizer)
    for kind in kinds:
        kind.from_pretrained = safely(kind.from_pretrained)


def end_of_answer(base: Path, own: int | None) -> int | None:
    """The token that generation ends at. The generation's configuration knows better than the tokenizer's;
    where it names several, and that one among them, an answer ends with that one.

    Args:
        base: the model's folder.
        own: the tokenizer's, which the converter takes.
    """
    told = read_json(base / "generation_config.json").get("eos_token_id")
    ends = [end for end in (told if isinstance(told, list) else [told]) if isinstance(end, int)]
    return own if own in ends or not ends else ends[0]


def _tell_of_writing(tell: steps.Tell) -> None:
    """The converter shows bytes through tqdm."""
    import tqdm  # type: ignore[import-untyped]

    class Bar:
        """What the writer uses of a progress bar."""

        def __init__(self, total: int | None = None, **_: Any) -> None:
            self._done, self._total = 0, total or 0

        def update(self, count: int) -> None:
            """So many bytes more."""
            self._done += count
            tell(self._done, self._total)

    tqdm.tqdm = Bar


if __name__ == "__main__":
    steps.serve(Convert, convert)
