"""What the weights of a model are multiplied with: sums of squares, seen while llama.cpp computes.

As llama.cpp's ``tools/imatrix`` does it: the scheduler asks before each operation whether it is of interest,
and shows its operands when it is done. The binding has no such structure, so a tensor is described here; that
the installed library sees it alike is proved before the first one is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as binding
import numpy
from llama_cpp import _ggml

from drkun_tui.publishing.faults import PublishingError

LEAST_ROWS = 16
"""Tokens below which an operation is passed over, as llama.cpp does."""

_F32 = 0
_ON_DEVICE = re.compile(r".*#(.+)#\d+")
"""How the scheduler names its copy of a weight on another device."""


class Tensor(ctypes.Structure):
    """``struct ggml_tensor``, see ``ggml.h``."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]

_Pointer = ctypes.POINTER(Tensor)
_Array = numpy.ndarray[Any, numpy.dtype[numpy.float64]]


class _InitParams(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = getattr(_ggml.libggml, name)
    found.restype, found.argtypes = result, arguments
    return found


_op_name = _function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
_bytes_of = _function("ggml_nbytes", ctypes.c_size_t, _Pointer)
_get = _function("ggml_backend_tensor_get", None, _Pointer, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


@dataclass(slots=True)
class Sums:
    """Of one weight.

    Attributes:
        squares: (matrices, columns): for each column the squares of what it was multiplied with; a matrix is
            an expert.
        counts: how many rows these are: one number, or one for each expert.
    """

    squares: _Array
    counts: _Array


@dataclass(slots=True)
class Activations:
    """Collects, as ``cb_eval`` of a context.

    Attributes:
        of: by the names of the weights of the blocks.
        callback: what llama.cpp calls; it must live as long as the context.
    """

    of: dict[str, Sums] = field(default_factory=dict)
    callback: Any = None
    _error: Exception | None = None

    def __post_init__(self) -> None:
        """Raises `PublishingError` where the library's tensors are others."""
        _prove_layout()
        self.callback = binding.ggml_backend_sched_eval_callback(self._called)

    def check(self) -> None:
        """To be called after each evaluation: raises what went wrong in it, which C++ cannot pass on."""
        if self._error is not None:
            raise self._error

    def _called(self, address: int, ask: bool, _: object) -> bool:
        tensor = ctypes.cast(address, _Pointer).contents
        operation = _op_name(tensor.op)
        try:
            if ask:
                return _wanted(tensor, operation)
            if operation == b"MUL_MAT":
                self._add(tensor)
            else:
                self._add_experts(tensor)
        except Exception as error:  # ctypes would print it and go on
            self._error = self._error or error
        return self._error is None

    def _add(self, tensor: Tensor) -> None:
        weight, given = tensor.src[0].contents, tensor.src[1].contents
        deep, wide = weight.ne[2], weight.ne[3]
        values = _read(tensor.src[1], numpy.float32)
        squares = numpy.einsum("abrc,abrc->abc", values, values)
        sums = self._sums(_name(weight), deep * wide, given.ne[0], 1)
        for outer in range(squares.shape[0]):
            for inner in range(squares.shape[1]):
                sums.squares[(outer % wide) * deep + inner % deep] += squares[outer, inner]
        sums.counts += given.ne[1] * given.ne[2] * given.ne[3] / (deep * wide)

    def _add_experts(self, tensor: Tensor) -> None:
        """``MUL_MAT_ID``: a row of ids (tokens, chosen) says which experts each token goes to."""
        weight, given = tensor.src[0].contents, tensor.src[1].contents
        experts = weight.ne[2]
        chosen = _read(tensor.src[2], numpy.int32)[0, 0]
        values = _read(tensor.src[1], numpy.float32)[0]
        sums = self._sums(_name(weight), experts, given.ne[0], experts)
        for slot in range(chosen.shape[1]):
            rows = values[:, slot % values.shape[1]]
            for expert in numpy.unique(chosen[:, slot]):
                of_expert = rows[chosen[:, slot] == expert]
                sums.squares[expert] += numpy.einsum("rc,rc->c", of_expert, of_expert)
                sums.counts[expert] += len(of_expert)

    def _sums(self, name: str, matrices: int, columns: int, counts: int) -> Sums:
        if name not in self.of:
            self.of[name] = Sums(numpy.zeros((matrices, columns)), numpy.zeros(counts))
        return self.of[name]


def _wanted(tensor: Tensor, operation: bytes) -> bool:
    if operation not in (b"MUL_MAT", b"MUL_MAT_ID"):
        return False
    weight, given = tensor.src[0].contents, tensor.src[1].contents
    of_block = _name(weight).startswith("blk.") and given.type == _F32
    return of_block and (operation == b"MUL_MAT_ID" or given.ne[1] >= LEAST_ROWS)


def _name(weight: Tensor) -> str:
    name = bytes(weight.name).decode("utf8", "replace")
    found = _ON_DEVICE.fullmatch(name)
    return found[1] if found else name


def _read(pointer: Any, dtype: Any) -> Any:
    """A tensor's numbers, (ne[3], ne[2], ne[1], ne[0]), from wherever they are."""
    tensor = pointer.contents
    size = _bytes_of(pointer)
    raw = numpy.empty(size, numpy.uint8)
    _get(pointer, raw.ctypes.data, 0, size)
    return numpy.lib.stride_tricks.as_strided(raw.view(dtype), tensor.ne[::-1], tensor.nb[::-1])


def _prove_layout() -> None:
    """Let the library make a product of two tensors, and look whether it is one in our eyes.

    Raises:
        PublishingError: ``internal``, the installed library has other tensors.
    """
    init = _function("ggml_init", ctypes.c_void_p, _InitParams)
    free = _function("ggml_free", None, ctypes.c_void_p)
    new = _function(
        "ggml_new_tensor_2d", _Pointer, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    )
    name = _function("ggml_set_name", _Pointer, _Pointer, ctypes.c_char_p)
    product = _function("ggml_mul_mat", _Pointer, ctypes.c_void_p, _Pointer, _Pointer)
    context = init(_InitParams(1 << 16, None, True))
    alike = False
    try:
        one, other = new(context, _F32, 32, 3), new(context, _F32, 32, 5)
        name(one, b"blk.0.weight")
        made = product(context, one, other).contents
        with contextlib.suppress(ValueError):  # a null pointer
            weight, given = made.src[0].contents, made.src[1].contents
            alike = (
                _op_name(made.op) == b"MUL_MAT"
                and weight.name == b"blk.0.weight"
                and list(weight.ne) == [32, 3, 1, 1]
                and list(given.nb) == [4, 128, 640, 640]
                and not made.src[2]
            )
    finally:
        free(context)
    if not alike:
        raise PublishingError("internal", reason="ggml_tensor")
