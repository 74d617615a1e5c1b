"""What the header of a GGUF file says: its metadata, the sizes of its tensors, and what follows from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from drkun_tui.library.gguf_types import FILE_TYPES, GUESSED
from drkun_tui.library.tensors import MAX_ELEMENTS, MAX_NUMBER, Tensors


@dataclass(frozen=True, slots=True)
class Skipped:
    """Stands for a value that was stepped over.

    Args:
        kind: what it was.
        length: elements of an array, bytes of a text.
    """

    kind: Literal["text", "strings", "numbers"]
    length: int


Part = Literal["layers", "experts", "embedding", "output"]
"""Which part of a model a tensor belongs to: the parts are read to different degrees for each token."""


def part_of(tensor: str) -> Part:
    """By llama.cpp's names of tensors."""
    if "_exps." in tensor:
        return "experts"
    named: dict[str, Part] = {"token_embd.weight": "embedding", "output.weight": "output"}
    return named.get(tensor, "layers")


Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | Skipped


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself. Sizes are in bytes; unknown numbers are None, texts "".

    Texts are the file's own: pass them through `printable` before they reach a screen.
    """

    version: int
    metadata: Mapping[str, Value] = field(repr=False)
    tensor_count: int
    part_bytes: Mapping[tuple[Part, str], int]
    """Bytes of all tensors, without the padding between them, by part and tensor type."""
    parameters: int
    """Elements of all tensors."""
    data_offset: int
    """Where the tensors begin."""
    expected_size: int
    """The smallest file that holds every tensor."""
    file_size: int
    tensors: Tensors = field(default_factory=Tensors, repr=False)
    """The shapes of the tensors, fastest dimension first."""

    @property
    def tensor_bytes(self) -> int:
        """Of all tensors, without the padding between them."""
        return sum(self.part_bytes.values())

    @property
    def type_bytes(self) -> dict[str, int]:
        """Of `tensor_bytes`, how many each tensor type has."""
        types = {name: 0 for _, name in self.part_bytes}
        for (_, name), size in self.part_bytes.items():
            types[name] += size
        return types

    @property
    def complete(self) -> bool:
        """Does the file hold every tensor?"""
        return self.file_size >= self.expected_size

    @property
    def plausible(self) -> bool:
        """Are its numbers such as a model could have?"""
        numbers = (
            *(self.block_count, self.embedding_length, self.feed_forward_length, self.vocabulary),
            *(self.head_count, self.heads_in_all, self.head_count_kv, self.kv_heads_in_all),
            *(self.key_length, self.value_length),
        )
        return self.parameters <= MAX_ELEMENTS and all((number or 0) <= MAX_NUMBER for number in numbers)

    def text(self, key: str) -> str:
        """A metadata text, "" when there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """A metadata integer that is not negative; of one for each layer, the largest."""
        return max(self._numbers(key), default=None)

    def _numbers(self, key: str) -> tuple[int, ...]:
        value = self.metadata.get(key)
        values = value if isinstance(value, tuple) else (value,)
        return tuple(n for n in values if isinstance(n, int) and not isinstance(n, bool) and n >= 0)

    def _of_architecture(self, key: str) -> int | None:
        return self.number(f"{self.architecture}.{key}")

    @property
    def architecture(self) -> str:
        """E.g. ``"qwen3"``."""
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        """The name that its makers gave it."""
        return self.text("general.name")

    @property
    def general_type(self) -> str:
        """``"model"``, ``"adapter"``, ``"mmproj"``…; files of before this key are models."""
        return self.text("general.type") or "model"

    @property
    def size_label(self) -> str:
        """E.g. ``"4B"``."""
        return self.text("general.size_label")

    @property
    def chat_template(self) -> str:
        """The template's source, Jinja."""
        return self.text("tokenizer.chat_template")

    @property
    def quantization(self) -> str:
        """E.g. ``"Q4_K_M"``: as declared, else the tensor type that has the most bytes."""
        declared = self.number("general.file_type")
        if declared is not None and (name := FILE_TYPES.get(declared & ~GUESSED)):
            return name
        types = self.type_bytes
        return max(types, key=lambda name: types[name], default="")

    @property
    def context_length(self) -> int | None:
        """Tokens that it was trained for."""
        return self._of_architecture("context_length")

    @property
    def block_count(self) -> int | None:
        """Layers."""
        return self._of_architecture("block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the residual stream."""
        return self._of_architecture("embedding_length")

    @property
    def feed_forward_length(self) -> int | None:
        """Width inside the MLP."""
        return self._of_architecture("feed_forward_length")

    @property
    def head_count(self) -> int | None:
        """Query heads of a layer, of the largest where they differ."""
        return self._of_architecture("attention.head_count")

    @property
    def head_count_kv(self) -> int | None:
        """Key-value heads of a layer, of the largest where they differ; by default `head_count`."""
        declared = self._of_architecture("attention.head_count_kv")
        return self.head_count if declared is None else declared

    @property
    def kv_heads_in_all(self) -> int | None:
        """Key-value heads of all layers together."""
        each = self._numbers(f"{self.architecture}.attention.head_count_kv")
        if self.block_count is None or self.head_count_kv is None:
            return None
        return sum(each) if len(each) > 1 else self.block_count * self.head_count_kv

    @property
    def heads_in_all(self) -> int | None:
        """Query heads of all layers together."""
        each = self._numbers(f"{self.architecture}.attention.head_count")
        if self.block_count is None or self.head_count is None:
            return None
        return sum(each) if len(each) > 1 else self.block_count * self.head_count

    @property
    def expert_share(self) -> float:
        """Of the experts' weights, the share that one token is sent through."""
        used, count = (self._of_architecture(key) for key in ("expert_used_count", "expert_count"))
        return min(1.0, used / count) if used and count else 1.0

    @property
    def key_length(self) -> int | None:
        """Elements of one head's key; by default embedding / heads."""
        return self._head_length("attention.key_length")

    @property
    def value_length(self) -> int | None:
        """Elements of one head's value; by default embedding / heads."""
        return self._head_length("attention.value_length")

    def _head_length(self, key: str) -> int | None:
        declared = self._of_architecture(key)
        if declared is None and self.embedding_length and self.head_count:
            return self.embedding_length // self.head_count
        return declared

    @property
    def vocabulary(self) -> int | None:
        """Tokens in the vocabulary."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Skipped):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else self._of_architecture("vocab_size")
