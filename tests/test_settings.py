"""What the user chose: read with care, written whole or not at all."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from drkun_tui import i18n, paths
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.sampling import Sampling
from drkun_tui.settings import Settings, load, save


def test_no_file_is_the_defaults(home: Path) -> None:
    assert load(paths.settings_file()) == Settings()
    assert list(home.iterdir()) == []


def test_the_defaults_can_be_saved_and_name_nothing(home: Path) -> None:
    save(Settings(), paths.settings_file())
    assert paths.settings_file().read_text().strip() == ""
    assert load(paths.settings_file()) == Settings()


def test_only_what_differs_is_written(home: Path) -> None:
    """So that a later version's better defaults reach those who never chose."""
    save(Settings(theme="nord", sampling=Sampling(temperature=0.2)), paths.settings_file())
    assert paths.settings_file().read_text() == 'theme = "nord"\n\n[sampling]\ntemperature = 0.2\n'


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    settings=st.builds(
        Settings,
        language=st.sampled_from(["auto", "zh", "en"]),
        theme=texts,
        model=texts,
        adapter=st.none() | texts,
        adapter_scale=st.floats(0, 2),
        profile=st.sampled_from(["auto", "cpu", "gpu8", "gpu16", "remote"]),
        context_length=st.integers(0, 1 << 20),
        threads=st.integers(0, 1024),
        think=st.booleans(),
        system=texts,
        sampling=st.builds(
            Sampling,
            temperature=st.floats(0, 5),
            top_k=st.integers(0, 1000),
            seed=st.none() | st.integers(0, 2**32 - 1),
        ),
        model_folders=st.lists(texts, max_size=3),
        keys=st.dictionaries(texts, texts, max_size=3),
    )
)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, settings: Settings) -> None:
    save(settings, tmp_path / "settings.toml")
    assert load(tmp_path / "settings.toml") == settings
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"temperature = ", ""),
        (b"theme = 'a'\ntheme = 'b'", ""),
        (b"\xff\xfe", ""),
        (b"threads = -1", "threads"),
        (b"threads = 5000", "threads"),
        (b"threads = true", "threads"),
        (b"context_length = 'long'", "context_length"),
        (b"language = 'fr'", "language"),
        (b"profile = 'gpu4'", "profile"),
        (b"reasoning = 'sometimes'", "reasoning"),
        (b"keys = {send = 3}", "keys"),
        (b"model_folders = 'one'", "model_folders"),
        (b"[sampling]\ntemperature = -0.1", "temperature"),
        (b"[sampling]\ntemperature = nan", "temperature"),
        (b"[sampling]\ntop_p = 0", "top_p"),
        (b"[sampling]\ntop_k = 1.5", "top_k"),
        (b"[sampling]\nseed = 4294967296", "seed"),
        (b"[sampling]\nrepeat_penalty = 0", "repeat_penalty"),
    ],
)
def test_a_broken_file_is_told_and_left_as_it_is(home: Path, content: bytes, reason: str) -> None:
    paths.settings_file().write_bytes(content)
    with pytest.raises(DrkunError) as raised:
        load(paths.settings_file())
    error = raised.value
    assert (error.kind, error.exit_code) == ("settings_broken", EXIT_BAD_INPUT)
    assert str(paths.settings_file()) in error.message
    assert reason in error.message
    assert "\n" not in error.message
    assert error.hint == i18n.t("error.settings_broken_hint")
    assert paths.settings_file().read_bytes() == content


def test_a_folder_in_the_files_place(home: Path) -> None:
    paths.settings_file().mkdir()
    with pytest.raises(DrkunError, match=r"settings\.toml"):
        load(paths.settings_file())
    with pytest.raises(DrkunError) as raised:
        save(Settings(theme="nord"), paths.settings_file())
    assert raised.value.kind == "settings_unsaved"
    assert [path.name for path in home.iterdir()] == ["settings.toml"]


def test_what_cannot_be_written_is_told_and_leaves_the_old_file(home: Path) -> None:
    save(Settings(theme="nord"), paths.settings_file())
    with pytest.raises(DrkunError) as raised:
        save(Settings(system="头晕\ud800"), paths.settings_file())
    assert raised.value.kind == "settings_unsaved"
    assert load(paths.settings_file()).theme == "nord"
    with pytest.raises(DrkunError) as raised:
        save(Settings(), home / "missing" / "settings.toml")
    assert raised.value.kind == "settings_unsaved"
    assert [path.name for path in home.iterdir()] == ["settings.toml"]


def test_keys_of_another_version_do_not_break_the_file(home: Path) -> None:
    paths.settings_file().write_text("future = 3\ntheme = 'nord'\n[sampling]\nmin_p = 0.1\n")
    assert load(paths.settings_file()) == Settings(theme="nord")


def test_keys_of_another_version_stay_in_the_file(home: Path) -> None:
    paths.settings_file().write_text("from_the_future = [1]\ntheme = 'nord'\n[later]\na = 'b'\n", "utf8")
    save(Settings(language="en"), paths.settings_file())
    assert tomllib.loads(paths.settings_file().read_text("utf8")) == {
        "from_the_future": [1],
        "later": {"a": "b"},
        "language": "en",
    }


def test_whole_numbers_serve_as_fractions(home: Path) -> None:
    paths.settings_file().write_text("[sampling]\ntemperature = 1\n")
    assert load(paths.settings_file()).sampling == Sampling(temperature=1.0)


def test_the_limits_of_sampling_hold_wherever_it_is_read() -> None:
    for field, value in {"temperature": 5.1, "top_p": 1.1, "top_k": -1, "max_tokens": -1, "seed": -1}.items():
        with pytest.raises(msgspec.ValidationError, match=field):
            msgspec.convert({field: value}, Sampling)


def test_the_data_folder_is_made_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRKUN_HOME", str(tmp_path / "a" / "b"))
    assert paths.home() == tmp_path / "a" / "b"
    assert paths.home().is_dir()
    assert paths.model_store() == tmp_path / "a" / "b" / "models"
    for path in (paths.database(), paths.settings_file(), paths.engine_log(), paths.machine_file()):
        assert path.parent == tmp_path / "a" / "b"


def test_without_a_choice_the_platforms_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DRKUN_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.home().is_relative_to(tmp_path)
    assert paths.home().name == "drkun"
    # A checkout keeps its models beside its code.
    assert paths.model_store() == Path(__file__).parent.parent / "models"


def test_a_data_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRKUN_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DrkunError) as raised:
        paths.home()
    assert (raised.value.kind, raised.value.exit_code) == ("no_home", EXIT_BAD_INPUT)
    assert "DRKUN_HOME" in raised.value.hint


def test_the_bundled_model_is_there() -> None:
    assert paths.starter().is_file()
    assert paths.starter().parent in paths.model_folders()
    assert paths.model_folders()[0] == paths.model_store()


def test_paths_are_shown_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert paths.shown(tmp_path / "models" / "a.gguf") == f"~{os.sep}models{os.sep}a.gguf"
    assert paths.shown(tmp_path.parent) == str(tmp_path.parent)
