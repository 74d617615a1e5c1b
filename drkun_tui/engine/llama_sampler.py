"""How the llama.cpp engines choose a token: llama.cpp's own sampler chain, over the tokens that can win.

The chain walks all of a vocabulary at each step, the repeat penalty looking each token up in a table: a
millisecond for one of 150,000 tokens, a third of a GPU's whole step. With top-k only the likeliest tokens and
those that a penalty below 1 raises can be chosen, so only they are handed over; the choice is the same.
"""

from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

import llama_cpp as binding
import numpy as np
from numpy.typing import NDArray

from drkun_tui.engine.base import PENALTY_LAST_N, EngineError
from drkun_tui.sampling import Sampling

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""As ``llama_token_data``."""

_ROWS = 32
"""Tokens that share one maximum in the first look at the logits."""


class Sampler:
    """Chooses the tokens of one answer; `free` it in the end.

    Args:
        vocabulary: tokens in it.
        seed: of the random numbers.
    """

    def __init__(self, vocabulary: int, sampling: Sampling, seed: int) -> None:
        self._size = vocabulary
        self._chain: Any = binding.llama_sampler_chain_init(binding.llama_sampler_chain_default_params())
        self._recent: deque[int] = deque(maxlen=PENALTY_LAST_N)
        penalised, self._raises = sampling.repeat_penalty != 1.0, sampling.repeat_penalty < 1.0
        greedy = sampling.temperature <= 0
        keep = 1 if greedy else sampling.top_k
        # So many may lose their places to the penalty. Without top-k everybody may win.
        self._likely = (keep + (PENALTY_LAST_N if penalised else 0)) if keep else vocabulary
        stages = []
        if penalised:
            penalty = sampling.repeat_penalty
            stages.append(binding.llama_sampler_init_penalties(vocabulary, PENALTY_LAST_N, penalty, 0.0, 0.0))
        if greedy:
            stages.append(binding.llama_sampler_init_greedy())
        else:
            if sampling.top_k > 0:
                stages.append(binding.llama_sampler_init_top_k(sampling.top_k))
            stages += [
                binding.llama_sampler_init_top_p(sampling.top_p, 1),
                binding.llama_sampler_init_temp(sampling.temperature),
                binding.llama_sampler_init_dist(seed & 0xFFFFFFFF),
            ]
        for stage in stages:
            binding.llama_sampler_chain_add(self._chain, stage)

    def accept(self, token: int) -> None:
        """Count a token as said."""
        self._recent.append(token)
        binding.llama_sampler_accept(self._chain, token)

    def sample(self, context: Any, row: int) -> int:
        """Choose by the logits of a row of the context's last batch, and count the token as said."""
        logits = binding.llama_get_logits_ith(context, row)
        token = self.choose(np.ctypeslib.as_array(logits, (self._size,)))
        self.accept(token)
        return token

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token.

        Args:
            logits: one for each token of the vocabulary; not changed.

        Raises:
            EngineError: they are no numbers.
        """
        if self._likely == 1:
            return self._greatest(logits)
        ids = self._candidates(logits)
        # Not a number is never as great as a bound, nor a bound itself.
        if not len(ids) or np.isnan(logits[ids]).any():
            raise EngineError("not_numbers")
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits[ids]
        told = binding.llama_token_data_array(
            data=candidates.ctypes.data_as(ctypes.POINTER(binding.llama_token_data)),
            size=len(ids),
            selected=-1,
            sorted=False,
        )
        binding.llama_sampler_apply(self._chain, ctypes.byref(told))
        # A stage may put others in front, and has its own order.
        return int(told.data[told.selected].id)

    def _greatest(self, logits: NDArray[np.float32]) -> int:
        token = int(logits.argmax())
        # What is not a number counts as the greatest.
        if np.isnan(logits[token]):
            raise EngineError("not_numbers")
        return token

    def _candidates(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The `_likely` tokens with the greatest logits, or some more, and those that a penalty below 1 may
        raise to them."""
        whole = self._size - self._size % _ROWS
        peaks = np.concatenate([logits[:whole].reshape(_ROWS, -1).max(axis=0), logits[whole:]])
        if self._likely >= len(peaks):
            return np.arange(self._size)
        # So many peaks are no lower, each of a token of its own: at least as many tokens are.
        bound = np.partition(peaks, -self._likely)[-self._likely]
        likely = np.flatnonzero(logits >= bound)
        if not self._raises:
            return likely
        recent = np.unique(np.fromiter(self._recent, np.intp, len(self._recent)))
        return np.concatenate([likely, recent[logits[recent] < bound]])

    def free(self) -> None:
        """Give the chain back."""
        binding.llama_sampler_free(self._chain)
