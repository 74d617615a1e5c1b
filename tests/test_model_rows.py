"""The list of models as rows: made once for each entry, laid out when somebody looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drkun_tui import hardware, i18n, llama_build, paths
from drkun_tui.hardware import Gpu
from drkun_tui.library import fit, speed
from drkun_tui.library.fit import Wish
from drkun_tui.library.overview import Entry, overview
from drkun_tui.profiles import GIB, Profile
from drkun_tui.ui import model_rows
from drkun_tui.ui.widgets import model_details
from tests.conftest import starter_with
from tests.gguf_files import metadata, write
from tests.model_files import put_base, put_lora

MACHINE = hardware.read()
BIG = replace(MACHINE, ram_available=1 << 36)


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    put_base(tmp_path / "models" / "base")
    for number in range(3):
        write(tmp_path / "models" / f"m{number}.gguf", metadata())
    (tmp_path / "models" / "text.gguf").write_text("no model")
    known = speed.known(paths.machine_file(), MACHINE)
    return overview([tmp_path / "models"], MACHINE, known).entries


def test_what_has_not_changed_is_the_same_row(entries: list[Entry]) -> None:
    before = model_rows.rows(entries)
    changed = [replace(entries[0]), *entries[1:]]
    after = model_rows.rows(changed, before)
    assert after == before == model_rows.rows(entries)
    assert [new is old for new, old in zip(after.each, before.each, strict=True)] == [False] + [True] * 4
    assert model_rows.rows(entries[2:], before) == model_rows.rows(entries[2:])


def test_in_another_language_every_row_is_another(entries: list[Entry]) -> None:
    before = model_rows.rows(entries)
    i18n.set_language("en" if i18n.language() == "zh" else "zh")
    after = model_rows.rows(entries, before)
    assert not any(new is old for new, old in zip(after.each, before.each, strict=True))
    assert after.titles != before.titles


def test_a_line_has_its_columns_under_their_titles_or_what_is_wrong(entries: list[Entry]) -> None:
    rows = model_rows.rows(entries)
    lines = rows.lines(("name", "size", "cpu"), 30)
    assert len(lines) == len(entries) == 5
    assert list(lines) == lines[:] == [lines[at] for at in range(5)]
    for entry, (text, problem) in zip(entries, lines, strict=True):
        assert text.startswith(entry.model.name[:10])
        assert bool(problem) == bool(entry.model.problems)
        if not problem:
            assert model_rows.cells(entry)["size"] in text and text.endswith(model_rows.cells(entry)["cpu"])
    assert any(problem for _, problem in lines)


def test_a_fit_is_for_the_context_and_the_cache_of_the_settings(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", metadata(qwen3__context_length=32_768))
    put_base(tmp_path / "base")
    known = speed.known(paths.machine_file(), BIG)
    by_wish = {}
    for wish in (Wish(), Wish(2048), Wish(2048, "q4_0")):
        entries = {e.model.name: e for e in overview([tmp_path], BIG, known, wish).entries}
        by_wish[wish] = [entries[name].fits["cpu"].need for name in ("m", "base")]
        told = entries["m"].model.as_dict(BIG, wish=wish)["fits"]
        assert told["cpu"]["need_bytes"] == entries["m"].fits["cpu"].need_bytes
    default, short, small = by_wish.values()
    assert default[0] and short[0] and small[0]
    assert short[0].cache == default[0].cache // 4
    assert small[0].cache == short[0].cache * 18 // 64
    # Only a GGUF's cache is quantised.
    assert small[1] == short[1]


def test_an_adapter_is_judged_with_its_base(tmp_path: Path) -> None:
    base = put_base(tmp_path / "base")
    put_lora(tmp_path / "lora", base_model_name_or_path=str(base))
    put_lora(tmp_path / "other", base_model_name_or_path="some/where")
    known = speed.known(paths.machine_file(), BIG)
    entries = {e.model.name: e for e in overview([tmp_path], BIG, known, Wish(1024)).entries}
    lora, answering = entries["lora"], entries["base"].model
    assert answering.shape is not None
    for profile in (Profile.CPU, Profile.GPU8, Profile.GPU16):
        expected = fit.fit(answering.shape, profile, BIG, 1024, lora.model.size_bytes)
        assert lora.fits[profile.value] == expected
    assert lora.model.as_dict(BIG, wish=Wish(1024), base=answering)["fits"]["cpu"]["need_bytes"] == (
        lora.fits["cpu"].need_bytes
    )
    assert "+" not in model_rows.cells(lora)["cpu"]
    # Without a base it is what it adds.
    assert entries["other"].fits["cpu"].need_bytes == entries["other"].model.size_bytes


def test_each_number_of_a_speed_says_where_it_comes_from(entries: list[Entry]) -> None:
    cpu = speed.Speed(10.0, 0.5, "estimated", "measured")
    entry = replace(entries[0], speed=cpu, speeds={"cpu": cpu})
    text = _details(entry)
    assert f"tok/s {i18n.t('speed.estimated')}" in text
    first = i18n.t("models.first_token", seconds="0.50", tokens=speed.PROMPT_TOKENS)
    assert f"{first} {i18n.t('speed.measured')}" in text


def test_a_speed_is_told_for_each_profile_that_can_load_the_model(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter_with(tmp_path / "m.gguf", general__name="M")
    put_lora(tmp_path / "alone", base_model_name_or_path="some/where")
    card = Gpu("Card", 24 * GIB, 20 * GIB, "nvidia 1", "nvidia", bandwidth=500_000_000_000)
    dumb = replace(card, bandwidth=0)

    def under(*gpus: Gpu) -> dict[str, Entry]:
        machine = replace(BIG, gpus=list(gpus))
        found = overview([tmp_path], machine, speed.known(paths.machine_file(), machine))
        return {entry.model.name: entry for entry in found.entries}

    assert list(under()["m"].speeds) == ["cpu"]
    assert under()["alone"].speeds == {}
    assert list(under(card)["m"].speeds) == ["cpu"]
    monkeypatch.setattr(llama_build, "gpu_backend", lambda: "CUDA")
    told = under(card)["m"]
    assert list(told.speeds) == ["cpu", "gpu8", "gpu16"]
    assert told.speed == told.speeds["gpu16"] is not None
    text = _details(told)
    assert i18n.t("models.speed_under", profile=i18n.t("profile.gpu8")) in text
    silent = under(dumb)["m"]
    assert silent.speeds == {"cpu": None, "gpu8": None, "gpu16": None}
    assert _details(silent).count(i18n.t("models.speed_unknown")) == 3


def _details(entry: Entry) -> str:
    return "".join(span.text for line in model_details._lines(entry, 200) for span in line)
