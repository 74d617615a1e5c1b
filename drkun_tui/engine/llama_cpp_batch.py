"""Many questions at once through llama.cpp: each has a sequence of its own in one context, and a step
evaluates one token of every answer and the prompts of those that begin.

A CPU reads the weights once for all of them, so twenty answers take little longer than a few; and an answer
that ends makes room for the next question at once.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as binding
import numpy as np

from drkun_tui.engine import prompting
from drkun_tui.engine.base import EngineError, Piece, Prompt
from drkun_tui.engine.llama_cpp import BATCH, LlamaCpp
from drkun_tui.engine.llama_sampler import Sampler
from drkun_tui.engine.protocol import Generate, Load, Score

LOGITS_BYTES = 64 * 1024**2
"""Of the logits that are kept at once while a response is scored."""


@dataclass(slots=True)
class _Sequence:
    """One answer.

    Attributes:
        place: its number in the context.
        pending: tokens that are not evaluated yet: the rest of the prompt, or the last token.
        position: of the first of `pending`.
        left: tokens that may still come.
    """

    id: int
    place: int
    pending: list[int]
    left: int
    sampler: Sampler
    position: int = 0
    text: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf8")("replace")
    )


class LlamaCppBatch(LlamaCpp):
    """See `drkun_tui.engine.base.BatchEngine`."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[_Sequence] = []
        self._places: list[int] = []

    def _make_context(self, request: Load) -> Any:
        params = self._context_params(request)
        # Each sequence gets its share; a common cache would be searched whole for every token.
        params.n_ctx = request.context_length * request.sequences
        params.n_seq_max = request.sequences
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = request.threads
        made = binding.llama_init_from_model(self._model, params)
        if not made:
            raise EngineError("no_memory", context=params.n_ctx, reason=self._last_error())
        self._places = list(reversed(range(request.sequences)))
        self._batch = binding.llama_batch_init(BATCH, 0, 1)
        return made

    @property
    def free(self) -> int:
        """See `BatchEngine.free`."""
        return len(self._places)

    def begin(self, request: Generate) -> Prompt:
        """See `BatchEngine.begin`."""
        tokens, prompt = prompting.build(request, self._template, self._tokenize, self._n_ctx, lambda _: 0)
        room = self._n_ctx - len(tokens)
        most = min(request.sampling.max_tokens or room, room)
        sampler = self._sampler(request.sampling, prompt.seed)
        self._running.append(_Sequence(request.id, self._places.pop(), tokens, most, sampler))
        return prompt

    def step(self) -> list[Piece]:
        """See `BatchEngine.step`."""
        sampled = self._fill()
        try:
            self._decode_batch()
            return [piece for sequence, row in sampled for piece in self._next(sequence, row)]
        except EngineError:
            for sequence in list(self._running):
                self._end(sequence)
            raise

    def score(self, request: Score) -> tuple[float, int]:
        """See `BatchEngine.score`."""
        prompt, response = prompting.scored(request, self._template, self._tokenize, self._stops, self._n_ctx)
        place = self._places.pop()
        loss, tokens, begin = 0.0, prompt + response, 0
        # The logits at a token are of the one behind it, so the last one is not evaluated.
        first, last = len(prompt) - 1, len(tokens) - 1
        most = max(1, LOGITS_BYTES // (4 * binding.llama_vocab_n_tokens(self._vocab)))
        try:
            while begin < last:
                end = min(begin + BATCH, max(begin, first) + most, last)
                self._batch.n_tokens = 0
                for position in range(begin, end):
                    self._put(tokens[position], position, place, logits=position >= first)
                self._decode_batch()
                scored = range(max(begin, first), end)
                loss += sum(self._loss_of(position - begin, tokens[position + 1]) for position in scored)
                begin = end
        finally:
            binding.llama_memory_seq_rm(self._memory, place, -1, -1)
            self._places.append(place)
        return loss, len(response)

    def _fill(self) -> list[tuple[_Sequence, int]]:
        """Put into the batch what comes next of every answer, those that decode first; who gets a token from
        it, with the row of its logits."""
        self._batch.n_tokens = 0
        sampled, room, parts = [], BATCH, {}
        for sequence in sorted(self._running, key=lambda sequence: len(sequence.pending)):
            part = sequence.pending[:room]
            del sequence.pending[: len(part)]
            parts[sequence.place], room = (sequence, part), room - len(part)
        # llama.cpp computes together only sequences whose numbers follow on each other.
        for _, (sequence, part) in sorted(parts.items()):
            for token in part:
                self._put(token, sequence.position, sequence.place, logits=False)
                sequence.position += 1
            if part and not sequence.pending:
                row = self._batch.n_tokens - 1
                self._batch.logits[row] = True
                sampled.append((sequence, row))
        return sampled

    def _put(self, token: int, position: int, place: int, *, logits: bool) -> None:
        row, batch = self._batch.n_tokens, self._batch
        batch.token[row], batch.pos[row], batch.logits[row] = token, position, logits
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, place
        batch.n_tokens = row + 1

    def _decode_batch(self) -> None:
        if code := binding.llama_decode(self._context, self._batch):
            raise EngineError("decode_failed", code=code, reason=self._last_error())

    def _next(self, sequence: _Sequence, row: int) -> list[Piece]:
        """The next token of an answer, and its end where that comes with it."""
        token = sequence.sampler.sample(self._context, row)
        if token in self._stops:
            self._end(sequence)
            return [Piece(sequence.id, reason="stop")]
        piece = Piece(sequence.id, sequence.text.decode(self._token_bytes(token)))
        sequence.left -= 1
        if not sequence.left:
            self._end(sequence)
            return [piece, Piece(sequence.id, reason="length")]
        sequence.pending.append(token)
        return [piece]

    def _end(self, sequence: _Sequence) -> None:
        sequence.sampler.free()
        binding.llama_memory_seq_rm(self._memory, sequence.place, -1, -1)
        self._running.remove(sequence)
        self._places.append(sequence.place)

    def _loss_of(self, row: int, token: int) -> float:
        """−log p of a token by the logits of a row of the batch."""
        size = binding.llama_vocab_n_tokens(self._vocab)
        logits = np.ctypeslib.as_array(binding.llama_get_logits_ith(self._context, row), (size,))
        wide = logits.astype(np.float64)
        most = wide.max()
        return float(most + np.log(np.exp(wide - most).sum()) - wide[token])
