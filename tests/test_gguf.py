"""The header reader: what it tells of sound files, and that nothing hostile gets past it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drkun_tui import paths
from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.library import gguf
from drkun_tui.library.gguf_header import Skipped
from drkun_tui.library.gguf_types import TENSOR_TYPES
from drkun_tui.library.printable import printable
from tests import gguf_files


def refusal(path: Path, *, partial: bool = False) -> DrkunError:
    with pytest.raises(DrkunError) as caught:
        gguf.read(path, partial=partial)
    error = caught.value
    assert error.exit_code == EXIT_NO_MODEL
    assert error.message
    assert error.hint
    assert "\n" not in error.message + error.hint
    return error


def claim(tmp_path: Path, raw: bytes) -> DrkunError:
    path = tmp_path / "claim.gguf"
    path.write_bytes(raw)
    return refusal(path)


def test_the_starter_says_what_it_is() -> None:
    header = gguf.read(paths.starter())
    assert header.name == "Dr. Kun Starter 26M"
    assert (header.architecture, header.general_type, header.size_label) == ("qwen3", "model", "26M")
    assert header.quantization == "Q4_K_M"
    assert (header.context_length, header.block_count, header.embedding_length) == (2048, 8, 512)
    assert (header.head_count, header.head_count_kv, header.kv_heads_in_all) == (4, 2, 16)
    assert (header.key_length, header.value_length) == (128, 128)
    assert header.vocabulary == 8192
    assert header.parameters == 26_225_152
    assert "<|im_start|>" in header.chat_template
    assert header.complete
    assert header.expected_size == header.file_size == paths.starter().stat().st_size


def test_tensor_types_are_those_of_the_installed_llama_cpp() -> None:
    # The package is only located: importing it would load the whole engine.
    found = importlib.util.find_spec("llama_cpp")
    assert found
    assert found.origin
    libraries = sorted((Path(found.origin).parent / "lib").glob("*ggml-base.*"))
    assert libraries
    ggml = ctypes.CDLL(str(libraries[0]))
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    for number, (name, block, size) in TENSOR_TYPES.items():
        assert ggml.ggml_type_name(number).decode().upper() == name
        assert (ggml.ggml_blck_size(number), ggml.ggml_type_size(number)) == (block, size)


@pytest.mark.parametrize("version", [2, 3])
def test_a_small_model(tmp_path: Path, version: int) -> None:
    header = gguf.read(gguf_files.write(tmp_path / "a.gguf", version=version))
    assert header.version == version
    assert header.tensor_count == 2
    assert header.parameters == 64 * 32 + 64
    assert header.tensor_bytes == 4 * header.parameters
    assert header.type_bytes == {"F32": header.tensor_bytes}
    assert (header.quantization, header.vocabulary, header.context_length) == ("F32", 32, 4096)
    assert (header.key_length, header.value_length, header.kv_heads_in_all) == (16, 16, 4)
    assert header.data_offset % 32 == 0
    assert header.expected_size == header.data_offset + header.tensor_bytes


def test_numbers_that_differ_from_layer_to_layer(tmp_path: Path) -> None:
    entries = gguf_files.metadata(qwen3__attention__head_count_kv=[2, 4])
    header = gguf.read(gguf_files.write(tmp_path / "a.gguf", entries))
    assert (header.head_count_kv, header.kv_heads_in_all) == (4, 6)


def test_quantization_without_a_declared_one_is_the_type_with_most_bytes(tmp_path: Path) -> None:
    entries = gguf_files.metadata()
    del entries["general.file_type"]
    tensors = [("a", (256, 4), 12), ("b", (8,), 0)]
    assert gguf.read(gguf_files.write(tmp_path / "a.gguf", entries, tensors)).quantization == "Q4_K"
    guessed = entries | {"general.file_type": 1024 + 15}
    assert gguf.read(gguf_files.write(tmp_path / "b.gguf", guessed, tensors)).quantization == "Q4_K_M"


def test_metadata_of_the_wrong_type_is_unknown(tmp_path: Path) -> None:
    entries: dict[str, gguf_files.Entry] = {
        "general.architecture": "x", "general.name": 7, "x.block_count": "many", "x.context_length": -3,
        "x.embedding_length": True, "general.file_type": 1.5,
    }  # fmt: skip
    header = gguf.read(gguf_files.write(tmp_path / "a.gguf", entries, []))
    assert (header.name, header.block_count, header.context_length, header.embedding_length) == ("",) + (
        None,
    ) * 3
    assert (header.key_length, header.kv_heads_in_all, header.vocabulary) == (None, None, None)
    assert header.quantization == ""
    assert header.general_type == "model"


def test_long_values_are_stepped_over_and_short_ones_kept(tmp_path: Path) -> None:
    entries = gguf_files.metadata(
        tokens=["x" * (i % 50) for i in range(20_000)],
        # Strings longer than the window that the file is read through.
        long=["y" * 300_000] * 65,
        scores=[0.5] * 5000,
        text="z" * (gguf.MAX_KEPT_TEXT + 1),
        tags=["medical", "中文"],
        none=[],
        last=7,
    )
    header = gguf.read(gguf_files.write(tmp_path / "a.gguf", entries))
    assert header.metadata["tokens"] == Skipped("strings", 20_000)
    assert header.metadata["long"] == Skipped("strings", 65)
    assert header.metadata["scores"] == Skipped("numbers", 5000)
    assert header.metadata["text"] == Skipped("text", gguf.MAX_KEPT_TEXT + 1)
    assert header.metadata["tags"] == ("medical", "中文")
    assert header.metadata["none"] == ()
    assert header.metadata["last"] == 7
    assert header.complete


def test_wherever_a_file_is_cut_it_is_told_as_truncated(tmp_path: Path) -> None:
    whole = gguf_files.write(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(1, len(whole), 7):
        cut.write_bytes(whole[:length])
        error = refusal(cut)
        assert error.kind == "gguf_truncated"
        assert f"{length:,}" in error.message
    cut.write_bytes(whole[:-5])
    header = gguf.read(cut, partial=True)
    assert not header.complete
    assert header.expected_size == len(whole)
    assert f"{len(whole):,}" in refusal(cut).message


def test_what_is_no_model_at_all(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.gguf").kind == "gguf_missing"
    assert refusal(tmp_path / "nul\0.gguf").kind == "gguf_unreadable"
    assert refusal(tmp_path / ("x" * 4000)).kind == "gguf_unreadable"
    assert refusal(tmp_path).kind == "gguf_not_gguf"
    empty = tmp_path / "empty.gguf"
    empty.touch()
    assert refusal(empty).kind == "gguf_empty"
    page = tmp_path / "page.gguf"
    for text in ("<html>404</html>", "G G U F", "x"):
        page.write_text(text)
        assert refusal(page).kind == "gguf_not_gguf"
    os.mkfifo(tmp_path / "pipe.gguf")
    assert refusal(tmp_path / "pipe.gguf").kind == "gguf_not_gguf"


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_other_versions_are_unsupported(tmp_path: Path, version: int) -> None:
    raw, size = gguf_files.header(version=version)
    assert claim(tmp_path, raw + bytes(size)).kind == "gguf_unsupported"


def _string(length: int) -> bytes:
    return struct.pack("<I", 8) + struct.pack("<Q", length)


def _array(kind: int, length: int) -> bytes:
    return struct.pack("<IIQ", 9, kind, length)


@pytest.mark.parametrize("huge", [1 << 20, 1 << 40, 1 << 60, (1 << 64) - 1])
def test_huge_claims_are_refused_without_being_believed(tmp_path: Path, huge: int) -> None:
    body = b"\0" * 64
    head = b"GGUF" + struct.pack("<I", 3)
    one = head + struct.pack("<QQ", 0, 1)
    key = gguf_files.text("k")
    claims = {
        "tensors": head + struct.pack("<QQ", huge, 0),
        "entries": head + struct.pack("<QQ", 0, huge),
        "key": one + struct.pack("<Q", huge),
        "text": one + key + _string(huge),
        "strings": one + key + _array(8, huge),
        "string inside": one + key + _array(8, 100) + struct.pack("<Q", huge),
        "kept string": one + key + _array(8, 3) + struct.pack("<Q", huge),
        "bytes": one + key + _array(0, huge),
        "doubles": one + key + _array(12, huge),
    }
    tracemalloc.start()
    try:
        for raw in claims.values():
            assert claim(tmp_path, raw + body).kind in ("gguf_corrupt", "gguf_truncated")
        assert claim(tmp_path, claims["tensors"] + body).kind == "gguf_corrupt"
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_header_without_an_end_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "endless.gguf"
    entry = gguf_files.text("k") + _array(0, gguf.MAX_ITEM)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 9) + entry)
        for number in range(8):
            file.seek(gguf.MAX_ITEM, os.SEEK_CUR)
            file.write(gguf_files.text(f"k{number}") + _array(0, gguf.MAX_ITEM))
        file.truncate(10 * gguf.MAX_ITEM)
    assert refusal(path).kind == "gguf_corrupt"


@pytest.mark.parametrize(
    "entries",
    [
        {f"k{i}": "x" * gguf.MAX_KEPT_TEXT for i in range(5)},
        {"general.alignment": 33},
        {"general.alignment": 0},
        {"general.alignment": "x"},
    ],
)
def test_metadata_that_no_sound_model_has(tmp_path: Path, entries: dict[str, gguf_files.Entry]) -> None:
    raw, _ = gguf_files.header(entries, [])
    assert claim(tmp_path, raw).kind == "gguf_corrupt"


def test_types_and_keys_that_cannot_be(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_files.text("k")
    assert claim(tmp_path, head + struct.pack("<I", 13) + bytes(64)).kind == "gguf_corrupt"
    assert claim(tmp_path, head + _array(9, 1) + bytes(64)).kind == "gguf_corrupt"
    twice = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (gguf_files.text("k") + struct.pack("<IB", 0, 1))
    assert claim(tmp_path, twice).kind == "gguf_corrupt"


def _tensor(shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    info = gguf_files.text("t") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info + bytes(64)


def test_tensors_that_cannot_be(tmp_path: Path) -> None:
    assert claim(tmp_path, _tensor((1,) * 5, 0)).kind == "gguf_corrupt"
    assert claim(tmp_path, _tensor((1 << 40, 1 << 40), 0)).kind == "gguf_corrupt"
    assert claim(tmp_path, _tensor((250,), 12)).kind == "gguf_corrupt"
    assert claim(tmp_path, _tensor((8,), 0, offset=32)).kind == "gguf_corrupt"
    assert claim(tmp_path, _tensor((8,), 31)).kind == "gguf_unsupported"
    assert claim(tmp_path, _tensor((8,), 999)).kind == "gguf_unsupported"
    assert claim(tmp_path, _tensor((1 << 50,), 0)).kind == "gguf_truncated"


def test_names_are_fit_for_a_screen(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\n\u202eb.gguf"
    path.write_text("no model")
    message = refusal(path).message
    assert message.isprintable()
    assert printable("a\udcffb") == "a\N{REPLACEMENT CHARACTER}b"
    assert printable("医" * 500, 10) == "医" * 9 + "…"


WHOLE = gguf_files.header(gguf_files.metadata(scores=[0.5] * 20, deep=[1] * 2000))[0] + bytes(8448)


@pytest.fixture(scope="module")
def mutant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "mutant.gguf"


@settings(
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(WHOLE) - 8 - 8448),
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([bytes(8), b"\xff" * 8, struct.pack("<Q", 1 << 60), struct.pack("<I", 9)]),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.one_of(st.none(), st.integers(0, len(WHOLE))),
)
def test_mutated_headers_give_a_header_or_a_refusal(
    mutant: Path, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    raw = bytearray(WHOLE)
    for place, new in changes:
        raw[place : place + len(new)] = new
    mutant.write_bytes(raw[:cut])
    try:
        header = gguf.read(mutant)
    except DrkunError as error:
        assert error.kind.startswith("gguf_")
        assert error.message.isprintable()
    else:
        assert header.complete
        # Every property copes with whatever the metadata holds.
        for name in dir(header):
            getattr(header, name)
