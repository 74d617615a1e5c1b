"""Many questions at once through Transformers, on the CPU with small models: the answers of one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from drkun_tui.engine.base import EngineError, Piece
from drkun_tui.engine.protocol import Finished, FinishReason, Generate, Load, Partial, Ready, Score, Scored
from drkun_tui.engine.transformers.batch import TransformersBatch
from drkun_tui.sampling import Sampling
from tests.conftest import EngineProcess, user
from tests.transformers_models import PLAIN, answer, loaded, lora, quiet, random_model, request, starter

QUESTIONS = [
    "头晕",
    "最近总是头晕，应该怎么办？",
    "孩子发烧39度，还咳嗽、流鼻涕，需要去医院吗？",
    "牙疼",
    "失眠",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return starter(tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A small random Qwen3."""
    return random_model(tmp_path_factory.mktemp("small"), "qwen3", folder, tie_word_embeddings=True)


def batch(path: Path, sequences: int = 3, **changes: Any) -> TransformersBatch:
    engine = TransformersBatch()
    engine.load(request(path, sequences=sequences, **changes), lambda _: None)
    return engine


Ended = dict[int, tuple[str, FinishReason]]


def answers(engine: TransformersBatch, asked: list[Generate]) -> Ended:
    """Text and end of each, begun as soon as there is room."""
    waiting, texts = list(asked), {one.id: "" for one in asked}
    ended: Ended = {}
    while len(ended) < len(asked):
        while waiting and engine.free:
            engine.begin(waiting.pop(0))
        for piece in engine.step():
            texts[piece.id] += piece.text
            if piece.reason:
                ended[piece.id] = texts[piece.id], piece.reason
    return ended


def asked(sampling: Sampling = PLAIN) -> list[Generate]:
    return [
        Generate(id=number, messages=user(question), sampling=sampling)
        for number, question in enumerate(QUESTIONS)
    ]


def alone(path: Path, sampling: Sampling = PLAIN, **changes: Any) -> Ended:
    engine = loaded(path, **changes)
    told = (answer(engine, user(question), sampling) for question in QUESTIONS)
    return {number: (text, reason) for number, (text, reason, _) in enumerate(told)}


@pytest.mark.parametrize("sequences", [2, 3, 8])
def test_the_same_answers_as_one_at_a_time(small: Path, sequences: int) -> None:
    """In 32 bits, whichever are together, and although some begin while others go on."""
    assert answers(batch(small, sequences), asked()) == alone(small)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_other_architectures(tmp_path: Path, folder: Path, kind: str) -> None:
    """One with windows that slide, too."""
    more = {"sliding_window": 24} if kind == "gemma2" else {}
    path = random_model(tmp_path, kind, folder, **more)
    assert answers(batch(path), asked()) == alone(path)


def test_sampled_answers_are_those_of_one_at_a_time(small: Path) -> None:
    drawn = Sampling(temperature=0.8, top_p=0.9, top_k=30, repeat_penalty=1.2, max_tokens=40, seed=11)
    told = answers(batch(small), asked(drawn))
    assert told == alone(small, drawn)
    assert told != answers(batch(small), asked(Sampling(temperature=0.8, max_tokens=40, seed=12)))


def test_greedy_and_sampled_answers_together(small: Path) -> None:
    drawn = Sampling(temperature=0.9, max_tokens=30, seed=5)
    mixed = [
        one if one.id % 2 else Generate(id=one.id, messages=one.messages, sampling=drawn) for one in asked()
    ]
    greedy, sampled = alone(small), alone(small, drawn)
    told = answers(batch(small, 5), mixed)
    assert told == {number: (greedy if number % 2 else sampled)[number] for number in told}


def test_the_starter_ends_its_answers(folder: Path) -> None:
    sampling = Sampling(temperature=0, max_tokens=0)
    told = answers(batch(folder, 4, context_length=512), asked(sampling))
    assert told == alone(folder, sampling, context_length=512)
    assert "stop" in {reason for _, reason in told.values()}


def test_with_an_adapter(tmp_path: Path, small: Path) -> None:
    adapter = lora(tmp_path / "adapter", small)
    told = answers(batch(small, adapter=str(adapter)), asked())
    assert told == alone(small, adapter=str(adapter))
    assert told != alone(small)


def test_out_of_memory_makes_the_batch_smaller(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the answers have so far stays."""
    engine = batch(small, 4)
    forward, most = engine._forward, 4

    def short(of: Any, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if len(tokens) > most:
            raise torch.OutOfMemoryError("no room")
        return forward(of, tokens, positions)

    monkeypatch.setattr(engine, "_forward", short)
    texts: dict[int, str] = dict.fromkeys(range(4), "")
    for one in asked()[:4]:
        engine.begin(one)

    def take(pieces: list[Piece]) -> None:
        for piece in pieces:
            texts[piece.id] += piece.text

    for _ in range(5):
        take(engine.step())
    most = 2
    for _ in range(400):
        if not engine._rows:
            break
        take(engine.step())
    assert engine.free == 2
    assert texts == {number: text for number, (text, _) in alone(small).items() if number < 4}


def test_no_memory_for_a_single_answer_is_an_error(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = batch(small)

    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(engine, "_forward", full)
    engine.begin(asked()[0])
    with pytest.raises(EngineError) as raised:
        engine.step()
    assert raised.value.kind == "gpu_out_of_memory_16_bits"
    assert engine.free == 3


def test_logits_that_are_no_numbers_are_an_error(small: Path) -> None:
    engine = batch(small)
    engine._model.get_output_embeddings().weight.data[3] = float("nan")
    engine.begin(asked()[0])
    with pytest.raises(EngineError) as raised:
        engine.step()
    assert raised.value.kind == "not_numbers"


@pytest.mark.parametrize("length", [1, 60])
def test_the_loss_is_transformers_own(folder: Path, length: int) -> None:
    response = Partial("患者想了解头晕。", "请到神经内科就诊。" * length)
    engine = batch(folder, context_length=1024)
    told = engine.score(Score(id=1, messages=user(QUESTIONS[1]), response=response))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = f"<|im_start|>user\n{QUESTIONS[1]}<|im_end|>\n<|im_start|>assistant\n"
    text = f"<think>\n{response.thinking}\n</think>\n\n{response.answer}<|im_end|>"
    before, after = (tokenizer(part, add_special_tokens=False).input_ids for part in (prompt, text))
    ids = torch.tensor([before + after])
    labels = torch.tensor([[-100] * len(before) + after])
    with torch.inference_mode():
        wanted = float(model(input_ids=ids, labels=labels).loss)
    assert told[1] == len(after)
    assert told[0] / told[1] == pytest.approx(wanted, rel=1e-4)


def test_through_the_engine_process(tmp_path: Path, folder: Path) -> None:
    with EngineProcess(tmp_path / "engine.log") as process:
        process.send(
            Load(
                path=str(folder),
                context_length=256,
                threads=1,
                engine="transformers",
                weights="full",
                sequences=2,
            )
        )
        ready = process.until(Ready)[-1]
        assert isinstance(ready, Ready)
        assert ready.engine == "transformers"
        process.send(*asked(), Score(id=99, messages=user("头晕"), response=Partial("", "好")))
        ended = [process.until(Finished, Scored)[-1] for _ in range(len(QUESTIONS) + 1)]
    assert sum(isinstance(event, Finished) for event in ended) == len(QUESTIONS)
    assert next(event for event in ended if isinstance(event, Scored)).tokens == 2
