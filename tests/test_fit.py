"""Memory arithmetic against measured figures, and the choice of a context length."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkun_tui import paths
from drkun_tui.hardware import Gpu, Hardware
from drkun_tui.library import fit, gguf
from drkun_tui.library.fit import MIB, Shape, context_for, need, shape_of
from drkun_tui.library.gguf_header import Part
from drkun_tui.profiles import CLASS_BYTES, GIB, Profile, budget

# Shapes of well-known models; weights of the GGUFs that were loaded to measure the figures below.
QWEN3_06B = Shape(
    weight_bytes=358 * MIB, cache_bytes=28 * 8 * 256 * 2, vocabulary=151_936, embedding=1024,
    feed_forward=3072, context_length=40_960,
)  # fmt: skip
QWEN3_4B = Shape(
    weight_bytes=2254 * MIB, cache_bytes=36 * 8 * 256 * 2, vocabulary=151_936, embedding=2560,
    feed_forward=9728, context_length=40_960,
)  # fmt: skip
LLAMA_8B = Shape(
    weight_bytes=4567 * MIB, cache_bytes=32 * 8 * 256 * 2, vocabulary=128_256, embedding=4096,
    feed_forward=14_336, context_length=131_072,
)  # fmt: skip
QWEN3_4B_BASE = replace(
    QWEN3_4B,
    is_gguf=False,
    parameters=4_022_468_096,
    embedding_parameters=151_936 * 2560,
    weight_bytes=8_044_936_192,
)


def starter() -> Shape:
    return shape_of(gguf.read(paths.starter()))


def machine(ram: int = 16 * GIB, gpu: Gpu | None = None) -> Hardware:
    return Hardware("cpu", 4, 8, ram, ram, [gpu] if gpu else [], "")


CARD = Gpu("NVIDIA Made Up", 24 * GIB, 20 * GIB, "nvidia 570.1", "nvidia")


def test_the_cache_of_qwen3_4b_is_what_the_design_measured() -> None:
    assert QWEN3_4B.cache_bytes * 4096 / GIB == pytest.approx(0.5625)


@pytest.mark.parametrize(
    ("shape", "context", "measured_mib"),
    # Unique set size of a process after a batch of 512 tokens: llama-cpp-python 0.3.36, 2 threads, the
    # layouts of safe mode, on 2026-11-21.
    [
        (QWEN3_06B, 8192, 1354),
        (QWEN3_06B, 32_768, 4044),
        (QWEN3_4B, 4096, 2985),
        (QWEN3_4B, 8192, 3568),
        (LLAMA_8B, 2048, 5009),
        (LLAMA_8B, 8192, 5785),
    ],
)
def test_the_cpu_estimate_is_near_what_was_measured(shape: Shape, context: int, measured_mib: int) -> None:
    assert need(shape, Profile.CPU, context).total / MIB == pytest.approx(measured_mib, rel=0.03)


def test_the_starter_s_estimate_is_near_what_was_measured() -> None:
    assert need(starter(), Profile.CPU, 2048).total / MIB == pytest.approx(95, rel=0.03)


@pytest.mark.parametrize(("profile", "measured_gib"), [(Profile.GPU8, 2.53), (Profile.GPU16, 7.52)])
def test_weights_on_a_gpu_are_near_what_the_design_measured(profile: Profile, measured_gib: float) -> None:
    assert need(QWEN3_4B_BASE, profile, 0).weights / GIB == pytest.approx(measured_gib, rel=0.03)


def test_fits_and_why() -> None:
    small = fit.fit(starter(), Profile.CPU, machine())
    assert small.fits
    assert small.need_bytes == need(starter(), Profile.CPU, 2048).total
    assert small.reason
    # 3.2 GiB holds Qwen3-4B with a shorter context than the default.
    shorter = fit.fit(QWEN3_4B, Profile.CPU, machine(3 * GIB + 200 * MIB))
    assert shorter.fits
    assert shorter.need_bytes < need(QWEN3_4B, Profile.CPU, 8192).total
    tight = fit.fit(QWEN3_4B, Profile.CPU, machine(2300 * MIB))
    assert not tight.fits
    assert tight.need_bytes > 2300 * MIB
    big = fit.fit(LLAMA_8B, Profile.CPU, machine(GIB))
    assert not big.fits
    assert big.reason != tight.reason


def free_for(shape: Shape, context: int, *, bits: float | None = None) -> int:
    """Bytes that hold the model, in so many bits a weight, with this context and not a MiB more."""
    if bits is not None:
        shape = replace(shape, is_gguf=True, weight_bytes=int(shape.parameters * bits / 8))
    return need(shape, Profile.CPU, context).total + MIB


BIG = replace(QWEN3_4B, parameters=4_022_468_096, weight_bytes=4_022_468_096 * 2, layers=36)
"""Qwen3-4B as a GGUF in F16."""


@pytest.mark.parametrize(
    ("context", "bits", "named"),
    [
        (8192, 8.5, "Q8_0"),
        (8192, 6.56, "Q6_K"),
        (8192, 4.89, "Q4_K_M"),
        (8192, 4.0, "Q3_K_M"),
        (512, 4.0, "Q3_K_M"),
        (512, 3.5, ""),
    ],
)
def test_what_is_too_big_is_told_which_quantisation_fits(context: int, bits: float, named: str) -> None:
    free = free_for(BIG, context, bits=bits)
    judged = fit.fit(BIG, Profile.CPU, machine(free))
    assert not judged.fits
    assert judged.context == 512
    named_here = [name for name, _ in fit.QUANTISATIONS if name in judged.reason]
    assert named_here == ([named] if named else [])
    smaller = fit.smaller_quantisation(BIG, Profile.CPU, free)
    assert (smaller[0] if smaller else "") == named
    if smaller:
        assert need(replace(BIG, weight_bytes=smaller[1]), Profile.CPU, context).total <= free
        assert fit.size_text(smaller[1]) in judged.reason


def test_a_quantisation_is_no_larger_than_what_is_there() -> None:
    """One in four bits is not told to be one in eight."""
    tight = fit.fit(replace(QWEN3_4B, parameters=BIG.parameters), Profile.CPU, machine(2300 * MIB))
    assert not tight.fits
    assert "Q3_K_M" in tight.reason
    assert "Q8_0" not in tight.reason


@pytest.mark.parametrize(
    ("parameters", "name", "size"),
    # What llama.cpp's own quantiser made of the shapes of Qwen3-4B, Llama-3.2-1B and Qwen3-0.6B.
    [
        (BIG.parameters, "Q4_K_M", 2.32 * GIB),
        (1_235_814_400, "Q8_0", 1_318_559_200),
        (1_235_814_400, "Q4_K_M", 805_170_656),
        (596_049_920, "Q8_0", 639_831_296),
        (596_049_920, "Q4_K_M", 397_089_024),
    ],
)
def test_the_sizes_of_quantisations_are_near_those_of_real_files(
    parameters: int, name: str, size: float
) -> None:
    assert parameters * dict(fit.QUANTISATIONS)[name] / 8 == pytest.approx(size, rel=0.1)


def test_a_context_that_memory_cuts_short_is_told() -> None:
    judged = fit.fit(QWEN3_4B, Profile.CPU, machine(free_for(QWEN3_4B, 4096)), 8192)
    assert judged.fits
    assert judged.context == 4096
    assert "4,096" in judged.reason
    assert judged.reason != fit.fit(QWEN3_4B, Profile.CPU, machine(), 4096).reason


def test_an_adapter_is_counted_with_its_base() -> None:
    without = fit.fit(QWEN3_4B, Profile.CPU, machine(), 4096)
    with_one = fit.fit(QWEN3_4B, Profile.CPU, machine(), 4096, 100 * MIB)
    assert with_one.need_bytes - without.need_bytes == 100 * MIB
    assert with_one.need
    assert with_one.need.adapter == 100 * MIB
    assert with_one.need.total == with_one.need_bytes
    # And takes its room from the context.
    tight = machine(free_for(QWEN3_4B, 4096))
    assert fit.fit(QWEN3_4B, Profile.CPU, tight, 4096).context == 4096
    assert fit.fit(QWEN3_4B, Profile.CPU, tight, 4096, 100 * MIB).context < 4096


def test_on_a_gpu_that_is_too_small_some_layers_fit() -> None:
    layers = BIG.layers
    parts: tuple[tuple[Part, str, int], ...]
    parts = (("layers", "F16", BIG.weight_bytes * 9 // 10), ("embedding", "F16", BIG.weight_bytes // 10))
    shape = replace(BIG, parts=parts)
    small = replace(CARD, free_bytes=4 * GIB)
    judged = fit.fit(shape, Profile.GPU8, machine(gpu=small))
    assert not judged.fits
    on_gpu = fit.gpu_layers(shape, small.free_bytes, 16 * GIB)
    assert 0 < on_gpu < layers
    assert f"{on_gpu}" in judged.reason
    assert f"{layers}" in judged.reason
    # Those layers are about what the card has, less what every model takes.
    assert on_gpu * parts[0][2] / layers < 4 * GIB < (on_gpu + 1) * parts[0][2] / layers + GIB
    # Without room for the others nothing is won.
    assert fit.gpu_layers(shape, small.free_bytes, GIB) == 0
    assert fit.gpu_layers(shape, 512 * MIB, 16 * GIB) == 0
    assert fit.gpu_layers(QWEN3_4B_BASE, 4 * GIB, 16 * GIB) == 0


def test_a_base_that_is_too_big_in_16_bits_is_told_of_nf4() -> None:
    judged = fit.fit(QWEN3_4B_BASE, Profile.GPU16, machine(gpu=replace(CARD, free_bytes=5 * GIB)))
    assert not judged.fits
    assert "nf4" in judged.reason
    hopeless = fit.fit(QWEN3_4B_BASE, Profile.GPU16, machine(gpu=replace(CARD, free_bytes=GIB)))
    assert "nf4" not in hopeless.reason
    assert hopeless.reason


def test_a_base_that_is_too_big_for_the_cpu_is_told_a_quantisation() -> None:
    judged = fit.fit(QWEN3_4B_BASE, Profile.CPU, machine(4 * GIB))
    assert not judged.fits
    assert "Q5_K_M" in judged.reason
    assert "GGUF" in judged.reason


@given(free=st.integers(0, 64 * GIB), adapter=st.integers(0, GIB), profile=st.sampled_from(list(CLASS_BYTES)))
def test_what_fits_does_not_exceed_what_is_free(free: int, adapter: int, profile: Profile) -> None:
    own = machine(gpu=replace(CARD, free_bytes=free))
    judged = fit.fit(BIG, profile, own, None, adapter)
    assert judged.fits == (judged.need_bytes <= budget(profile, own))
    assert judged.reason
    assert "{" not in judged.reason


def test_gpu_profiles_say_whether_a_gpu_is_there() -> None:
    without = fit.fit(QWEN3_4B_BASE, Profile.GPU8, machine())
    assert without.fits
    assert "NVIDIA" in without.reason
    with_card = fit.fit(QWEN3_4B_BASE, Profile.GPU16, machine(gpu=CARD))
    assert with_card.fits
    assert CARD.name in with_card.reason
    assert not fit.fit(QWEN3_4B_BASE, Profile.GPU16, machine(gpu=replace(CARD, free_bytes=GIB))).fits


def test_bases_adapters_and_packed_weights() -> None:
    on_cpu = fit.fit(QWEN3_4B_BASE, Profile.CPU, machine())
    assert on_cpu.need_bytes > 2 * QWEN3_4B_BASE.parameters
    assert "GGUF" in on_cpu.reason
    adapter = fit.fit(Shape(30 * MIB, is_gguf=False, is_adapter=True), Profile.GPU8, machine())
    assert (adapter.fits, adapter.need_bytes) == (True, 30 * MIB)
    packed = replace(QWEN3_4B_BASE, parameters=0, embedding_parameters=0, weight_bytes=2 * GIB)
    assert need(packed, Profile.GPU8, 0).weights == 2 * GIB


def test_the_context_is_the_least_of_what_limits_it() -> None:
    plenty = 64 * GIB
    assert context_for(starter(), plenty).tokens == 2048
    assert context_for(gguf.read(paths.starter()), plenty, 100_000).tokens == 2048
    assert context_for(QWEN3_4B, plenty).tokens == 8192
    assert context_for(QWEN3_4B, plenty, 0).tokens == 8192
    assert context_for(QWEN3_4B, plenty, 20_000).tokens == 19_968
    assert context_for(QWEN3_4B, plenty, 1).tokens == 512
    assert context_for(QWEN3_4B, 3 * GIB).tokens < 8192
    assert context_for(QWEN3_4B, GIB).tokens == 512
    assert context_for(replace(QWEN3_4B, context_length=300), GIB).tokens == 300
    assert context_for(replace(QWEN3_4B, context_length=0), plenty).tokens == 8192
    assert context_for(replace(QWEN3_4B, cache_bytes=0), GIB).tokens == 512
    reasons = {
        context_for(QWEN3_4B, plenty, wanted).reason for wanted in (None, 1024, 1_000_000)
    } | {context_for(QWEN3_4B, free).reason for free in (3 * GIB, GIB)}  # fmt: skip
    assert len(reasons) == 5


@given(
    free=st.integers(0, 64 * GIB),
    wanted=st.one_of(st.none(), st.integers(0, 1 << 20)),
    trained=st.integers(0, 1 << 20),
)
def test_every_context_is_one_that_llama_cpp_takes(free: int, wanted: int | None, trained: int) -> None:
    tokens = context_for(replace(QWEN3_4B, context_length=trained), free, wanted).tokens
    assert tokens >= 512 or tokens == trained
    assert tokens % 256 == 0 or tokens == trained < 512
    assert not trained or tokens <= max(trained, 0)


def test_sizes_for_people() -> None:
    assert fit.size_text(5 * GIB // 2) == "2.5 GiB"
    assert fit.size_text(95 * MIB) == "95 MiB"


def test_more_layers_than_bytes_are_none_on_a_gpu() -> None:
    shape = replace(LLAMA_8B, layers=1 << 24, cache_bytes=0, parts=(("layers", "F32", 1000),))
    assert fit.gpu_layers(shape, GIB, 16 * GIB) == 0
    assert not fit.fit(shape, Profile.GPU8, machine(gpu=replace(CARD, free_bytes=GIB))).fits
