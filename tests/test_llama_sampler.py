"""What a sampler hands to llama.cpp's chain is enough: the choice is that over the whole vocabulary."""

from __future__ import annotations

import ctypes

import llama_cpp as binding
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkun_tui.engine.base import EngineError
from drkun_tui.engine.llama_sampler import Sampler
from drkun_tui.sampling import Sampling

WIDE = 9000
"""Tokens of a vocabulary of which only some are handed over."""


class Whole(Sampler):
    """Hands over everything."""

    def __init__(self, vocabulary: int, sampling: Sampling, seed: int) -> None:
        super().__init__(vocabulary, sampling, seed)
        self._likely = vocabulary


def said(kind: type[Sampler], size: int, sampling: Sampling, draw: int, steps: int) -> list[int]:
    """What a sampler chooses from random logits; the last token is likely again, so that penalties count."""
    random = np.random.default_rng(draw)
    sampler = kind(size, sampling, seed=draw)
    tokens: list[int] = []
    for _ in range(steps):
        logits = random.normal(0, 4, size).astype(np.float32)
        logits[tokens[-3:]] += 9
        tokens.append(sampler.choose(logits))
        sampler.accept(tokens[-1])
    sampler.free()
    return tokens


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([40, 3000, WIDE, WIDE + 17]),
    temperature=st.sampled_from([0.0, 0.6, 1.5]),
    top_k=st.sampled_from([0, 1, 20, 400]),
    penalty=st.sampled_from([0.6, 1.0, 1.1, 3.0]),
    draw=st.integers(0, 10**6),
)
def test_the_choice_is_that_of_the_whole_chain(
    size: int, temperature: float, top_k: int, penalty: float, draw: int
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=0.9, repeat_penalty=penalty)
    assert said(Sampler, size, sampling, draw, 12) == said(Whole, size, sampling, draw, 12)


def test_few_tokens_are_handed_over() -> None:
    logits = np.random.default_rng(1).normal(size=150_000).astype(np.float32)
    usual = Sampler(len(logits), Sampling(), 1)
    assert 20 <= len(usual._candidates(logits)) < 400
    usual.free()


def test_of_equal_logits_the_first_is_chosen() -> None:
    sampler = Sampler(WIDE, Sampling(temperature=0, repeat_penalty=1), 1)
    assert sampler.choose(np.zeros(WIDE, np.float32)) == 0
    sampler.free()


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, repeat_penalty=1), Sampling()])
def test_logits_that_are_no_numbers_are_an_error(sampling: Sampling) -> None:
    sampler = Sampler(WIDE, sampling, 1)
    with pytest.raises(EngineError) as raised:
        sampler.choose(np.full(WIDE, np.nan, np.float32))
    assert raised.value.kind == "not_numbers"
    sampler.free()


def test_a_candidate_is_as_llama_cpp_has_it() -> None:
    from drkun_tui.engine import llama_sampler

    assert llama_sampler._CANDIDATE.itemsize == ctypes.sizeof(binding.llama_token_data)
