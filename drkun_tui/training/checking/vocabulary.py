"""A model's tokenizer without its weights."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp as binding

from drkun_tui.errors import EXIT_NO_MODEL, DrkunError
from drkun_tui.i18n import t
from drkun_tui.library import inventory
from drkun_tui.library.model import Kind, Model
from drkun_tui.training.rendering import Tokenizer

_SELF_STANDING = binding.LLAMA_TOKEN_ATTR_CONTROL | binding.LLAMA_TOKEN_ATTR_USER_DEFINED


@binding.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(_level: int, _text: bytes, _data: Any) -> None:
    """What goes wrong is told by a null pointer."""


def tokenizer_of(model: Model) -> Tokenizer:
    """The tokenizer that a model is trained and asked with: of a GGUF llama.cpp's, with no more of the file
    read than its vocabulary; of a folder Transformers'.

    Raises:
        DrkunError: ``packages_missing``, ``no_tokenizer``, or why the model cannot be used.
    """
    if model.kind is Kind.GGUF:
        inventory.ensure_loadable(model)
        return GgufTokenizer(model.path)
    # Imported late: a GGUF needs none of it.
    from drkun_tui.training import base_model
    from drkun_tui.training.data.summary import data_error

    if model.is_adapter:
        inventory.ensure_loadable(model)
    try:
        tokenizer: Tokenizer = base_model.tokenizer_of(model.path)
    except ImportError as error:
        raise data_error("packages_missing", packages=error.name or "transformers", extra="train") from error
    except (OSError, ValueError, KeyError) as error:
        raise _no_tokenizer(model.path, str(error)) from error
    return tokenizer


def _no_tokenizer(path: Path, reason: str) -> DrkunError:
    told = t("training.no_tokenizer", name=path.name, reason=(reason.splitlines() or ["?"])[0][:200])
    return DrkunError("no_tokenizer", told, "", EXIT_NO_MODEL)


class GgufTokenizer:
    """llama.cpp's tokenizer for one GGUF, as `drkun_tui.training.rendering.Tokenizer`.

    Raises:
        DrkunError: ``no_tokenizer``.
    """

    def __init__(self, path: Path) -> None:
        binding.llama_log_set(_silent, ctypes.c_void_p(0))
        binding.llama_backend_init()
        options = binding.llama_model_default_params()
        options.vocab_only = True
        self._model = binding.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise _no_tokenizer(path, "llama.cpp")
        self._vocab = binding.llama_model_get_vocab(self._model)
        own = binding.llama_model_chat_template(self._model, None)
        self.chat_template: str | None = own.decode("utf8", "replace") if own else None
        self.bos_token = self._text(binding.llama_vocab_bos(self._vocab))
        self.eos_token = self._text(binding.llama_vocab_eos(self._vocab))
        self._piece = ctypes.create_string_buffer(512)

    def _text(self, token: int) -> str | None:
        text = binding.llama_vocab_get_text(self._vocab, token) if token >= 0 else None
        return text.decode("utf8", "replace") if text else None

    def __call__(self, text: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        """See `Tokenizer`."""
        return {"input_ids": [self._tokens(each, add_special_tokens) for each in text]}

    def _tokens(self, text: str, special: bool) -> list[int]:
        raw = text.encode("utf8", "replace")
        room = len(raw) + 2
        tokens = (binding.llama_token * room)()
        count = binding.llama_tokenize(self._vocab, raw, len(raw), tokens, room, special, True)
        return list(tokens[:count])

    def decode(self, ids: list[int]) -> str:
        """See `Tokenizer`."""
        pieces = []
        for token in ids:
            length = binding.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), 0, True)
            pieces.append(self._piece.raw[: max(0, length)])
        return b"".join(pieces).decode("utf8", "replace")

    def get_added_vocab(self) -> dict[str, int]:
        """See `Tokenizer`."""
        tokens = range(binding.llama_vocab_n_tokens(self._vocab))
        return {
            text: token
            for token in tokens
            if binding.llama_vocab_get_attr(self._vocab, token) & _SELF_STANDING
            and (text := self._text(token))
        }
