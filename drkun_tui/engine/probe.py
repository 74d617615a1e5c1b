"""Measures llama.cpp's own kernels: ``python -m drkun_tui.engine.probe THREADS fast|safe``.

The memory's bandwidth alone would not do: some weight types are decoded at the speed of the memory, others
at that of the cores, and prefill differs by four between them. So the kernels themselves are timed on
made-up matrices, through ggml's C functions, with the weight layouts that the engine will use.

Each operation is timed by itself, and of all these times the fastest fifth's last one counts. Threads wait
for each other spinning, so a neighbour that takes a core for a moment makes some operations a thousand
times slower, and none faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import msgspec
from llama_cpp._ctypes_extensions import load_shared_library

from drkun_tui.engine.rates import Rates

TYPES = {"F16": 1, "BF16": 30, "Q8_0": 8, "Q4_0": 2, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
"""Weight types that are measured, with their numbers in ggml."""

WEIGHT_BYTES = 128 * 1024**2
"""Read round and round; larger than the caches of nearly all machines."""

COLUMNS = 2048
DECODE_ROWS, PREFILL_ROWS = 2048, 1024
BATCH = 256
"""Tokens of the measured prefill."""

HEADS, KV_HEADS, HEAD = 16, 8, 128
CONTEXT = 1024
OPERATIONS = 64

SLICE_S = 0.03
LEAST = 10
"""A figure takes so long, and so many operations, at least."""

SLICES = 3
"""Of which the fastest counts."""

TRIES = 8
DOUBT = 1.1
"""Further slices while several threads are slower than one by this; then the machine counts as busy."""

_P, _INT, _I64, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t, ctypes.c_float
_F32, _F16, _CPU = 0, 1, 0


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", _SIZE), ("mem_buffer", _P), ("no_alloc", ctypes.c_bool))


# As in ggml.h and ggml-backend.h.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_init": (_P, (_InitParams,)),
    "ggml_free": (None, (_P,)),
    "ggml_new_tensor_3d": (_P, (_P, _INT, _I64, _I64, _I64)),
    "ggml_mul_mat": (_P, (_P, _P, _P)),
    "ggml_permute": (_P, (_P, _P, _INT, _INT, _INT, _INT)),
    "ggml_add": (_P, (_P, _P, _P)),
    "ggml_flash_attn_ext": (_P, (_P, _P, _P, _P, _P, _FLOAT, _FLOAT, _FLOAT)),
    "ggml_new_graph_custom": (_P, (_P, _SIZE, ctypes.c_bool)),
    "ggml_build_forward_expand": (None, (_P, _P)),
    "ggml_nbytes": (_SIZE, (_P,)),
    "ggml_row_size": (_SIZE, (_INT, _I64)),
    "ggml_quantize_chunk": (_SIZE, (_INT, _P, _P, _I64, _I64, _I64, _P)),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_P, (_P, _P)),
    "ggml_backend_buffer_free": (None, (_P,)),
    "ggml_backend_tensor_set": (None, (_P, _P, _SIZE, _SIZE)),
    "ggml_backend_dev_by_type": (_P, (_INT,)),
    "ggml_backend_dev_init": (_P, (_P, ctypes.c_char_p)),
    "ggml_backend_dev_backend_reg": (_P, (_P,)),
    "ggml_backend_dev_buffer_type": (_P, (_P,)),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, (_P, _P)),
    "ggml_backend_reg_get_proc_address": (_P, (_P, ctypes.c_char_p)),
    "ggml_backend_graph_compute": (_INT, (_P, _P)),
}


def main() -> None:
    """Measure, and write one line of JSON."""
    probe = Probe(int(sys.argv[1]), extra=sys.argv[2] == "fast")
    cache_bytes = CONTEXT * KV_HEADS * HEAD * 2 * 2
    cached = probe.attention(1)
    uncached = max(cached, probe.attention(1, WEIGHT_BYTES // cache_bytes))
    rates = Rates(
        threads=probe.threads,
        decode={name: probe.decode(kind) for name, kind in TYPES.items()},
        prefill={name: probe.prefill(kind) for name, kind in TYPES.items()},
        attention_s=cached / (HEADS * CONTEXT),
        cache_s=(uncached - cached) / cache_bytes,
        prefill_attention=HEADS * BATCH * CONTEXT * 2 * HEAD / probe.attention(BATCH),
        operation_s=probe.operation(),
        last_cache=last_cache(),
        quiet=probe.quiet,
    )
    sys.stdout.buffer.write(msgspec.json.encode(rates) + b"\n")


def last_cache() -> int:
    """Bytes of the CPU's last cache; 0 where the system does not tell, which is anywhere but on Linux."""
    sizes = (path.read_text() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return max((int(size.strip().removesuffix("K")) * 1024 for size in sizes), default=0)


class Probe:
    """Times single operations on ggml's CPU backend.

    Args:
        threads: how many compute.
        extra: use the special weight layouts that the CPU may have.
    """

    def __init__(self, threads: int, *, extra: bool) -> None:
        self.threads = threads
        self.quiet = True
        llama_cpp.llama_backend_init()
        folder = Path(llama_cpp.__file__).parent / "lib"
        self._libraries = [load_shared_library(name, folder) for name in ("ggml", "ggml-base")]
        self._device = self._call("ggml_backend_dev_by_type", _CPU)
        self._backend = self._call("ggml_backend_dev_init", self._device, None)
        registry = self._call("ggml_backend_dev_backend_reg", self._device)
        address = self._call("ggml_backend_reg_get_proc_address", registry, b"ggml_backend_set_n_threads")
        self._set_threads = ctypes.CFUNCTYPE(None, _P, _INT)(address)
        self._plain = self._call("ggml_backend_dev_buffer_type", self._device)
        self._layouts = [self._plain]
        list_name = b"ggml_backend_dev_get_extra_bufts"
        if extra and (address := self._call("ggml_backend_reg_get_proc_address", registry, list_name)):
            listed = ctypes.CFUNCTYPE(ctypes.POINTER(_P), _P)(address)(self._device)
            self._layouts = [*itertools.takewhile(bool, (listed[i] for i in itertools.count())), self._plain]

    def decode(self, kind: int) -> float:
        """Bytes a second of weights of this type, multiplied with one token."""
        size = DECODE_ROWS * self._call("ggml_row_size", kind, COLUMNS)
        with self._products(kind, DECODE_ROWS, 1, WEIGHT_BYTES // size) as graphs:
            return float(size / self._time(graphs))

    def prefill(self, kind: int) -> float:
        """Multiply-adds a second of weights of this type, multiplied with a batch of tokens."""
        with self._products(kind, PREFILL_ROWS, BATCH, 1) as graphs:
            return COLUMNS * PREFILL_ROWS * BATCH / self._time(graphs)

    def attention(self, tokens: int, copies: int = 1) -> float:
        """Seconds of attention of so many tokens over a context.

        Args:
            copies: of keys and values, gone through one after the other; many of them fit no cache.
        """
        with self._memory() as inputs, self._memory() as results:

            def make(kind: int, *shape: int) -> int:
                tensors.append(self._call("ggml_new_tensor_3d", inputs, kind, *shape))
                return tensors[-1]

            tensors: list[int] = []
            query, mask = make(_F32, HEAD, tokens, HEADS), make(_F16, CONTEXT, tokens, 1)
            graphs = []
            for _ in range(copies):
                # The KV cache has the heads of one position beside each other.
                keys, values = (
                    self._call("ggml_permute", results, make(_F16, HEAD, KV_HEADS, CONTEXT), 0, 2, 1, 3)
                    for _ in range(2)
                )
                out = self._call(
                    "ggml_flash_attn_ext", results, query, keys, values, mask, HEAD**-0.5, 0.0, 0.0
                )
                graphs.append(self._graph(results, out))
            with self._allocated(inputs, self._plain), self._allocated(results, self._plain):
                for tensor in tensors:
                    self._fill(tensor, b"\0")
                return self._time(graphs)

    def operation(self) -> float:
        """Seconds of an operation that has next to nothing to do."""
        with self._memory() as weights, self._memory() as results:
            one = self._call("ggml_new_tensor_3d", weights, _F32, HEAD, 1, 1)
            out = one
            for _ in range(OPERATIONS):
                out = self._call("ggml_add", results, out, one)
            graph = self._graph(results, out)
            with self._allocated(weights, self._plain), self._allocated(results, self._plain):
                self._fill(one, b"\0")
                # A single thread would be faster here, but the engine uses all of them for everything.
                slices = (self._slice(itertools.repeat(graph), self.threads) for _ in range(SLICES))
                return min(slices) / OPERATIONS

    @contextlib.contextmanager
    def _products(self, kind: int, rows: int, tokens: int, count: int) -> Iterator[list[int]]:
        """Graphs that multiply matrices of a type, each with the same tokens; in the first layout that
        can, as llama.cpp chooses it."""
        for layout in self._layouts:
            with self._memory() as weights, self._memory() as inputs, self._memory() as results:
                matrices = [
                    self._call("ggml_new_tensor_3d", weights, kind, COLUMNS, rows, 1) for _ in range(count)
                ]
                batch = self._call("ggml_new_tensor_3d", inputs, _F32, COLUMNS, tokens, 1)
                with self._allocated(weights, layout) as taken:
                    outs = [self._call("ggml_mul_mat", results, matrix, batch) for matrix in matrices]
                    if not taken or not self._call("ggml_backend_dev_supports_op", self._device, outs[0]):
                        continue
                    graphs = [self._graph(results, out) for out in outs]
                    with self._allocated(inputs, self._plain), self._allocated(results, self._plain):
                        row = self._row(kind)
                        for matrix in matrices:
                            self._fill(matrix, row)
                        self._fill(batch, self._row(_F32))
                        yield graphs
                        return

    def _row(self, kind: int) -> bytes:
        """Ordinary numbers as a row of a matrix: infinities and denormals would not do."""
        numbers = (_FLOAT * COLUMNS)(*(math.sin(index) for index in range(COLUMNS)))
        if kind == _F32:
            return bytes(numbers)
        row = ctypes.create_string_buffer(self._call("ggml_row_size", kind, COLUMNS))
        self._call("ggml_quantize_chunk", kind, numbers, row, 0, 1, COLUMNS, None)
        return row.raw

    def _time(self, graphs: Sequence[int]) -> float:
        """Seconds of one of these graphs; a single thread's where several only disturb each other."""
        turn = itertools.cycle(graphs)
        if self.threads == 1:
            return min(self._slice(turn, 1) for _ in range(SLICES))
        alone = self._slice(turn, 1)
        best = min(self._slice(turn, self.threads) for _ in range(SLICES))
        for _ in range(TRIES):
            if best <= alone * DOUBT:
                return best
            best = min(best, self._slice(turn, self.threads))
        self.quiet = False
        return min(alone, best)

    def _slice(self, graphs: Iterator[int], threads: int) -> float:
        self._set_threads(self._backend, threads)
        compute = self._function("ggml_backend_graph_compute")
        times: list[float] = []
        end = time.perf_counter() + SLICE_S
        while time.perf_counter() < end or len(times) < LEAST:
            graph = next(graphs)
            began = time.perf_counter()
            compute(self._backend, graph)
            times.append(time.perf_counter() - began)
        return sorted(times)[len(times) // 5]

    def _graph(self, context: int, out: int) -> int:
        graph: int = self._call("ggml_new_graph_custom", context, 2 * OPERATIONS, False)
        self._call("ggml_build_forward_expand", graph, out)
        return graph

    def _fill(self, tensor: int, row: bytes) -> None:
        size = self._call("ggml_nbytes", tensor)
        self._call("ggml_backend_tensor_set", tensor, row * (size // len(row)), 0, size)

    @contextlib.contextmanager
    def _memory(self) -> Iterator[int]:
        """A place for tensors' descriptions."""
        context = self._call("ggml_init", _InitParams(4 * 1024**2, None, True))
        try:
            yield context
        finally:
            self._call("ggml_free", context)

    @contextlib.contextmanager
    def _allocated(self, context: int, layout: int) -> Iterator[int | None]:
        """Memory for these tensors; None where the layout cannot hold them."""
        buffer = self._call("ggml_backend_alloc_ctx_tensors_from_buft", context, layout)
        try:
            yield buffer
        finally:
            if buffer:
                self._call("ggml_backend_buffer_free", buffer)

    def _function(self, name: str) -> Any:
        library = next(library for library in self._libraries if hasattr(library, name))
        function = getattr(library, name)
        function.restype, function.argtypes = _FUNCTIONS[name][0], _FUNCTIONS[name][1]
        return function

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._function(name)(*arguments)


if __name__ == "__main__":
    main()
