"""Many questions at once in one engine process: the answers, their order, and how likely a response is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import msgspec
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from drkun_tui import paths
from drkun_tui.engine import llama_cpp_batch, protocol
from drkun_tui.engine.base import EngineError
from drkun_tui.engine.client import EngineClient
from drkun_tui.engine.llama_cpp import LlamaCpp
from drkun_tui.engine.protocol import (
    Delta,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Partial,
    Ready,
    Score,
    Scored,
)
from drkun_tui.errors import DrkunError
from drkun_tui.sampling import Sampling
from tests.conftest import GREEDY, EngineProcess, Reply, user

QUESTIONS = [
    "最近总是头晕，应该怎么办？",
    "胃痛三天了",
    "高血压能喝酒吗？",
    "孩子发烧39度",
    "牙疼",
    "失眠怎么办",
]
SHORT = Sampling(temperature=0, max_tokens=40)
RESPONSE = Partial("患者想了解头晕。", "头晕常见的原因有睡眠不足，请到神经内科就诊。")


def load(sequences: int, context_length: int = 512) -> Load:
    return Load(
        path=str(paths.starter()),
        context_length=context_length,
        threads=1,
        safe_mode=True,
        sequences=sequences,
    )


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine process that answers three questions at once."""
    with EngineProcess(tmp_path_factory.mktemp("batch") / "engine.log") as process:
        process.send(load(3))
        ready = process.until(Ready, Failed)[-1]
        assert isinstance(ready, Ready)
        assert ready.context_length == 512
        yield process


def ask_all(batch: EngineProcess, requests: list[Generate]) -> dict[int, Reply]:
    """All of them in one write, and all that was said to each."""
    batch.send(*requests)
    events: dict[int, list[Event]] = {request.id: [] for request in requests}
    ended = 0
    while ended < len(requests):
        event = batch.event()
        number = getattr(event, "id", None)
        assert number in events
        events[number].append(event)
        ended += isinstance(event, Finished | Failed)
    return {number: Reply(told) for number, told in events.items()}


def requests(batch: EngineProcess, sampling: Sampling = SHORT) -> list[Generate]:
    return [batch.request(user(question), sampling) for question in QUESTIONS]


def test_each_question_gets_the_answer_that_it_gets_alone(
    batch: EngineProcess, engine: EngineProcess
) -> None:
    """Sums are rounded otherwise among others, so that greedy answers part at last; they begin alike."""
    asked = requests(batch)
    together = ask_all(batch, asked)
    for request, question in zip(asked, QUESTIONS, strict=True):
        alone, reply = engine.ask(user(question), SHORT), together[request.id]
        assert reply.started.prompt_tokens == alone.started.prompt_tokens
        assert reply.thinking[:12] == alone.thinking[:12] != ""
        assert len(reply.deltas) == 1
        assert reply.finished.finish_reason in ("stop", "length")


def test_more_questions_than_places_are_all_answered(batch: EngineProcess) -> None:
    replies = ask_all(batch, requests(batch, GREEDY))
    assert len(replies) == len(QUESTIONS) > 3
    for reply in replies.values():
        used = reply.finished.usage
        assert used.reused_tokens == 0
        assert used.thinking_tokens > 0
        assert reply.finished.finish_reason == "stop"


def test_the_same_seed_draws_the_same_answers(batch: EngineProcess) -> None:
    drawn = Sampling(temperature=1.0, seed=7, max_tokens=24)
    one, two = ([r.thinking for r in ask_all(batch, requests(batch, drawn)).values()] for _ in range(2))
    assert one == two
    other = ask_all(batch, requests(batch, Sampling(temperature=1.0, seed=8, max_tokens=24)))
    assert [reply.thinking for reply in other.values()] != one


def test_an_answer_may_be_no_longer_than_asked(batch: EngineProcess) -> None:
    asked = requests(batch, Sampling(temperature=0, max_tokens=5))
    for reply in ask_all(batch, asked).values():
        assert reply.finished.finish_reason == "length"
        assert reply.finished.usage.thinking_tokens + reply.finished.usage.answer_tokens == 5
        assert reply.finished.thinking_truncated


def test_a_question_too_long_fails_alone(batch: EngineProcess) -> None:
    asked = requests(batch)
    asked[1] = batch.request(user("头晕。" * 1000), SHORT)
    replies = ask_all(batch, asked)
    assert replies[asked[1].id].failed.kind == "prompt_too_long"
    assert sum(isinstance(reply.events[-1], Finished) for reply in replies.values()) == len(asked) - 1


def test_the_adapter_cannot_be_changed_among_answers(batch: EngineProcess) -> None:
    told = batch.set_adapter(None)
    assert isinstance(told, Failed)
    assert told.kind == "wrong_request"


def score(process: EngineProcess, response: Partial, question: str = QUESTIONS[0]) -> Scored | Failed:
    process.send(Score(id=9001, messages=user(question), response=response))
    told = process.until(Scored, Failed)[-1]
    assert isinstance(told, Scored | Failed)
    return told


def test_the_loss_is_that_of_llama_cpps_own_binding(batch: EngineProcess) -> None:
    """The binding's high-level class keeps every logit; the rest is the definition of cross entropy."""
    model = llama_cpp.Llama(
        str(paths.starter()), n_ctx=512, n_threads=1, logits_all=True, verbose=False, use_extra_bufts=False
    )
    # The template of the bundled model, written out.
    prompt = f"<|im_start|>user\n{QUESTIONS[0]}<|im_end|>\n<|im_start|>assistant\n"
    text = f"<think>\n{RESPONSE.thinking}\n</think>\n\n{RESPONSE.answer}<|im_end|>"
    before = model.tokenize(prompt.encode(), add_bos=False, special=True)
    tokens = before + model.tokenize(text.encode(), add_bos=False, special=True)
    model.eval(tokens)
    logits = np.asarray(model.scores[: len(tokens)], np.float64)
    wide = logits - logits.max(axis=1, keepdims=True)
    log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    wanted = -sum(log_p[at - 1, tokens[at]] for at in range(len(before), len(tokens)))
    told = score(batch, RESPONSE)
    assert isinstance(told, Scored)
    assert told.tokens == len(tokens) - len(before)
    assert told.loss == pytest.approx(wanted, rel=0.01)


def test_what_is_written_before_the_answer_is_not_counted(batch: EngineProcess) -> None:
    """A response of one token and the end of its turn, whatever the question's length."""
    short, long = score(batch, Partial("", "好")), score(batch, Partial("", "好"), QUESTIONS[0] * 20)
    assert isinstance(short, Scored) and isinstance(long, Scored)
    assert short.tokens == long.tokens == 2
    assert short.loss != long.loss


def test_logits_are_kept_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large vocabulary's fill the memory: the loss is the same however few there are at a time."""
    engine = llama_cpp_batch.LlamaCppBatch()
    engine.load(load(2, 1024), lambda _: None)
    asked = Score(id=1, messages=user("头晕。" * 200), response=RESPONSE)
    whole, tokens = engine.score(asked)
    monkeypatch.setattr(llama_cpp_batch, "LOGITS_BYTES", 7 * 4 * 8192)
    monkeypatch.setattr(llama_cpp_batch, "BATCH", 64)
    parts, same = engine.score(asked)
    assert tokens == same > 7
    # A token more or less would be some 3 % of it; other batches round otherwise.
    assert parts == pytest.approx(whole, rel=0.005)
    assert engine.free == 2


def test_a_response_longer_than_the_context(batch: EngineProcess) -> None:
    """Cut where the context ends, and its loss a sum over all of it."""
    told = score(batch, Partial("", "头晕常见的原因有睡眠不足。" * 100))
    assert isinstance(told, Scored)
    assert 400 < told.tokens < 512
    assert math.isfinite(told.loss) and told.loss > 0
    failed = score(batch, RESPONSE, "头晕。" * 1000)
    assert isinstance(failed, Failed)
    assert failed.kind == "prompt_too_long"


def test_scores_come_between_answers(batch: EngineProcess) -> None:
    asked = requests(batch)
    batch.send(*asked[:3], Score(id=9002, messages=user(QUESTIONS[0]), response=RESPONSE), *asked[3:])
    ended: list[protocol.Event] = []
    while len(ended) < len(asked) + 1:
        event = batch.event()
        if isinstance(event, Finished | Scored):
            ended.append(event)
    told = next(event for event in ended if isinstance(event, Scored))
    alone = score(batch, RESPONSE)
    assert isinstance(alone, Scored)
    assert told.loss == pytest.approx(alone.loss, rel=0.005)


def test_one_at_a_time_knows_no_scores(engine: EngineProcess) -> None:
    told = score(engine, RESPONSE)
    assert isinstance(told, Failed)
    assert told.kind == "wrong_request"


async def test_the_client_sends_as_many_as_can_be_taken(tmp_path: Path, known_machine: None) -> None:
    client = EngineClient(tmp_path / "engine.log", paths.machine_file())
    taken = 0

    def asked() -> Iterator[tuple[str, Generate | Score]]:
        nonlocal taken
        for question in QUESTIONS * 3:
            taken += 1
            yield "answer", Generate(id=0, messages=user(question), sampling=SHORT)
            yield "score", Score(id=0, messages=user(question), response=RESPONSE)

    async for _ in client.load(load(2)):
        pass
    ended, texts = 0, 0
    async for key, event in client.many(asked()):
        if isinstance(event, Delta):
            assert key == "answer"
            texts += 1
        else:
            assert isinstance(event, Finished if key == "answer" else Scored)
            ended += 1
            # Two places, each with one more that waits.
            assert taken <= ended // 2 + 4
    await client.close()
    assert (ended, texts) == (36, 18)


async def test_an_engine_that_dies_among_answers_says_so(tmp_path: Path, known_machine: None) -> None:
    client = EngineClient(tmp_path / "engine.log", paths.machine_file())
    async for _ in client.load(load(2)):
        pass
    with pytest.raises(DrkunError) as raised:
        asked = ((q, Generate(id=0, messages=user(q), sampling=GREEDY)) for q in QUESTIONS)
        async for _ in client.many(asked):
            if client.pid is not None:
                psutil.Process(client.pid).kill()
    assert raised.value.kind == "engine_died"
    assert not client.loaded


def test_logits_that_are_no_numbers_end_every_answer_and_not_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = llama_cpp_batch.LlamaCppBatch()
    starter = str(paths.starter())
    engine.load(
        Load(path=starter, context_length=256, threads=1, sequences=2, safe_mode=True), lambda _: None
    )
    asked = [Generate(id=n, messages=user(QUESTIONS[n]), sampling=GREEDY) for n in range(2)]
    for request in asked:
        engine.begin(request)
    with monkeypatch.context() as broken:
        nothing = np.full(llama_cpp.llama_vocab_n_tokens(engine._vocab), np.nan, np.float32)
        broken.setattr(np.ctypeslib, "as_array", lambda *_: nothing)
        with pytest.raises(EngineError) as raised:
            engine.step()
    assert raised.value.kind == "not_numbers"
    assert engine.free == 2
    engine.begin(asked[0])
    assert [piece.id for piece in engine.step()] == [0]


@pytest.mark.parametrize(("cache", "attention"), [("q8_0", "auto"), ("q4_0", "auto"), ("f16", "on")])
def test_the_cache_and_the_attention_are_those_of_one_answer(
    monkeypatch: pytest.MonkeyPatch, cache: str, attention: str
) -> None:
    made: list[tuple[int, int, int]] = []
    real = llama_cpp.llama_init_from_model

    def init(model: object, params: llama_cpp.llama_context_params) -> object:
        made.append((params.type_k, params.type_v, params.flash_attn_type))
        return real(model, params)

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", init)
    asked = msgspec.structs.replace(load(2), kv_cache=cache, flash_attention=attention)
    for engine in (LlamaCpp(), llama_cpp_batch.LlamaCppBatch()):
        engine.load(asked, lambda _: None)
    alone, among = made
    default = llama_cpp.llama_context_default_params()
    assert alone == among != (default.type_k, default.type_v, default.flash_attn_type)
