"""How near an answer is to its reference: BLEU on characters and ROUGE on words, by their libraries.

A Chinese text has no spaces, so BLEU takes every character as a token, and ROUGE the words of jieba's
dictionary (by `rjieba`, the same algorithm compiled).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

import rjieba
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import BLEU

_BLEU = BLEU(tokenize="char", effective_order=True)
_ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

LONGEST = 4000
"""Characters of an answer that are compared: the longest common subsequence takes their square."""


class _Words:
    """What `rouge_score` asks for the words of a text."""

    def tokenize(self, text: str) -> list[str]:
        """Words, in lower case; white space and punctuation are none."""
        return [word for word in rjieba.cut(text.lower()) if any(map(str.isalnum, word))]


_ROUGE = rouge_scorer.RougeScorer(_ROUGE_TYPES, tokenizer=_Words())


def bleu(answer: str, reference: str) -> tuple[int, ...]:
    """What the BLEU of a corpus is computed from: matching n-grams of 1 to 4 characters, all n-grams of the
    answer, its length and that of the reference."""
    score = _BLEU.sentence_score(answer[:LONGEST], [reference[:LONGEST]])
    return (*score.counts, *score.totals, score.sys_len, score.ref_len)


def bleu_of(sums: Sequence[int]) -> float:
    """Corpus BLEU-4 from 0 to 100 (Papineni et al. 2002), from `bleu` summed over all answers, as
    sacreBLEU's ``corpus_score`` computes it."""
    correct, total = list(sums[:4]), list(sums[4:8])
    score = BLEU.compute_bleu(correct, total, sums[8], sums[9], smooth_method="exp")
    return float(score.score)


def rouge(answer: str, reference: str) -> tuple[float, float, float]:
    """F measures of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), from 0 to 1."""
    told = _ROUGE.score(reference[:LONGEST], answer[:LONGEST])
    one, two, longest = (float(told[kind].fmeasure) for kind in _ROUGE_TYPES)
    return one, two, longest


def signature() -> str:
    """How these are computed, in the words of their libraries."""
    versions = {name: importlib.metadata.version(name) for name in ("sacrebleu", "rouge-score", "rjieba")}
    told = " ".join(f"{name} {version}" for name, version in versions.items())
    return f"BLEU nrefs:1|case:mixed|eff:no|tok:char|smooth:exp; ROUGE F1, words of jieba; {told}"
