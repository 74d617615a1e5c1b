"""The llama.cpp engine: one GGUF through llama-cpp-python's low-level binding.

The binding's C functions are called directly, because its high-level class hides what is needed
here: load progress, the weight layouts of safe mode, stopping in the middle of a long prompt, and
how much of the KV cache a new prompt can reuse.
"""

from __future__ import annotations

import codecs
import ctypes
import re
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp as binding

from drkun_tui.engine import prompting
from drkun_tui.engine.base import PENALTY_LAST_N, Emit, EngineError, Prompt, Stopping, Tokens, weights_read
from drkun_tui.engine.chat_template import CHATML, NAMED, ChatTemplate
from drkun_tui.engine.llama_sampler import Sampler
from drkun_tui.engine.pace import Pace
from drkun_tui.engine.protocol import Generate, Load, Loading, Ready
from drkun_tui.engine.thinking import SPELLINGS
from drkun_tui.sampling import Sampling

BATCH = 512
"""Most prompt tokens evaluated in one call."""

SLOW_STEP_S = 0.02
"""A decode step this slow is watched for a cancel from inside; a quicker one ends soon anyway, and
asking Python about every node of its graph would cost some eight per cent."""

_ABORTED = 2
"""What ``llama_decode`` returns when the abort callback said so."""

_LOG_ERROR = 4

_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf", re.IGNORECASE)
"""Name of one of the files that a model is split into."""

_CACHE_TYPES = {
    "f16": binding.GGML_TYPE_F16,
    "q8_0": binding.GGML_TYPE_Q8_0,
    "q4_0": binding.GGML_TYPE_Q4_0,
}


class LlamaCpp:
    """See `drkun_tui.engine.base.Engine`."""

    def __init__(self) -> None:
        self._prompt: list[int] = []
        self._cached: list[int] = []
        """Tokens whose keys and values are in the KV cache, in order."""
        self._settled: tuple[str, list[int]] = ("", [])
        """What the next prompt begins with, as text and as tokens."""
        self._stopping: Stopping = lambda: False
        self._errors: list[str] = []
        self._adapters: dict[tuple[str, int, int], Any] = {}
        """By path, size and time of change; llama.cpp keeps what it has read until the model goes."""
        self._attached: list[tuple[Any, float]] = []
        """Adapters in use, with their scales."""
        # ctypes frees a callback with its last reference, so the engine keeps them.
        self._log = binding.llama_log_callback(self._on_log)
        self._abort = binding.ggml_abort_callback(lambda _: self._stopping())
        self._no_abort = binding.ggml_abort_callback()

    def load(self, request: Load, emit: Emit) -> Ready:
        """See `Engine.load`."""
        began = time.perf_counter()
        binding.llama_log_set(self._log, ctypes.c_void_p(0))
        binding.llama_backend_init()
        self._model = self._load_model(request, emit)
        self._vocab = binding.llama_model_get_vocab(self._model)
        self._on_gpu = request.gpu_layers > binding.llama_model_n_layer(self._model)
        self._context = self._make_context(request)
        self._memory = binding.llama_get_memory(self._context)
        self._n_ctx = int(binding.llama_n_ctx_seq(self._context))
        self._threads = request.threads
        self._pace = Pace(self._decode_threads(request))
        self.set_adapter(request.adapter, request.adapter_scale)
        own = binding.llama_model_chat_template(self._model, None)
        source = NAMED.get(request.template) or (own or b"").decode("utf8", "replace")
        self._template = ChatTemplate(
            source or CHATML,
            bos=self._token_text(binding.llama_vocab_bos(self._vocab)),
            eos=self._token_text(binding.llama_vocab_eos(self._vocab)),
        )
        self._stops = self._stop_tokens()
        self._shown = {
            ids[0]
            for spelling in SPELLINGS
            for tag in (spelling.open, spelling.close)
            if len(ids := self._tokenize(tag)) == 1
        }
        self._piece = ctypes.create_string_buffer(512)
        emit(Loading("warmup", 0.0))
        self._warm_up()
        emit(Loading("warmup", 1.0))
        layers = int(binding.llama_model_n_layer(self._model))
        return Ready(
            engine="llama_cpp",
            architecture=self._meta("general.architecture"),
            parameters=int(binding.llama_model_n_params(self._model)),
            size_bytes=int(binding.llama_model_size(self._model)),
            context_length=self._n_ctx,
            threads=request.threads,
            load_s=time.perf_counter() - began,
            safe_mode=request.safe_mode,
            cpu_layers=max(0, layers - request.gpu_layers) if request.gpu_layers else 0,
            has_template=bool(source),
            can_toggle_thinking=self._template.can_toggle_thinking,
        )

    def set_adapter(self, path: str | None, scale: float) -> None:
        """See `Engine.set_adapter`."""
        wanted = [(self._adapter(path), scale)] if path else []
        # One whose changes are all zero would only cost time.
        wanted = [(adapter, scale) for adapter, scale in wanted if scale]
        if wanted == self._attached:
            return
        if not self._attach(wanted):
            self._attach(self._attached)
            raise EngineError("adapter_failed", file=Path(path or "").name, reason=self._last_error())
        self._attached = wanted
        # Its keys and values were computed with other weights.
        self._forget()

    def prepare(self, request: Generate) -> Prompt:
        """See `Engine.prepare`."""
        self._prompt, prompt = prompting.build(
            request, self._template, self._tokenize_prompt, self._n_ctx, self._reuse
        )
        return prompt

    def generate(self, request: Generate, prompt: Prompt, stopping: Stopping) -> Tokens:
        """See `Engine.generate`."""
        self._stopping = stopping
        if not self._evaluate(self._prompt[prompt.reused_tokens :]):
            return "cancelled"
        sampler = self._sampler(request.sampling, prompt.seed)
        # The repeat penalty goes on where the partial answer left it.
        for token in self._tokenize(prompt.carried)[-PENALTY_LAST_N:]:
            sampler.accept(token)
        try:
            return (yield from self._decode(sampler, request.sampling.max_tokens))
        finally:
            sampler.free()

    def settle(self, request: Generate, answer: str, stopping: Stopping) -> None:
        """See `Engine.settle`."""
        self._stopping = stopping
        history, tokens = prompting.next_history(request, answer, self._template, self._tokenize, self._n_ctx)
        if tokens:
            self._settled = self._before_last_control(history, tokens)
            self._evaluate(tokens[self._reuse(tokens) :])

    # Loading

    def _load_model(self, request: Load, emit: Emit) -> Any:
        params = binding.llama_model_default_params()
        params.n_gpu_layers = request.gpu_layers
        params.load_mode = binding.LLAMA_LOAD_MODE_MMAP
        params.use_extra_bufts = not request.safe_mode
        last = 0.0
        sizes = _sizes(Path(request.path))
        emit(weights_read(0.0, sizes))

        def on_progress(fraction: float, _: object) -> bool:
            nonlocal last
            if fraction - last >= 0.01:
                last = fraction
                emit(weights_read(fraction, sizes))
            return True

        callback = binding.llama_progress_callback(on_progress)
        params.progress_callback = callback
        model = binding.llama_model_load_from_file(request.path.encode(), params)
        if not model:
            raise EngineError("load_failed", file=Path(request.path).name, reason=self._last_error())
        return model

    def _make_context(self, request: Load) -> Any:
        params = self._context_params(request)
        params.n_ctx = request.context_length
        params.n_batch = params.n_ubatch = min(BATCH, request.context_length)
        params.n_threads, params.n_threads_batch = self._decode_threads(request), request.threads
        made = binding.llama_init_from_model(self._model, params)
        if not made:
            raise EngineError("no_memory", context=request.context_length, reason=self._last_error())
        return made

    def _context_params(self, request: Load) -> Any:
        """What an answer depends on, alone or among others."""
        params = binding.llama_context_default_params()
        params.no_perf = True
        params.type_k = params.type_v = _CACHE_TYPES[request.kv_cache]
        params.flash_attn_type = self._attention(request)
        return params

    def _decode_threads(self, request: Load) -> int:
        """With all layers on a GPU a CPU only looks up the token's embedding; waking the other threads for
        that takes longer than doing it."""
        return 1 if self._on_gpu else request.threads

    def _attention(self, request: Load) -> int:
        """As wished for; else plain attention on a CPU, where its scores fit into the memory that the logits
        of a batch need anyway.

        There it is quicker over a long context than flash attention, which saves that memory: seen here, 20
        tokens after 720 take 6.6 ms against 10.4 on the bundled model.
        """
        if request.flash_attention == "on" or request.kv_cache != "f16":
            return int(binding.LLAMA_FLASH_ATTN_TYPE_ENABLED)
        if request.flash_attention == "off":
            return int(binding.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        if request.gpu_layers:
            return int(binding.LLAMA_FLASH_ATTN_TYPE_AUTO)
        heads = int(binding.llama_model_n_head(self._model))
        vocabulary = int(binding.llama_vocab_n_tokens(self._vocab))
        plain = heads * request.context_length <= vocabulary
        kind = binding.LLAMA_FLASH_ATTN_TYPE_DISABLED if plain else binding.LLAMA_FLASH_ATTN_TYPE_AUTO
        return int(kind)

    def _adapter(self, path: str) -> Any:
        """The adapter in this file, read when it is wanted for the first time."""
        self._errors.clear()
        try:
            status = Path(path).stat()
        except OSError as error:
            reason = error.strerror or str(error)
            raise EngineError("adapter_failed", file=Path(path).name, reason=reason) from error
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._adapters:
            adapter = binding.llama_adapter_lora_init(self._model, path.encode())
            if not adapter:
                raise EngineError("adapter_failed", file=Path(path).name, reason=self._last_error())
            self._adapters[key] = adapter
        return self._adapters[key]

    def _attach(self, wanted: list[tuple[Any, float]]) -> bool:
        adapters = (binding.llama_adapter_lora_p_ctypes * len(wanted))(*(adapter for adapter, _ in wanted))
        scales = (ctypes.c_float * len(wanted))(*(scale for _, scale in wanted))
        return not binding.llama_set_adapters_lora(self._context, adapters, len(wanted), scales)

    def _forget(self) -> None:
        binding.llama_memory_clear(self._memory, True)
        self._cached.clear()

    def _warm_up(self) -> None:
        """Evaluate a batch and a single token: a machine that crashes on this model does so here,
        before anything was asked, and the weights come into memory."""
        self._evaluate([0] * min(32, self._n_ctx // 2))
        self._evaluate([0])
        self._forget()

    def _stop_tokens(self) -> frozenset[int]:
        """Every token that ends a turn: those that the file declares, and the control token with
        which the template itself closes an assistant's message. Fine-tunes often declare another."""
        size = int(binding.llama_vocab_n_tokens(self._vocab))
        declared = {token for token in range(size) if binding.llama_vocab_is_eog(self._vocab, token)}
        used = {
            token
            for token in self._tokenize(self._template.between_turns())
            if binding.llama_vocab_is_control(self._vocab, token)
        }
        return frozenset(declared | used)

    # Text and tokens

    def _tokenize(self, text: str) -> list[int]:
        raw = text.encode("utf8", "replace")
        # A template writes its own beginning-of-sequence token, or none is wanted.
        room = len(raw) + 2
        tokens = (binding.llama_token * room)()
        count = binding.llama_tokenize(self._vocab, raw, len(raw), tokens, room, False, True)
        return list(tokens[:count])

    def _tokenize_prompt(self, text: str) -> list[int]:
        """As `_tokenize`; what the last `settle` has tokenized already is not tokenized again."""
        known, tokens = self._settled
        return tokens + self._tokenize(text[len(known) :]) if text.startswith(known) else self._tokenize(text)

    def _before_last_control(self, text: str, tokens: list[int]) -> tuple[str, list[int]]:
        """The part of a text whose tokens stay as they are whatever is written behind it: a tokenizer
        never joins what stands on the two sides of a control token."""
        ends = (
            i for i in reversed(range(len(tokens))) if binding.llama_vocab_is_control(self._vocab, tokens[i])
        )
        last = next(ends, 0)
        before, mark, _ = text.rpartition(self._token_text(tokens[last])) if last else ("", "", "")
        return (before, tokens[:last]) if mark else ("", [])

    def _token_text(self, token: int) -> str:
        if token < 0:
            return ""
        text = binding.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf8", "replace") if text else ""

    def _token_bytes(self, token: int) -> bytes:
        # Control tokens are never text, unless they spell a reasoning tag.
        special = token in self._shown
        length = binding.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), 0, special)
        return self._piece.raw[:length] if length > 0 else b""

    def _meta(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = binding.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf8", "replace") if length >= 0 else ""

    # Evaluation

    def _reuse(self, tokens: list[int]) -> int:
        """Cut the KV cache back to what it shares with `tokens`; return how many tokens that is."""
        shared = prompting.shared_prefix(self._cached, tokens)
        if not binding.llama_memory_seq_rm(self._memory, 0, shared, -1):
            # Recurrent models keep one state and cannot go back to an earlier one.
            binding.llama_memory_clear(self._memory, True)
            shared = 0
        del self._cached[shared:]
        return shared

    def _evaluate(self, tokens: list[int]) -> bool:
        """Evaluate in batches; False when told to stop, with what is done kept in the cache."""
        self._watch(True)
        for start in range(0, len(tokens), BATCH):
            batch = tokens[start : start + BATCH]
            if self._stopping() or not self._step(batch):
                return False
        return True

    def _step(self, batch: list[int]) -> bool:
        array = (binding.llama_token * len(batch))(*batch)
        code = binding.llama_decode(self._context, binding.llama_batch_get_one(array, len(batch)))
        if code == 0:
            self._cached += batch
            return True
        # Part of the batch may have entered the cache.
        binding.llama_memory_seq_rm(self._memory, 0, len(self._cached), -1)
        if code == _ABORTED:
            return False
        raise EngineError("decode_failed", code=code, reason=self._last_error())

    def _watch(self, on: bool) -> None:
        callback = self._abort if on else self._no_abort
        binding.llama_set_abort_callback(self._context, callback, ctypes.c_void_p(0))

    def _decode(self, sampler: Sampler, max_tokens: int) -> Tokens:
        text = codecs.getincrementaldecoder("utf8")("replace")
        room = self._n_ctx - len(self._cached)
        most = min(max_tokens or room, room)
        self._watch(False)
        watched = False
        for produced in range(1, most + 1):
            if self._stopping():
                return "cancelled"
            token = sampler.sample(self._context, -1)
            if token in self._stops:
                return "stop"
            piece = text.decode(self._token_bytes(token))
            # A GPU computes while the text is sent; a CPU would have the reader wait for the next token.
            if not self._on_gpu:
                yield piece
            if produced < most:
                began = time.perf_counter()
                if not self._step([token]):
                    return "cancelled"
                took = time.perf_counter() - began
                if self._pace.step(took):
                    binding.llama_set_n_threads(self._context, self._pace.threads, self._threads)
                if not watched and took > SLOW_STEP_S:
                    watched = True
                    self._watch(True)
            if self._on_gpu:
                yield piece
        return "length"

    def _sampler(self, sampling: Sampling, seed: int) -> Sampler:
        return Sampler(binding.llama_vocab_n_tokens(self._vocab), sampling, seed)

    # Log

    def _on_log(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf8", "replace")
        sys.stderr.write(line)
        if level == _LOG_ERROR:
            self._errors.append(line.strip())

    def _last_error(self) -> str:
        """The first error is the cause, the ones after it repeat it."""
        return self._errors[0][:200] if self._errors else "?"


def _sizes(path: Path) -> list[int]:
    """Bytes of the model's file, or of each of the files that it is split into."""
    part = _PART.fullmatch(path.name)
    names = [path.name]
    if part:
        names = [f"{part[1]}-{number:05}-of-{part[2]}.gguf" for number in range(1, int(part[2]) + 1)]
    files = [path.with_name(name) for name in names]
    return [file.stat().st_size for file in files if file.is_file()]
