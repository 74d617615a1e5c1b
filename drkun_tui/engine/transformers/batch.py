"""Many questions at once through Transformers: prompts padded on the left, decoded together.

Answers that have ended leave the batch at once. When it is half empty, or new questions would double it, it
begins anew with all there are: what the answers have so far is then evaluated again, which a prefill does
far quicker than steps. Each step is a forward of Transformers' own, so every adapter goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import DynamicCache

from drkun_tui.engine import prompting
from drkun_tui.engine.base import PENALTY_LAST_N, Emit, EngineError, Piece, Prompt
from drkun_tui.engine.protocol import Generate, Load, Ready, Score
from drkun_tui.engine.transformers.engine import PRIMED, Transformers
from drkun_tui.engine.transformers.generic import refuse_recurrent
from drkun_tui.engine.transformers.sampling import INVALID
from drkun_tui.sampling import Sampling

SCORED_AT_ONCE = 256
"""Tokens whose logits are computed at once: those of a large vocabulary take half a megabyte each."""


@dataclass(slots=True)
class _Row:
    """One answer.

    Attributes:
        prompt: its tokens.
        uniform: a number for each token that it may have, from 0 to 1, by which it is drawn.
        stream: turns tokens into text.
        tokens: chosen so far.
    """

    id: int
    prompt: list[int]
    sampling: Sampling
    uniform: list[float]
    stream: Any
    tokens: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """What is decoded together; its tensors have a row for each answer.

    Attributes:
        mask: which positions of the cache hold something, [rows, length].
        recent: the tokens that the repeat penalty looks back on, [rows, `PENALTY_LAST_N`]; the vocabulary's
            size stands for none.
        settings: repeat penalty, temperature, top-k and top-p, [4, rows, 1].
    """

    rows: list[_Row]
    cache: DynamicCache
    mask: Tensor
    recent: Tensor
    settings: Tensor

    def keep(self, places: list[int]) -> None:
        """Go on with these rows only."""
        index = torch.tensor(places, device=self.mask.device)
        self.rows = [self.rows[place] for place in places]
        self.cache.batch_select_indices(index)
        self.mask, self.recent = self.mask[index], self.recent[index]
        self.settings = self.settings[:, index]


class TransformersBatch(Transformers):
    """See `drkun_tui.engine.base.BatchEngine`."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[_Row] = []
        self._together: _Batch | None = None

    def load(self, request: Load, emit: Emit) -> Ready:
        """See `BatchEngine.load`."""
        self._sequences = request.sequences
        return super().load(request, emit)

    def _prepare_decoding(self) -> None:
        refuse_recurrent(self._model)
        self._vocabulary: int = self._model.config.get_text_config().vocab_size

    def _adapt(self) -> None:
        """The model's own forward has the adapter in it."""

    def _warm_up(self) -> None:
        self._loss([0], [0, 0])

    @property
    def free(self) -> int:
        """See `BatchEngine.free`."""
        return max(0, self._sequences - len(self._rows))

    def begin(self, request: Generate) -> Prompt:
        """See `BatchEngine.begin`."""
        tokens, prompt = prompting.build(request, self._template, self._tokenize, self._n_ctx, lambda _: 0)
        room = self._n_ctx - len(tokens)
        most = min(request.sampling.max_tokens or room, room)
        # Drawn on the host, as the engine for one answer does: the same numbers on every device.
        uniform = torch.rand(most, generator=torch.Generator().manual_seed(prompt.seed)).tolist()
        stream = DecodeStream(ids=tokens[-PRIMED:], skip_special_tokens=True)
        self._rows.append(_Row(request.id, tokens, request.sampling, uniform, stream))
        return prompt

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """See `BatchEngine.step`."""
        try:
            with self._memory():
                return self._advance()
        except EngineError as error:
            self._together = None
            if error.kind.startswith("gpu_out_of_memory") and len(self._rows) > 1:
                # What the answers have so far stays; fewer of them go on at a time.
                self._sequences = len(self._rows) // 2
                return []
            self._rows.clear()
            raise

    def score(self, request: Score) -> tuple[float, int]:
        """See `BatchEngine.score`."""
        prompt, response = prompting.scored(request, self._template, self._tokenize, self._stops, self._n_ctx)
        with self._memory():
            return self._loss(prompt, response), len(response)

    @torch.inference_mode()
    def _loss(self, prompt: list[int], response: list[int]) -> float:
        """The cross entropy of a response after its prompt, summed, in nats."""
        cache = DynamicCache(config=self._model.config)
        tokens = torch.tensor([prompt + response], device=self._device)
        # The logits at a token are of the one behind it.
        begin, last = len(prompt) - 1, tokens.shape[1] - 1
        if begin:
            self._model(input_ids=tokens[:, :begin], past_key_values=cache, use_cache=True, logits_to_keep=1)
        loss = 0.0
        for first in range(begin, last, SCORED_AT_ONCE):
            end = min(first + SCORED_AT_ONCE, last)
            told = self._model(input_ids=tokens[:, first:end], past_key_values=cache, use_cache=True)
            wanted = tokens[0, first + 1 : end + 1]
            loss += float(torch.nn.functional.cross_entropy(told.logits[0].float(), wanted, reduction="sum"))
        return loss

    # Answers

    def _advance(self) -> list[Piece]:
        """A token for each answer of the batch."""
        batch = self._together
        if batch is None or 2 * len(batch.rows) <= min(len(self._rows), self._sequences):
            self._together = None  # its memory is needed
            batch, logits = self._prefill(self._rows[: self._sequences])
            self._together = batch
        else:
            newest = torch.tensor([[row.tokens[-1]] for row in batch.rows], device=self._device)
            batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
            positions = batch.mask.sum(1, keepdim=True) - 1
            logits = self._forward(batch, newest, positions)
        chosen = self._choose(batch, logits)
        pieces, goes_on = [], []
        for place, (row, token) in enumerate(zip(batch.rows, chosen.tolist(), strict=True)):
            told = self._take(row, token)
            pieces += told
            if told[-1].reason is None:
                goes_on.append(place)
            else:
                self._rows.remove(row)
        if not goes_on:
            self._together = None
        elif len(goes_on) < len(batch.rows):
            batch.keep(goes_on)
        return pieces

    def _prefill(self, rows: list[_Row]) -> tuple[_Batch, Tensor]:
        """A batch of these answers, and the logits of their next tokens."""
        texts = [row.prompt + row.tokens for row in rows]
        length = max(map(len, texts))
        tokens = torch.tensor([[0] * (length - len(text)) + text for text in texts], device=self._device)
        mask = torch.tensor(
            [[0] * (length - len(text)) + [1] * len(text) for text in texts], device=self._device
        )
        recent = [row.tokens[-PENALTY_LAST_N:] for row in rows]
        nothing = [self._vocabulary] * PENALTY_LAST_N
        settings = [
            (s.repeat_penalty, s.temperature, s.top_k or self._vocabulary, s.top_p)
            for s in (row.sampling for row in rows)
        ]
        batch = _Batch(
            rows=rows,
            cache=DynamicCache(config=self._model.config),
            mask=mask,
            recent=torch.tensor([(nothing + seen)[-PENALTY_LAST_N:] for seen in recent], device=self._device),
            settings=torch.tensor(settings, device=self._device).T[:, :, None],
        )
        return batch, self._forward(batch, tokens, (mask.cumsum(1) - 1).clamp(min=0))

    def _forward(self, batch: _Batch, tokens: Tensor, positions: Tensor) -> Tensor:
        """The logits behind the last token of each row, [rows, vocabulary], 32 bits."""
        told = self._model(
            input_ids=tokens,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = told.logits[:, -1].float()
        return logits

    def _choose(self, batch: _Batch, logits: Tensor) -> Tensor:
        """The next token of each row, in the stages of `sampling.Picker`; `INVALID` where the logits are no
        numbers."""
        penalty, temperature, top_k, top_p = batch.settings
        # One more than the vocabulary: where the penalty for "no token" goes.
        scores = torch.nn.functional.pad(logits, (0, 1))
        seen = scores.gather(1, batch.recent)
        scores.scatter_(1, batch.recent, torch.where(seen > 0, seen / penalty, seen * penalty))
        scores = scores[:, :-1]
        best, token = scores.max(1, keepdim=True)
        if any(row.sampling.temperature > 0 for row in batch.rows):
            scores, order = scores.sort(1, descending=True)
            ranks = torch.arange(scores.shape[1], device=scores.device)
            scores = scores.masked_fill(ranks >= top_k, float("-inf"))
            likely = scores.softmax(1)
            kept = likely.cumsum(1) - likely < top_p
            greedy = temperature <= 0
            tempered = (scores / torch.where(greedy, 1.0, temperature)).masked_fill(~kept, float("-inf"))
            reached = tempered.softmax(1).cumsum(1)
            uniform = torch.tensor([[row.uniform[len(row.tokens)]] for row in batch.rows])
            wanted = uniform.to(reached.device) * reached[:, -1:]
            rank = torch.searchsorted(reached, wanted, right=True)
            # The last share may be rounded away.
            rank = torch.minimum(rank, kept.sum(1, keepdim=True) - 1).clamp_(min=0)
            token = torch.where(greedy, token, order.gather(1, rank))
        # Not a number is the greatest of all, so the best score tells of any.
        token = torch.where(torch.isnan(best), INVALID, token)
        batch.recent = torch.cat([batch.recent[:, 1:], token.clamp(min=0)], 1)
        return token[:, 0]

    def _take(self, row: _Row, token: int) -> list[Piece]:
        """A token of an answer, and its end where that comes with it."""
        if self._check(token) in self._stops:
            return [Piece(row.id, reason="stop")]
        row.tokens.append(token)
        piece = Piece(row.id, self._shown.get(token) or row.stream.step(self._backend, token) or "")
        return [piece] if len(row.tokens) < len(row.uniform) else [piece, Piece(row.id, reason="length")]
