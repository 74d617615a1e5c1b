"""A stage: an importance matrix from a text or a data set. ``python -m drkun_tui.publishing.calibrate``

The whole model reads the text in chunks, each for itself, and what its weights are multiplied with is summed
up, as llama.cpp's ``imatrix`` does. A data set's examples are rendered as the model is trained and asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as binding
import numpy

from drkun_tui import paths, settings
from drkun_tui.errors import DrkunError
from drkun_tui.i18n import set_language
from drkun_tui.library.kinds import retold
from drkun_tui.publishing import imatrix, loading, pre_tokenizer, steps
from drkun_tui.publishing.activations import LEAST_ROWS, Activations
from drkun_tui.publishing.faults import PublishingError
from drkun_tui.publishing.tasks import Calibrate, is_text
from drkun_tui.training import tokens
from drkun_tui.training.data import encodings
from drkun_tui.training.data.dataset import prepare
from drkun_tui.training.data.splitting import TRAIN
from drkun_tui.training.recipe import Data
from drkun_tui.training.rendering import Renderer

CHUNK = 512
"""Tokens that are read together."""

MOST_CHUNKS = 100
"""After so many a matrix hardly changes."""

_MOST_BYTES = 16 * CHUNK * MOST_CHUNKS
"""Of a text: more than its chunks can have."""


def calibrate(task: Calibrate, tell: steps.Tell) -> dict[str, Any]:
    """Write it.

    Raises:
        PublishingError: ``calibration_short``, ``calibration_unreadable``, ``not_loadable``, ``not_numbers``,
            or what is wrong with the data set.
    """
    set_language(settings.load(paths.settings_file()).language)
    seen = Activations()
    params = binding.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CHUNK
    params.n_threads = params.n_threads_batch = task.threads
    params.op_offload = False
    params.cb_eval = seen.callback
    with loading.context(task.model, params) as (model, context):
        vocabulary = binding.llama_model_get_vocab(model)
        chunks = _chunks(vocabulary, _texts(task))
        size = CHUNK * len(chunks)
        for number, chunk in enumerate(chunks):
            binding.llama_memory_clear(binding.llama_get_memory(context), True)
            # All outputs are wanted: else the last block would see the last token alone.
            loading.evaluate(context, chunk, 0)
            seen.check()
            tell((number + 1) * CHUNK, size)
    imatrix.write(Path(task.out), Path(task.converters), seen.of, Path(task.source).name, len(chunks), CHUNK)
    return {"chunks": len(chunks), "tokens": sum(len(chunk) for chunk in chunks)}


def _chunks(vocabulary: Any, texts: Iterator[str]) -> list[list[int]]:
    """The texts behind one another in pieces of `CHUNK` tokens; what is left over only where there is no
    whole one. Where the model wants a first token, each piece begins with it.

    Raises:
        PublishingError: ``calibration_short``.
    """
    read: list[int] = []
    for text in texts:
        read += pre_tokenizer.tokens(vocabulary, text, special=True)
        if len(read) >= CHUNK * MOST_CHUNKS:
            break
    if len(read) < LEAST_ROWS:
        raise PublishingError("calibration_short", tokens=len(read), least=LEAST_ROWS)
    count = min(MOST_CHUNKS, max(1, len(read) // CHUNK))
    chunks = [read[number * CHUNK : (number + 1) * CHUNK] for number in range(count)]
    if binding.llama_vocab_get_add_bos(vocabulary):
        first = int(binding.llama_vocab_bos(vocabulary))
        chunks = [[first, *chunk[1:]] for chunk in chunks]
    return chunks


def _texts(task: Calibrate) -> Iterator[str]:
    """A text, or the examples of a data set in an order by chance."""
    source = Path(task.source)
    if is_text(task.source):
        try:
            with encodings.Utf8(source.open("rb"), encodings.find(source)[0]) as file:
                yield _read(file)
        except OSError as error:
            reason = error.strerror or str(error)
            raise PublishingError("calibration_unreadable", file=source.name, reason=reason) from error
        except DrkunError as error:
            raise PublishingError(error.kind, **retold(error)) from error
        return
    yield from _examples(task)


def _read(file: encodings.Utf8) -> str:
    raw = bytearray()
    piece = bytearray(1 << 16)
    while len(raw) < _MOST_BYTES and (count := file.readinto(memoryview(piece))):
        raw += piece[:count]
    return raw.decode("utf8", "ignore")


def _examples(task: Calibrate) -> Iterator[str]:
    import pyarrow as pa
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
    renderer = Renderer(tokenizer, task.template or "chat")
    with tempfile.TemporaryDirectory(dir=Path(task.out).parent) as aside:
        try:
            prepare(Data(path=task.source), Path(aside), 0, lambda *_: None, lambda: False)
        except DrkunError as error:
            raise PublishingError(error.kind, **retold(error)) from error
        with pa.OSFile(str(Path(aside, TRAIN))) as file:
            rows = pa.ipc.open_stream(file).read_all()
        for number in numpy.random.default_rng(0).permutation(rows.num_rows).tolist():
            text = renderer.render(tokens.example(rows.slice(number, 1).to_pylist()[0], task.system))
            yield text.prompt + text.response


if __name__ == "__main__":
    steps.serve(Calibrate, calibrate)
