"""Where things live: the data folder, the model folders, the bundled model.

``DRKUN_HOME`` overrides every other choice. Without it a checkout keeps its models in its own
``models/``, and everything else is in the platform's data folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.i18n import t

PACKAGE = Path(__file__).parent
_CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else None


def home() -> Path:
    """The data folder: conversations, settings, logs, runs. Made on first use.

    Raises:
        DrkunError: ``no_home``, it cannot be made.
    """
    if chosen := os.environ.get("DRKUN_HOME"):
        folder = Path(chosen).expanduser()
    else:
        # Imported late: `drkun --version` needs no platform folders.
        import platformdirs

        folder = Path(platformdirs.user_data_dir("drkun", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DrkunError(
            "no_home",
            t("error.no_home", folder=str(folder), reason=error.strerror or str(error)),
            t("error.no_home_hint"),
            EXIT_BAD_INPUT,
        ) from error
    return folder


def starter() -> Path:
    """The bundled demonstration model, a GGUF file."""
    name = "drkun-starter-Q4_K_M.gguf"
    installed = PACKAGE / "models" / "starter" / name
    return installed if installed.exists() else PACKAGE.parent / "models" / "starter" / name


def model_store() -> Path:
    """Where downloads and imports go."""
    if not os.environ.get("DRKUN_HOME") and _CHECKOUT is not None:
        return _CHECKOUT / "models"
    return home() / "models"


def model_folders() -> list[Path]:
    """Every folder that is searched for models, the store first. Some may not exist."""
    return [model_store(), starter().parent]


def database() -> Path:
    """The conversations."""
    return home() / "conversations.db"


def comparisons() -> Path:
    """The comparisons that were made, with their votes; JSON lines."""
    return home() / "comparisons.jsonl"


def settings_file() -> Path:
    """The settings, TOML."""
    return home() / "settings.toml"


def engine_log() -> Path:
    """What the engine process wrote to its standard error, newest run only."""
    return home() / "engine.log"


def machine_file() -> Path:
    """What was learned about this machine: safe mode, measured speeds. JSON."""
    return home() / "machine.json"


def header_cache() -> Path:
    """What was read out of the headers of model files; may be deleted at any time."""
    return home() / "headers.cache"


def cache() -> Path:
    """What was fetched to work with and can be fetched again; may be deleted at any time."""
    return home() / "cache"


def aliases_file() -> Path:
    """The names that the user gave to models, by their paths. JSON."""
    return home() / "aliases.json"


def shown(path: Path) -> str:
    """The path as people write it: ``~`` for their own folder."""
    own = Path.home()
    return f"~{os.sep}{path.relative_to(own)}" if path.is_relative_to(own) else str(path)
