"""Choosing the next token on the device, so that decoding never waits for the host.

The stages and their order are those of the llama.cpp engine: repeat penalty, top-k, top-p on the
probabilities at temperature 1, temperature, draw. Every number that differs between answers lies in device
memory, so one captured graph serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from drkun_tui.engine.base import PENALTY_LAST_N
from drkun_tui.sampling import Sampling

INVALID = -1
"""Stands in `Picker.chosen` where the logits were not numbers."""


class Picker:
    """The device's side of decoding: where it stands, and what it chose.

    Args:
        vocabulary: number of logits.
        capacity: positions of the context.
        device: where all of this lives.
    """

    def __init__(self, vocabulary: int, capacity: int, device: torch.device) -> None:
        self.vocabulary = vocabulary
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        """Of the token that is evaluated next."""
        self.token = torch.zeros(1, dtype=torch.long, device=device)
        """The token that is evaluated next."""
        self.chosen = torch.zeros(capacity + 1, dtype=torch.long, device=device)
        """Every token chosen so far, at its position."""
        # One more than the vocabulary: where the penalty for "no token" goes.
        self._scores = torch.zeros(vocabulary + 1, device=device)
        self._recent = torch.full((PENALTY_LAST_N,), vocabulary, dtype=torch.long, device=device)
        self._ranks = torch.arange(vocabulary, device=device)
        self._uniform = torch.zeros(capacity + 1, device=device)
        self._penalty, self._temperature, self._top_p = (torch.ones((), device=device) for _ in range(3))
        self._top_k = torch.zeros((), dtype=torch.long, device=device)

    @property
    def logits(self) -> Tensor:
        """What the decoder writes, [vocabulary], 32 bits."""
        return self._scores[: self.vocabulary]

    def begin(self, sampling: Sampling, seed: int, position: int, recent: Sequence[int]) -> None:
        """Set up an answer.

        Args:
            sampling: its settings; greedy ones ask for `pick_greedy`.
            seed: the draws depend on it alone.
            position: of the first token that will be chosen.
            recent: tokens of a partial answer, which the repeat penalty goes on from.
        """
        self.position.fill_(position)
        self._penalty.fill_(sampling.repeat_penalty)
        self._temperature.fill_(sampling.temperature or 1.0)
        self._top_p.fill_(sampling.top_p)
        self._top_k.fill_(sampling.top_k or self.vocabulary)
        # Drawn on the host: the same numbers on every device.
        generator = torch.Generator().manual_seed(seed)
        self._uniform[position:].copy_(torch.rand(len(self._uniform) - position, generator=generator))
        self._recent.fill_(self.vocabulary)
        last = recent[-PENALTY_LAST_N:]
        places = torch.arange(position - len(last), position) % PENALTY_LAST_N
        self._recent[places.to(self._recent.device)] = torch.tensor(
            last, dtype=torch.long, device=self._recent.device
        )

    def pick_greedy(self) -> None:
        """Choose the likeliest token."""
        best, token = self._penalised().max(0, keepdim=True)
        self._choose(token, best)

    def pick_sampled(self) -> None:
        """Draw a token, by inverting the cumulative distribution at this position's uniform number."""
        scores, order = self._penalised().sort(descending=True)
        scores.masked_fill_(self._ranks >= self._top_k, float("-inf"))
        likely = scores.softmax(0)
        kept = likely.cumsum(0) - likely < self._top_p
        tempered = (scores / self._temperature).masked_fill_(~kept, float("-inf")).softmax(0)
        reached = tempered.cumsum(0)
        wanted = self._uniform[self.position] * reached[-1]
        rank = torch.searchsorted(reached, wanted, right=True)
        # The last share may be rounded away.
        rank = torch.minimum(rank, kept.sum() - 1).clamp_(min=0)
        self._choose(order[rank], scores[:1])

    def _penalised(self) -> Tensor:
        """Divide positive logits of recent tokens by the penalty, multiply negative ones."""
        seen = self._scores[self._recent]
        self._scores[self._recent] = torch.where(seen > 0, seen / self._penalty, seen * self._penalty)
        return self.logits

    def _choose(self, token: Tensor, best: Tensor) -> None:
        self.token.copy_(token)
        self._recent[self.position % PENALTY_LAST_N] = token
        # Not a number sorts before all others, so the best score tells of any.
        self.chosen[self.position] = torch.where(torch.isnan(best), INVALID, token)
