"""The engine process with the bundled model: what it is asked, what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui import i18n, paths
from drkun_tui.engine import protocol
from drkun_tui.engine.base import Prompt, Tokens
from drkun_tui.engine.context import SMALLEST_ANSWER
from drkun_tui.engine.host import Answer
from drkun_tui.engine.protocol import (
    Cancel,
    ChatMessage,
    Delta,
    Event,
    Failed,
    Finished,
    Load,
    Loading,
    Partial,
    Ready,
    Started,
)
from drkun_tui.sampling import Sampling
from tests.conftest import LONG, EngineProcess, Reply, starter_with, user, wait_until

DIZZY = "最近总是头晕，应该怎么办？"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """The bundled model with a context of 512 tokens, which a few turns fill."""
    with EngineProcess(tmp_path_factory.mktemp("small") / "engine.log") as process:
        assert isinstance(process.load(paths.starter(), 512)[-1], Ready)
        yield process


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine process that is given one model after the other, most of them broken."""
    with EngineProcess(tmp_path_factory.mktemp("bare") / "engine.log") as process:
        yield process


def cut(length: int) -> Sampling:
    """Greedy, so many tokens."""
    return Sampling(temperature=0, max_tokens=length)


def sentence(failed: Failed) -> str:
    """What the reader is told, in Chinese."""
    text = i18n.t(f"engine.{failed.kind}", **failed.values)
    assert "\n" not in text
    assert "{" not in text
    return text


# Loading


def test_a_load_tells_its_stages_and_what_was_loaded(bare: EngineProcess) -> None:
    events = bare.load(paths.starter())
    loading = [event for event in events if isinstance(event, Loading)]
    assert events[:-1] == loading
    assert loading[0] == Loading("start", 0.0)
    stages = [event.stage for event in loading]
    assert stages == sorted(stages, key=("start", "weights", "warmup").index)
    for stage in ("weights", "warmup"):
        fractions = [event.fraction for event in loading if event.stage == stage]
        assert fractions == sorted(fractions)
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    size = paths.starter().stat().st_size
    read = [event for event in loading if event.stage == "weights"]
    assert {(event.total_bytes, event.shard, event.shards) for event in read} == {(size, 1, 1)}
    assert [event.done_bytes for event in read] == [int(event.fraction * size) for event in read]
    ready = events[-1]
    assert isinstance(ready, Ready)
    assert (ready.engine, ready.architecture) == ("llama_cpp", "qwen3")
    assert (ready.context_length, ready.threads, ready.safe_mode) == (2048, 1, True)
    assert (ready.has_template, ready.can_toggle_thinking) == (True, True)
    assert 26_000_000 < ready.parameters < 27_000_000
    assert 0 < ready.size_bytes <= paths.starter().stat().st_size
    assert ready.load_s > 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.gguf", "这不是模型，只是一个文本文件。\n".encode() * 50),
        ("empty.gguf", b""),
        ("magic.gguf", b"GGUF"),
        ("truncated.gguf", None),
        ("missing.gguf", None),
    ],
)
def test_a_file_that_is_no_model_is_one_line(
    bare: EngineProcess, tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if name == "truncated.gguf":
        content = paths.starter().read_bytes()[:9_000_000]
    if content is not None:
        path.write_bytes(content)
    failed = bare.load(path)[-1]
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.id) == ("load_failed", None)
    assert name in sentence(failed)
    assert failed.values["reason"] not in ("", "?")


def test_a_broken_template_is_named_with_its_line(bare: EngineProcess, tmp_path: Path) -> None:
    path = starter_with(tmp_path / "broken.gguf", tokenizer__chat_template="{% for m in messages %}\n{{ m.")
    failed = bare.load(path)[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == "template_broken"
    assert "line 2" in sentence(failed)


def test_a_template_that_refuses_the_question(bare: EngineProcess, tmp_path: Path) -> None:
    path = starter_with(
        tmp_path / "refuses.gguf", tokenizer__chat_template="{{ raise_exception('no questions') }}"
    )
    assert isinstance(bare.load(path)[-1], Ready)
    failed = bare.ask(user("你好")).failed
    assert (failed.kind, failed.values) == ("template_refused", {"reason": "no questions"})
    assert "no questions" in sentence(failed)


def test_a_file_without_a_template_gets_chatml(
    bare: EngineProcess, engine: EngineProcess, tmp_path: Path
) -> None:
    ready = bare.load(starter_with(tmp_path / "without.gguf", tokenizer__chat_template=None))[-1]
    assert isinstance(ready, Ready)
    assert (ready.has_template, ready.can_toggle_thinking) == (False, False)
    # The starter's own template is ChatML, too.
    assert bare.ask(user("你好")).answer == engine.ask(user("你好")).answer


def test_the_template_tells_which_token_ends_a_turn(
    bare: EngineProcess, engine: EngineProcess, tmp_path: Path
) -> None:
    """A file that declares another one, as fine-tunes do: the turn ends all the same."""
    path = starter_with(tmp_path / "other.gguf", tokenizer__ggml__eos_token_id=8176)
    raw = path.read_bytes()
    # Under a name that llama.cpp does not know to be an end.
    path.write_bytes(raw.replace(b"<|im_end|>", b"<|zu_ende>"))
    assert isinstance(bare.load(path)[-1], Ready)
    reply = bare.ask(user("你好"))
    assert reply.finished.finish_reason == "stop"
    assert reply.answer == engine.ask(user("你好")).answer


# Answers


def test_a_greeting_is_thought_about_and_answered(engine: EngineProcess) -> None:
    reply = engine.ask(user("你好"))
    assert reply.finished.finish_reason == "stop"
    assert not reply.finished.thinking_truncated
    assert "打招呼" in reply.thinking
    assert "Dr. Kun" in reply.answer
    assert "<" not in reply.thinking + reply.answer
    assert not reply.answer.startswith("\n")
    assert reply.started.prompt_tokens > reply.started.reused_tokens
    assert [type(event) for event in reply.events] == [Started, *[Delta] * len(reply.deltas), Finished]
    assert {event.id for event in reply.events if not isinstance(event, Loading | Ready)} == {
        reply.started.id
    }


def test_without_thinking_there_is_no_reasoning(engine: EngineProcess) -> None:
    reply = engine.ask(user(DIZZY), think=False)
    assert reply.thinking == ""
    assert reply.finished.usage.thinking_tokens == 0
    assert reply.finished.usage.answer_tokens > 0
    assert reply.answer


def test_the_same_seed_gives_the_same_answer(engine: EngineProcess) -> None:
    sampling = Sampling(seed=11, temperature=1.0, max_tokens=120)
    first, second = (engine.ask(user(DIZZY), sampling) for _ in range(2))
    assert (first.thinking, first.answer) == (second.thinking, second.answer)
    assert first.started.seed == second.started.seed == 11
    others = [
        engine.ask(user(DIZZY), Sampling(seed=seed, temperature=1.0, max_tokens=120)).answer
        for seed in (12, 13, 14)
    ]
    assert set(others) != {first.answer}


def test_without_a_seed_one_is_drawn_and_told(engine: EngineProcess) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=60)
    first, second = (engine.ask(user(DIZZY), sampling) for _ in range(2))
    assert first.started.seed != second.started.seed
    again = engine.ask(user(DIZZY), Sampling(temperature=1.0, max_tokens=60, seed=first.started.seed))
    assert (again.thinking, again.answer) == (first.thinking, first.answer)


def test_greedy_answers_do_not_depend_on_the_seed(engine: EngineProcess) -> None:
    replies = [engine.ask(user(DIZZY), Sampling(temperature=0, seed=seed)) for seed in (1, 2)]
    assert replies[0].thinking == replies[1].thinking
    assert replies[0].answer == replies[1].answer


def test_the_settings_reach_the_sampler(engine: EngineProcess) -> None:
    """Each of them, loose against tight, changes what comes."""
    loose = Sampling(temperature=5, top_p=1, top_k=0, repeat_penalty=1, max_tokens=40, seed=3)
    tight = (
        Sampling(temperature=0.01, top_p=1, top_k=0, repeat_penalty=1, max_tokens=40, seed=3),
        Sampling(temperature=5, top_p=0.01, top_k=0, repeat_penalty=1, max_tokens=40, seed=3),
        Sampling(temperature=5, top_p=1, top_k=1, repeat_penalty=1, max_tokens=40, seed=3),
    )
    greedy = engine.ask(user(DIZZY), Sampling(temperature=0, repeat_penalty=1, max_tokens=40))
    for sampling in tight:
        reply = engine.ask(user(DIZZY), sampling)
        assert (reply.thinking, reply.answer) == (greedy.thinking, greedy.answer)
    wild = engine.ask(user(DIZZY), loose)
    assert (wild.thinking, wild.answer) != (greedy.thinking, greedy.answer)
    circling = engine.ask(user(DIZZY), Sampling(temperature=0, repeat_penalty=0.5, max_tokens=150))
    assert circling.finished.finish_reason == "length"


@pytest.mark.parametrize("most", [1, 7, 40])
def test_an_answer_ends_at_its_limit(engine: EngineProcess, most: int) -> None:
    finished = engine.ask(user(DIZZY), cut(most)).finished
    assert finished.finish_reason == "length"
    assert finished.usage.thinking_tokens + finished.usage.answer_tokens == most


def test_reasoning_that_never_ends_is_told_as_such(engine: EngineProcess) -> None:
    reply = engine.ask(user(DIZZY), cut(10))
    assert reply.finished.thinking_truncated
    assert reply.thinking
    assert reply.answer == ""


def test_an_answer_without_a_limit_fills_the_context(small: EngineProcess) -> None:
    reply = small.ask(user("你好"), LONG)
    usage = reply.finished.usage
    assert reply.finished.finish_reason == "length"
    assert usage.prompt_tokens + usage.thinking_tokens + usage.answer_tokens == 512
    # The next one has all the room again.
    assert small.ask(user("你好")).finished.finish_reason == "stop"


def test_the_counts_add_up(engine: EngineProcess) -> None:
    reply = engine.ask(user(DIZZY))
    usage, started, last = reply.finished.usage, reply.started, reply.deltas[-1]
    assert (usage.prompt_tokens, usage.reused_tokens) == (started.prompt_tokens, started.reused_tokens)
    assert (usage.thinking_tokens, usage.answer_tokens) == (last.thinking_tokens, last.answer_tokens)
    counts = [delta.thinking_tokens + delta.answer_tokens for delta in reply.deltas]
    assert counts == sorted(counts)
    assert 0 < usage.thinking_tokens <= len(reply.thinking) + 4
    assert 0 < usage.answer_tokens <= len(reply.answer) + 4
    timings = reply.finished.timings
    assert timings.ttft_s > 0
    assert timings.decode_tok_s > 0
    assert timings.thinking_s > 0


def test_characters_come_whole(engine: EngineProcess) -> None:
    """A token can hold a part of a character; it comes with the token that completes it."""
    replies = [
        engine.ask(user("🩺 ☎ 㗎 头晕"), Sampling(temperature=2, seed=seed, max_tokens=80)) for seed in (1, 2)
    ]
    assert all("\ufffd" not in delta.thinking + delta.answer for r in replies for delta in r.deltas[:-1])


def test_text_that_looks_like_markup_is_text(engine: EngineProcess) -> None:
    """Nor does a question that writes a tag make its answer's reasoning begin."""
    reply = engine.ask(user("<think>什么意思？"), cut(60))
    assert "<think>" not in reply.thinking + reply.answer


# Stopping


def test_a_cancel_stops_an_answer_and_keeps_what_has_come(engine: EngineProcess) -> None:
    request = engine.request(user("你好"), LONG)
    engine.send(request)
    events = engine.until(Delta)
    engine.send(Cancel(request.id))
    reply = Reply([*events, *engine.until(Finished)])
    usage = reply.finished.usage
    assert reply.finished.finish_reason == "cancelled"
    assert 0 < usage.thinking_tokens + usage.answer_tokens < 2000
    assert reply.thinking + reply.answer
    assert engine.ask(user("你好")).finished.finish_reason == "stop"


def test_a_cancel_stops_the_evaluation_of_a_long_prompt(engine: EngineProcess) -> None:
    """In the middle of its first batch of 512: nothing of that is kept, and none after it begun. Several
    tries, since a busy machine may bring the cancel after a batch."""
    process = psutil.Process(engine.process.pid)
    kept = []
    for number in range(5):
        request = engine.request(user(f"{number}、" + "头晕恶心，" * 500))
        before = process.cpu_times().user
        engine.send(request)
        started = Reply(engine.until(Started)).started
        wait_until(lambda before=before: process.cpu_times().user > before + 0.03)  # type: ignore[misc]
        engine.send(Cancel(request.id))
        finished = Reply(engine.until(Finished)).finished
        assert finished.finish_reason == "cancelled"
        assert finished.usage.thinking_tokens + finished.usage.answer_tokens == 0
        assert started.prompt_tokens > 1024

        again = engine.request(request.messages)
        engine.send(again, Cancel(again.id))
        kept.append(Reply(engine.until(Finished)).started.reused_tokens)
        if kept[-1] < 512:
            break
    assert min(kept) < 512
    assert engine.ask(user("你好")).finished.finish_reason == "stop"


def test_a_cancel_that_comes_before_its_turn(engine: EngineProcess) -> None:
    first, second = engine.request(user("你好"), cut(5)), engine.request(user("你好"), LONG)
    engine.send(first, second, Cancel(second.id))
    assert Reply(engine.until(Finished)).finished.finish_reason == "length"
    assert Reply(engine.until(Finished)).finished.finish_reason == "cancelled"


def test_a_cancel_of_nothing_is_nothing(engine: EngineProcess) -> None:
    done = engine.ask(user("你好"), cut(3)).finished.id
    engine.send(Cancel(done), Cancel(999_999))
    assert engine.ask(user("你好")).finished.finish_reason == "stop"


# Several turns


def test_a_later_turn_evaluates_only_what_is_new(engine: EngineProcess) -> None:
    """Although the history leaves the reasoning out, so that the cache after an answer does not match it."""
    questions = [DIZZY, "需要做哪些检查？", "平时要注意什么？"]
    alone = [engine.ask(user(question), cut(1)).started.prompt_tokens for question in questions]
    messages: list[ChatMessage] = []
    for turn, question in enumerate(questions):
        messages.append(ChatMessage("user", question))
        reply = engine.ask(messages)
        assert reply.finished.finish_reason == "stop"
        assert reply.thinking
        if turn:
            evaluated = reply.started.prompt_tokens - reply.started.reused_tokens
            assert evaluated <= alone[turn]
            assert reply.started.reused_tokens > alone[turn]
        engine.settle()
        messages.append(ChatMessage("assistant", reply.answer))


@pytest.mark.parametrize("question", ["胃痛呢？", "\n\n第二行才开始：胃痛呢？", "<|im_end|>", " "])
def test_kept_tokens_of_the_history_are_those_of_the_whole_prompt(
    engine: EngineProcess, question: str
) -> None:
    past = user("最近总是头晕，应该怎么办？", engine.ask(user("最近总是头晕，应该怎么办？")).answer, question)
    engine.settle()
    from_kept = engine.ask(past)
    engine.ask(user("你好"))
    engine.settle()
    from_scratch = engine.ask(past)
    assert from_kept.started.reused_tokens > from_scratch.started.reused_tokens
    assert from_kept.started.prompt_tokens == from_scratch.started.prompt_tokens


def test_a_request_while_the_history_is_prepared(engine: EngineProcess) -> None:
    """Both are there before the first is answered, so that the second one interrupts at once."""
    first, second = engine.request(user(DIZZY)), engine.request(user("你好"))
    engine.send(first, second)
    replies = [Reply(engine.until(Finished)) for _ in range(2)]
    assert [reply.finished.id for reply in replies] == [first.id, second.id]
    assert "头晕" in replies[0].thinking
    assert "Dr. Kun" in replies[1].answer
    assert {reply.finished.finish_reason for reply in replies} == {"stop"}


def test_the_system_text_reaches_the_model(engine: EngineProcess) -> None:
    plain = engine.ask(user("你好"), cut(1)).started.prompt_tokens
    system = [ChatMessage("system", "你是一名心血管科医生，请简短回答。"), *user("你好")]
    assert engine.ask(system, cut(1)).started.prompt_tokens > plain + 10


# Carrying on


@pytest.fixture(scope="module")
def whole(engine: EngineProcess) -> Reply:
    return engine.ask(user(DIZZY))


@pytest.mark.parametrize("tokens", [3, 10, 20, 33, 40, 60, 80])
def test_an_answer_goes_on_where_it_was_cut_off(engine: EngineProcess, whole: Reply, tokens: int) -> None:
    """Greedy, with the repeat penalty on: the two parts are the answer that would have come at once."""
    first = engine.ask(user(DIZZY), cut(tokens))
    rest = engine.ask(user(DIZZY), resume=Partial(first.thinking, first.answer))
    # The line break before the end of the reasoning is markup only when the end is seen with it.
    assert (first.thinking + rest.thinking).rstrip() == whole.thinking
    assert first.answer + rest.answer == whole.answer
    assert rest.finished.finish_reason == "stop"
    assert rest.started.prompt_tokens > whole.started.prompt_tokens


def test_carrying_on_counts_only_what_is_new(engine: EngineProcess) -> None:
    first = engine.ask(user(DIZZY), cut(50))
    rest = engine.ask(user(DIZZY), cut(5), resume=Partial(first.thinking, first.answer))
    usage = rest.finished.usage
    assert (usage.thinking_tokens, usage.answer_tokens) == (0, 5)
    assert rest.started.prompt_tokens == usage.prompt_tokens > first.started.prompt_tokens + 40


def test_carrying_on_without_thinking(engine: EngineProcess) -> None:
    # Asked twice: the prompt is then evaluated as before the first part, and rounding is the same everywhere.
    _, whole = (engine.ask(user(DIZZY), think=False) for _ in range(2))
    first = engine.ask(user(DIZZY), cut(20), think=False)
    rest = engine.ask(user(DIZZY), think=False, resume=Partial("", first.answer))
    assert first.answer + rest.answer == whole.answer
    assert rest.thinking == ""


def test_after_a_carried_on_answer_the_next_turn_reuses_all_of_it(engine: EngineProcess) -> None:
    first = engine.ask(user(DIZZY), cut(50))
    rest = engine.ask(user(DIZZY), resume=Partial(first.thinking, first.answer))
    engine.settle()
    follow = "要紧吗？"
    reply = engine.ask(user(DIZZY, first.answer + rest.answer, follow), cut(1))
    evaluated = reply.started.prompt_tokens - reply.started.reused_tokens
    assert evaluated <= engine.ask(user(follow), cut(1)).started.prompt_tokens


class Collected:
    """What `Answer` makes of an output, without a model."""

    def __init__(self, output: str, opening: str, carried: str = "", resume: Partial | None = None) -> None:
        self.events: list[Event] = []
        request = protocol.Generate(id=1, messages=[], resume=resume)
        answer = Answer(request, self.events.append)
        answer.start(Prompt(opening, carried, 1, 0, 0, 0))

        def tokens() -> Tokens:
            yield from output
            return "length"

        self.events.append(answer.finish(answer.stream(tokens())))
        self.reply = Reply(self.events)
        self.text = answer.text


@given(
    thinking=st.text("患者，\n ", max_size=8),
    answer=st.text("头晕。\n ", max_size=8),
    closed=st.booleans(),
    cut_at=st.integers(0, 40),
    opened=st.booleans(),
)
def test_what_has_come_before_does_not_come_again(
    thinking: str, answer: str, closed: bool, cut_at: int, opened: bool
) -> None:
    """Wherever an output is cut, but for the inside of a tag, which is one token to a model."""
    opening = "assistant\n<think>\n" if opened else "assistant\n"
    pieces = [*([] if opened else ["<think>"]), *thinking, *(["</think>"] if closed else []), *answer]
    before, after = "".join(pieces[:cut_at]), "".join(pieces[cut_at:])
    whole, first = Collected(before + after, opening), Collected(before, opening)
    second = Collected(after, opening, before, Partial(first.reply.thinking, first.reply.answer))

    def squeezed(*texts: str) -> str:
        return "".join("".join(texts).split())

    assert squeezed(first.reply.thinking, second.reply.thinking) == squeezed(whole.reply.thinking)
    assert first.reply.answer + second.reply.answer == whole.reply.answer
    assert second.text == whole.reply.answer
    assert second.reply.finished.thinking_truncated == whole.reply.finished.thinking_truncated


def test_reasoning_that_shows_itself_late_is_moved() -> None:
    """A model whose prompt opened the block without saying so: only the end tag tells."""
    reply = Collected("患者头晕。</think>您好", "assistant\n").reply
    assert (reply.thinking, reply.answer) == ("患者头晕。", "您好")
    assert any(delta.reclassify for delta in reply.deltas)
    usage = reply.finished.usage
    assert usage.thinking_tokens > usage.answer_tokens
    assert usage.thinking_tokens + usage.answer_tokens == len("患者头晕。</think>您好")


# A full context


def test_a_full_context_drops_the_oldest_turns_and_says_so(small: EngineProcess) -> None:
    turns = [text for n in range(8) for text in (f"{n}：头晕恶心，需要做什么检查吗？", "建议测量血压，" * 6)]
    messages = user(*turns, "平时要注意什么？")
    started = small.ask(messages, cut(4)).started
    assert started.dropped_messages > 0
    assert started.dropped_messages % 2 == 0
    assert started.prompt_tokens <= 512 - SMALLEST_ANSWER
    kept = messages[started.dropped_messages :]
    again = small.ask(kept, cut(4)).started
    assert (again.dropped_messages, again.prompt_tokens) == (0, started.prompt_tokens)
    assert again.reused_tokens == started.prompt_tokens - 1


def test_a_shortened_conversation_keeps_its_system_text(small: EngineProcess) -> None:
    turns = [text for n in range(8) for text in (f"{n}：头晕恶心，需要做什么检查吗？", "建议测量血压，" * 6)]
    system = ChatMessage("system", "你是医生。")
    with_system = small.ask([system, *user(*turns, "然后？")], cut(1)).started
    kept = user(*turns, "然后？")[with_system.dropped_messages :]
    assert small.ask([system, *kept], cut(1)).started.prompt_tokens == with_system.prompt_tokens
    assert small.ask(kept, cut(1)).started.prompt_tokens < with_system.prompt_tokens


def test_a_question_longer_than_the_context_is_refused_and_the_next_one_answered(
    small: EngineProcess,
) -> None:
    failed = small.ask(user("头晕，恶心，想吐。" * 400)).failed
    assert failed.kind == "prompt_too_long"
    assert int(failed.values["tokens"]) > 512
    assert failed.values["limit"] == 512 - SMALLEST_ANSWER
    assert str(failed.values["limit"]) in sentence(failed)
    assert small.ask(user("你好")).finished.finish_reason == "stop"


# The last test looks at all that the others made the processes say.


def test_every_line_is_an_event(engine: EngineProcess, small: EngineProcess, bare: EngineProcess) -> None:
    lines = engine.lines + small.lines + bare.lines
    assert {json.loads(line)["type"] for line in lines} == {
        *("loading", "ready", "started", "delta", "finished", "failed")
    }
    for line in lines:
        assert protocol.encode(protocol.decode_event(line)) == line.rstrip(b"\n")


def test_computing_ahead_of_the_text_changes_nothing(tmp_path: Path) -> None:
    """As with all layers on a GPU; a build without one leaves them where they are."""
    told = []
    for layers in (0, 99):
        with EngineProcess(tmp_path / "engine.log") as process:
            starter = str(paths.starter())
            process.send(Load(path=starter, context_length=512, threads=1, gpu_layers=layers, safe_mode=True))
            assert isinstance(process.until(Ready, Failed)[-1], Ready)
            first = process.ask(user(DIZZY), cut(40))
            rest = process.ask(user(DIZZY), resume=Partial(first.thinking, first.answer))
            usage = first.finished.usage
            told.append((first.thinking, first.answer, rest.answer, usage, rest.finished.finish_reason))
    assert told[0] == told[1]
    assert told[0][3].thinking_tokens + told[0][3].answer_tokens == 40


def test_a_quantised_cache_answers_almost_the_same(tmp_path: Path) -> None:
    answers = []
    for kind in ("f16", "q8_0"):
        with EngineProcess(tmp_path / "engine.log") as process:
            process.send(
                Load(
                    path=str(paths.starter()),
                    context_length=512,
                    threads=1,
                    kv_cache=kind,
                    safe_mode=True,
                )
            )
            assert isinstance(process.until(Ready, Failed)[-1], Ready)
            reply = process.ask(user(DIZZY), cut(24))
            answers.append(reply.thinking + reply.answer)
    assert answers[0][:8] == answers[1][:8]
    assert answers[1].strip()
