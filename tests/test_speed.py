"""Expected speed: what is counted, what this machine's kernels reach, and what answers teach."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui import hardware, paths
from drkun_tui.engine import rates as engine_rates
from drkun_tui.engine import safe_mode
from drkun_tui.engine.protocol import Finished, Timings, Usage
from drkun_tui.engine.rates import Rates
from drkun_tui.hardware import Gpu
from drkun_tui.library import fit, gguf, inventory, speed, speed_model
from drkun_tui.library.fit import Shape, joined, shape_of
from drkun_tui.library.plan import Plan, plan_load
from drkun_tui.library.speed import Known
from drkun_tui.profiles import GIB, Profile
from drkun_tui.settings import Settings
from tests.conftest import MakeChild, has_ended
from tests.gguf_files import metadata, write

RATES = Rates(
    threads=2,
    decode={"F16": 40e9, "Q8_0": 35e9, "Q4_K": 30e9, "Q6_K": 30e9},
    prefill={"F16": 150e9, "Q8_0": 100e9, "Q4_K": 170e9, "Q6_K": 200e9},
    attention_s=12e-9,
    cache_s=1 / 20e9,
    prefill_attention=70e9,
    operation_s=0.4e-6,
    last_cache=0,
    quiet=True,
)
MACHINE = hardware.read()
HOPPER = Gpu("NVIDIA H200", 140 * GIB, 138 * GIB, "nvidia 570", "nvidia", 4_900_000_000_000)
QWEN3_4B = Shape(
    weight_bytes=8_044_936_192, is_gguf=False, parameters=4_022_468_096,
    embedding_parameters=151_936 * 2560, cache_bytes=36 * 8 * 256 * 2, vocabulary=151_936,
    embedding=2560, feed_forward=9728, context_length=40_960, layers=36, heads=36 * 32, head_length=128,
    parts=(
        ("layers", "BF16", 2 * (4_022_468_096 - 151_936 * 2560)),
        ("embedding", "BF16", 2 * 151_936 * 2560),
    ),
)  # fmt: skip


def starter() -> Shape:
    return shape_of(gguf.read(paths.starter()))


# What is counted


def test_the_parts_of_the_bundled_model_are_all_of_it() -> None:
    shape = starter()
    assert sum(size for _, _, size in shape.parts) == shape.weight_bytes
    assert {part for part, _, _ in shape.parts} == {"layers", "embedding"}
    assert (shape.layers, shape.heads, shape.head_length) == (8, 32, 128)


def test_experts_count_by_the_share_that_is_used(tmp_path: Path) -> None:
    tensors = [
        ("token_embd.weight", (64, 32), 0),
        ("blk.0.ffn_up_exps.weight", (64, 128, 8), 0),
        ("blk.0.attn_q.weight", (64, 64), 0),
        ("output.weight", (64, 32), 0),
    ]
    entries = metadata("qwen3moe", qwen3moe__expert_count=8, qwen3moe__expert_used_count=2)
    shape = shape_of(gguf.read(write(tmp_path / "moe.gguf", entries, tensors)))
    assert shape.expert_share == 0.25
    assert {part: size for part, _, size in shape.parts} == {
        "embedding": 64 * 32 * 4, "experts": 64 * 128 * 8 * 4, "layers": 64 * 64 * 4, "output": 64 * 32 * 4
    }  # fmt: skip
    whole = replace(shape, expert_share=1.0)
    spared = speed_model.decode_s(whole, RATES, 0) - speed_model.decode_s(shape, RATES, 0)
    # Counted in F16's bytes, its nearest measured neighbour.
    assert spared == pytest.approx(speed_model.USUAL * 64 * 128 * 8 * 0.75 * 2 / 40e9)


def test_an_input_embedding_is_read_only_where_it_is_the_output_too() -> None:
    shape = replace(starter(), parts=(("layers", "F16", 2_000_000), ("embedding", "F16", 8_000_000)))
    apart = replace(shape, parts=(*shape.parts, ("output", "F16", 8_000_000)))
    assert speed_model.decode_s(apart, RATES, 0) == speed_model.decode_s(shape, RATES, 0)
    without = replace(shape, parts=shape.parts[:1])
    more = speed_model.decode_s(shape, RATES, 0) - speed_model.decode_s(without, RATES, 0)
    assert more == pytest.approx(speed_model.USUAL * 8_000_000 / 40e9)


def test_the_parts_of_a_split_model_add_up() -> None:
    shape = starter()
    both = joined([shape, replace(shape, layers=0, heads=0)])
    assert (both.weight_bytes, both.layers) == (2 * shape.weight_bytes, shape.layers)
    assert len(both.parts) == 2 * len(shape.parts)


def test_a_model_with_more_to_read_is_slower() -> None:
    shape = starter()
    twice = replace(shape, parts=tuple((part, kind, 2 * size) for part, kind, size in shape.parts))
    for seconds in (speed_model.decode_s, speed_model.prefill_s):
        assert seconds(twice, RATES, 512) > seconds(shape, RATES, 512)
        assert seconds(shape, RATES, 1024) > seconds(shape, RATES, 512)
    assert speed_model.prefill_s(shape, RATES, 512, 1024) > speed_model.prefill_s(shape, RATES, 512)


def test_a_model_that_stays_in_the_cache_is_faster() -> None:
    roomy = msgspec.structs.replace(RATES, last_cache=32 * 1024**2)
    assert speed_model.decode_s(starter(), roomy, 500) < 0.7 * speed_model.decode_s(starter(), RATES, 500)
    large = replace(starter(), weight_bytes=GIB)
    assert speed_model.decode_s(large, roomy, 500) == speed_model.decode_s(large, RATES, 500)


@given(kind=st.sampled_from(sorted(speed_model._PER_ELEMENT)))
def test_every_tensor_type_has_a_neighbour_that_was_measured(kind: str) -> None:
    shape = replace(starter(), parts=(("layers", kind, 1_000_000),))
    assert 0 < speed_model.decode_s(shape, RATES, 100) < 1
    assert 0 < speed_model.prefill_s(shape, RATES, 100) < 1


@pytest.mark.parametrize(
    ("shape", "profile", "measured"),
    # Decode with a captured CUDA graph in nf4 and bf16, and with llama.cpp's CUDA kernels in BF16, all on
    # one H200 with Qwen3-4B on 2026-11-20.
    [
        (QWEN3_4B, Profile.GPU8, 114),
        (QWEN3_4B, Profile.GPU16, 106),
        (replace(QWEN3_4B, is_gguf=True), Profile.GPU16, 275),
    ],
)
def test_the_gpu_estimate_is_near_what_was_measured(shape: Shape, profile: Profile, measured: float) -> None:
    machine = replace(MACHINE, gpus=[HOPPER])
    told = speed.estimate(Path("x"), shape, profile, machine, Known(None, 2, {}), 512)
    assert told
    assert told.label == "estimated"
    assert told.decode_tok_s == pytest.approx(measured, rel=0.15)
    assert 0 < told.ttft_s < 0.2


# What this machine's kernels reach


def test_this_machine_is_measured_in_a_child_and_remembered(home: Path) -> None:
    file, log = paths.machine_file(), paths.engine_log()
    rates = asyncio.run(engine_rates.measure(file, 1, log))
    assert rates is not None
    assert rates.threads == 1
    assert rates.measured_at > 0
    assert {"F16", "Q8_0", "Q4_K", "Q6_K"} <= rates.decode.keys() == rates.prefill.keys()
    figures = [*rates.decode.values(), *rates.prefill.values(), rates.prefill_attention]
    # A tenth of the slowest machines, ten times the fastest.
    assert all(1e7 < figure < 1e14 for figure in figures)
    assert 1e-11 < rates.attention_s < 1e-3
    assert 0 <= rates.cache_s < 1e-6
    assert 1e-10 < rates.operation_s < 1e-2
    # A single thread waits for nobody.
    assert rates.quiet
    assert engine_rates.known(file, 1) == rates
    assert engine_rates.known(file, 2) is None
    # Other layouts have other rates.
    safe_mode.remember(file)
    assert engine_rates.known(file, 1) is None


def test_a_machine_that_was_measured_is_not_measured_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = paths.machine_file()
    keep(file, RATES)
    monkeypatch.setattr(engine_rates, "PROBE", "no.such.module")
    assert asyncio.run(speed.measure(file, MACHINE, paths.engine_log(), 2)).rates == RATES
    assert asyncio.run(speed.measure(file, MACHINE, paths.engine_log(), 3)).rates is None


def test_a_machine_that_crashes_is_measured_in_safe_mode(
    home: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is with a model; the real probe, but for its crash."""
    module = child("""
        import os, signal, sys
        if sys.argv[2] != "safe":
            os.kill(os.getpid(), signal.SIGSEGV)
        from drkun_tui.engine import probe
        probe.main()
    """)
    monkeypatch.setattr(engine_rates, "PROBE", module)
    rates = asyncio.run(engine_rates.measure(paths.machine_file(), 1, paths.engine_log()))
    assert rates
    assert safe_mode.is_needed(paths.machine_file())
    assert engine_rates.known(paths.machine_file(), 1) == rates


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "print('{}')", "print('no JSON')"])
def test_a_probe_that_fails_is_no_failure(
    home: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(engine_rates, "PROBE", child(source))
    assert asyncio.run(engine_rates.measure(paths.machine_file(), 1, paths.engine_log())) is None
    assert engine_rates.known(paths.machine_file(), 1) is None


def test_a_probe_that_hangs_is_given_up(
    home: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_rates, "LONGEST_S", 0.5)
    pid = home / "pid"
    source = f"""
        import os, pathlib, time
        pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))
        time.sleep(3600)
    """
    monkeypatch.setattr(engine_rates, "PROBE", child(source))
    assert asyncio.run(engine_rates.measure(paths.machine_file(), 1, paths.engine_log())) is None
    assert not pid.exists() or has_ended(int(pid.read_text()))


def test_a_machine_that_was_busy_is_measured_again(
    home: Path, child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, log = paths.machine_file(), paths.engine_log()
    keep(file, msgspec.structs.replace(RATES, quiet=False))
    better = msgspec.json.encode(msgspec.structs.replace(RATES, operation_s=1.0)).decode()
    monkeypatch.setattr(engine_rates, "PROBE", child(f"print({better!r})"))
    again = asyncio.run(speed.measure(file, MACHINE, log, 2)).rates
    assert again
    assert (again.quiet, again.operation_s) == (True, 1.0)
    # What cannot be measured now was at least measured once.
    keep(file, msgspec.structs.replace(RATES, quiet=False))
    monkeypatch.setattr(engine_rates, "PROBE", "no.such.module")
    assert asyncio.run(speed.measure(file, MACHINE, log, 2)).rates


def keep(file: Path, rates: Rates) -> None:
    engine_rates._keep(file, rates)


# What answers teach


def plan(**settings: object) -> Plan:
    return plan_load(Settings(threads=2, **settings))  # type: ignore[arg-type]


def finished(tok_s: float, ttft_s: float, prompt: int = 300, tokens: int = 100, reused: int = 0) -> Finished:
    return Finished(
        id=1,
        finish_reason="stop",
        thinking_truncated=False,
        usage=Usage(prompt_tokens=prompt, thinking_tokens=0, answer_tokens=tokens, reused_tokens=reused),
        timings=Timings(ttft_s=ttft_s, decode_tok_s=tok_s, thinking_s=0.0),
    )


def told(path: Path, shape: Shape, *, adapter: bool = False, context: int = 350) -> speed.Speed:
    known = speed.known(paths.machine_file(), MACHINE, 2)
    result = speed.estimate(path, shape, Profile.CPU, MACHINE, known, context, adapter=adapter)
    assert result is not None
    return result


def off(factor: float, prompt: int = 300, tokens: int = 100) -> Finished:
    """An answer that took so many times as long as the arithmetic says."""
    shape = starter()
    return finished(
        1 / (factor * speed_model.decode_s(shape, RATES, prompt + tokens / 2)),
        factor * speed_model.prefill_s(shape, RATES, prompt),
        prompt,
        tokens,
    )


def test_a_model_is_told_by_its_own_answers_and_others_by_how_far_those_were_off(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    keep(file, RATES)
    other = replace(starter(), layers=20)
    before = {path: told(path, shape) for path, shape in ((this.model.path, starter()), (home / "o", other))}
    assert {each.label for each in before.values()} == {"estimated"}
    assert all(each.when is None for each in before.values())
    for factor in (2.0, 2.0, 9.0):
        speed.record(file, this, off(factor))
    own, theirs = told(this.model.path, starter()), told(home / "o", other)
    assert (own.label, theirs.label) == ("measured", "calibrated")
    assert (own.ttft_label, theirs.ttft_label) == ("measured", "calibrated")
    for now, path in ((own, this.model.path), (theirs, home / "o")):
        assert now.decode_tok_s == pytest.approx(before[path].decode_tok_s / 2)
        assert now.ttft_s == pytest.approx(before[path].ttft_s * 2)
        assert now.when and now.when > 0
    # At another context the arithmetic still says how it changes.
    assert told(this.model.path, starter(), context=2000).decode_tok_s < own.decode_tok_s


def test_only_what_can_be_compared_is(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    keep(file, RATES)
    speed.record(file, this, off(2.0))
    known = speed.known(file, MACHINE, 2)
    for threads, profile, machine in (
        (3, Profile.CPU, MACHINE),
        (2, Profile.GPU16, replace(MACHINE, gpus=[HOPPER])),
    ):
        changed = Known(RATES, threads, known.answers)
        result = speed.estimate(home / "o", starter(), profile, machine, changed)
        assert result
        assert result.label == "estimated"
    # An adapter makes a model slower, so its answers tell of nothing else.
    assert told(this.model.path, starter(), adapter=True).label == "calibrated"


def test_an_adapter_s_answers_are_its_own(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    keep(file, RATES)
    load = msgspec.structs.replace(this.load, adapter="a.gguf")
    speed.record(file, replace(this, load=load), off(2.0))
    assert told(this.model.path, starter()).label == "estimated"
    assert told(this.model.path, starter(), adapter=True).label == "measured"


def test_answers_that_tell_nothing_are_left_out(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    keep(file, RATES)
    speed.record(file, this, finished(0.0, 0.5, tokens=1, prompt=20))
    speed.record(file, this, finished(900.0, 0.5, tokens=5, prompt=300, reused=290))
    assert told(this.model.path, starter()).label == "estimated"
    # A prompt alone tells of prefill, and an answer to a short one of decoding.
    speed.record(file, this, off(2.0, tokens=1))
    now, other = told(this.model.path, starter()), told(home / "o", starter())
    assert (now.label, now.ttft_label) == ("estimated", "measured")
    assert (other.label, other.ttft_label) == ("estimated", "calibrated")
    numbers = {"decode_tok_s": now.decode_tok_s, "ttft_s": now.ttft_s}
    assert now.as_dict() == numbers | {"label": "estimated", "ttft_label": "measured"}
    speed.record(file, this, finished(10.0, 0.001, prompt=20))
    now = told(this.model.path, starter(), context=70)
    assert now.label == "measured"
    assert now.decode_tok_s == pytest.approx(10.0)
    assert now.ttft_s == pytest.approx(2 * speed_model.prefill_s(starter(), RATES, speed.PROMPT_TOKENS))


def test_a_file_that_holds_another_model_now_is_learned_anew(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    keep(file, RATES)
    speed.record(file, this, off(8.0))
    speed.record(file, this, off(8.0))
    changed = replace(this.model, shape=replace(starter(), layers=9))
    speed.record(file, replace(this, model=changed), finished(100.0, 0.1))
    [answers] = speed.known(file, MACHINE, 2).answers.values()
    assert (answers.count, len(answers.last)) == (1, 1)


def test_little_is_kept(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    for _ in range(speed.KEPT + 3):
        speed.record(file, this, off(1.0))
    [answers] = speed.known(file, MACHINE, 2).answers.values()
    assert (answers.count, len(answers.last)) == (speed.KEPT + 3, speed.KEPT)
    for number in range(speed.MOST_MODELS + 2):
        speed.record(file, replace(this, model=replace(this.model, path=Path(f"{number}.gguf"))), off(1.0))
    kept = speed.known(file, MACHINE, 2).answers
    assert len(kept) == speed.MOST_MODELS
    assert next(iter(kept)).startswith("2.gguf")


def test_where_nothing_was_measured_answers_stand_for_themselves(home: Path) -> None:
    file, this = paths.machine_file(), plan()
    known = speed.known(file, MACHINE, 2)
    assert speed.estimate(this.model.path, starter(), Profile.CPU, MACHINE, known) is None
    speed.record(file, this, finished(123.0, 0.3))
    now = told(this.model.path, starter())
    assert (now.label, now.decode_tok_s) == ("measured", 123.0)
    assert now.ttft_s == pytest.approx(0.3 / 300 * speed.PROMPT_TOKENS)


def test_what_is_no_model_of_this_engine_has_no_speed(home: Path) -> None:
    keep(paths.machine_file(), RATES)
    known = speed.known(paths.machine_file(), MACHINE, 2)

    def cpu(shape: Shape) -> speed.Speed | None:
        return speed.estimate(home / "x", shape, Profile.CPU, MACHINE, known)

    assert cpu(QWEN3_4B) is None
    assert cpu(replace(starter(), is_adapter=True)) is None
    assert cpu(replace(starter(), parts=())) is None
    machine = replace(MACHINE, gpus=[replace(HOPPER, bandwidth=0)])
    assert speed.estimate(home / "x", QWEN3_4B, Profile.GPU16, machine, known) is None


def test_an_answer_that_was_given_is_learned_from(home: Path, known_machine: None) -> None:
    """By ``drkun ask``, as it is by the chat; the list of models then tells it."""
    keep(paths.machine_file(), msgspec.structs.replace(RATES, threads=1))

    def listed() -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "drkun_tui", "models", "--json"], capture_output=True, check=True
        )
        models = json.loads(done.stdout)["models"]
        fits: dict[str, dict[str, object]] = models[0]["fits"]
        assert "speed" not in fits["gpu8"] or MACHINE.nvidia
        return fits["cpu"]["speed"]  # type: ignore[return-value]

    paths.settings_file().write_text("threads = 1\n")
    before = listed()
    assert before.keys() == {"decode_tok_s", "label", "ttft_s", "ttft_label"}
    assert before["label"] == "estimated"
    question = "头晕" * 100
    subprocess.run(
        [sys.executable, "-m", "drkun_tui", "ask", question, "--max-tokens", "40"],
        capture_output=True,
        check=True,
    )
    assert listed()["label"] == "measured"
    [answers] = speed.known(paths.machine_file(), MACHINE, 1).answers.values()
    assert answers.count == 1
    assert answers.last[0].evaluated > 64
    assert answers.shape == starter()


@pytest.mark.parametrize("tied", [True, False])
def test_a_base_model_s_parts_are_counted_from_its_configuration(tmp_path: Path, tied: bool) -> None:
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 32, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "tie_word_embeddings": tied,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = 2 * 100_000
    tensors = json.dumps({"w": {"dtype": "BF16", "shape": [100_000], "data_offsets": [0, size]}}).encode()
    weights = struct.pack("<Q", len(tensors)) + tensors + bytes(size)
    (tmp_path / "model.safetensors").write_bytes(weights)
    shape = inventory.inspect(tmp_path).model.shape
    assert shape
    assert (shape.layers, shape.heads, shape.head_length, shape.expert_share) == (2, 8, 16, 0.25)
    parts = {part: size for part, _, size in shape.parts}
    assert sum(parts.values()) == size
    assert parts["experts"] == 2 * 8 * 2 * 3 * 64 * 16
    assert parts["embedding"] == parts.get("output", parts["embedding"]) == 2 * 32 * 64
    assert ("output" in parts) == (not tied)


def test_the_default_context_is_one_that_fits() -> None:
    assert speed.TYPICAL_CONTEXT <= fit.DEFAULT_CONTEXT
