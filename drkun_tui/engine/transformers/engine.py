"""The Transformers engine. Tokens are chosen on the device, one step ahead of the host that reads them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from drkun_tui.engine import prompting
from drkun_tui.engine.base import Emit, EngineError, Prompt, Stopping, Tokens
from drkun_tui.engine.chat_template import CHATML, NAMED, ChatTemplate
from drkun_tui.engine.protocol import Generate, Load, Loading, Ready
from drkun_tui.engine.thinking import SPELLINGS
from drkun_tui.engine.transformers import loading, memory, weights
from drkun_tui.engine.transformers.adapters import Adapters
from drkun_tui.engine.transformers.decoder import Decoder
from drkun_tui.engine.transformers.generic import GenericDecoder
from drkun_tui.engine.transformers.graphs import captured
from drkun_tui.engine.transformers.lean import LeanDecoder
from drkun_tui.engine.transformers.sampling import INVALID, Picker
from drkun_tui.sampling import Sampling

LARGEST_BATCH = 512
"""Most prompt tokens evaluated at once."""

SMALLEST_BATCH = 16

BATCH_S = 0.08
"""A batch should take no longer: a cancel is noticed between two of them."""

PRIMED = 8
"""Tokens of the prompt that the detokenizer sees, since some spell differently at a text's beginning."""


class Transformers:
    """See `drkun_tui.engine.base.Engine`."""

    def __init__(self) -> None:
        self._prompt: list[int] = []
        self._cached: list[int] = []
        """Tokens whose keys and values are in the KV cache, in order."""
        self._batch = LARGEST_BATCH
        self._adapter: tuple[str | None, float] = None, 1.0
        self._whole = True
        """Are the weights those of the base with `_adapter`, and nothing between two adapters?"""
        self._decoder: Decoder | None = None

    def load(self, request: Load, emit: Emit) -> Ready:
        """See `Engine.load`."""
        loading.import_libraries(request)
        began = time.perf_counter()
        self._device = loading.device_for(request)
        loaded = loading.load(request, self._device, emit)
        emit(Loading("warmup", 0.0))
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._backend: Tokenizer = loaded.tokenizer.backend_tokenizer
        parameters, size = self._model.num_parameters(), self._model.get_memory_footprint()
        on_gpu = self._device.type == "cuda"
        weight_bytes = torch.cuda.memory_allocated() if on_gpu else 0
        self._adapters = Adapters(self._model, Path(request.path))
        self._weights, self._cpu_layers = request.weights, loaded.cpu_layers
        self._n_ctx = request.context_length
        source = NAMED.get(request.template) or _template(loaded.tokenizer)
        self._template = ChatTemplate(
            source or CHATML, bos=loaded.tokenizer.bos_token or "", eos=loaded.tokenizer.eos_token or ""
        )
        self._special = {
            number for number, token in loaded.tokenizer.added_tokens_decoder.items() if token.special
        }
        self._stops = self._stop_tokens()
        tags = (tag for spelling in SPELLINGS for tag in (spelling.open, spelling.close))
        self._shown = {ids[0]: tag for tag in tags if len(ids := self._tokenize(tag)) == 1}
        with self._memory("gpu_full", file=Path(request.path).name):
            self._prepare_decoding()
            self._attach(request.adapter, request.adapter_scale)
            self._adapt()
            self._warm_up()
        emit(Loading("warmup", 1.0))
        return Ready(
            engine="transformers",
            architecture=self._model.config.model_type,
            parameters=parameters,
            size_bytes=size,
            context_length=self._n_ctx,
            threads=request.threads,
            load_s=time.perf_counter() - began,
            safe_mode=request.safe_mode,
            has_template=bool(source),
            can_toggle_thinking=self._template.can_toggle_thinking,
            weight_bytes=weight_bytes,
            reserved_bytes=torch.cuda.memory_reserved() if on_gpu else 0,
            cpu_layers=self._cpu_layers,
            not_fused=self._decoder.not_fused if isinstance(self._decoder, LeanDecoder) else "",
        )

    def set_adapter(self, path: str | None, scale: float) -> None:
        """See `Engine.set_adapter`."""
        before = self._adapter
        if (path, scale) == before and self._whole:
            return
        self._cached.clear()
        try:
            with self._memory():
                self._change_adapter(path, scale)
        except Exception:
            # Weights between the one adapter and the other must not answer: where they cannot be mended, it
            # is no `EngineError`, and the process ends.
            try:
                self._change_adapter(*before)
            except Exception as error:
                raise RuntimeError(f"the adapter before cannot be attached again: {error}") from error
            raise

    def prepare(self, request: Generate) -> Prompt:
        """See `Engine.prepare`."""
        self._prompt, prompt = prompting.build(
            request, self._template, self._tokenize, self._n_ctx, self._reuse
        )
        return prompt

    def generate(self, request: Generate, prompt: Prompt, stopping: Stopping) -> Tokens:
        """See `Engine.generate`."""
        with self._memory():
            if not self._evaluate(self._prompt[prompt.reused_tokens :], stopping):
                return "cancelled"
            sampling = request.sampling
            carried = self._tokenize(prompt.carried)
            self._picker.begin(sampling, prompt.seed, len(self._cached), carried)
            return (yield from self._decode(sampling.temperature <= 0, sampling.max_tokens, stopping))

    def settle(self, request: Generate, answer: str, stopping: Stopping) -> None:
        """See `Engine.settle`."""
        _, tokens = prompting.next_history(request, answer, self._template, self._tokenize, self._n_ctx)
        if tokens:
            with self._memory():
                self._evaluate(tokens[self._reuse(tokens) :], stopping)

    # Loading

    def _prepare_decoding(self) -> None:
        """What chooses tokens, on the device."""
        vocabulary = self._model.config.get_text_config().vocab_size
        self._picker = Picker(vocabulary, self._n_ctx, self._device)
        self._pick_greedy = captured(self._picker.pick_greedy, self._device)
        self._pick_sampled = captured(self._picker.pick_sampled, self._device)
        if self._device.type == "cuda":
            self._read = torch.zeros_like(self._picker.chosen, device="cpu").pin_memory()

    def _change_adapter(self, path: str | None, scale: float) -> None:
        self._whole = False
        self._adapters.detach()
        self._attach(path, scale)
        self._adapt()
        self._whole = True

    def _attach(self, path: str | None, scale: float) -> None:
        # One whose changes are all zero would only cost time.
        if path and scale:
            if self._cpu_layers:
                reason = "layers of the model are in the CPU's memory"
                raise EngineError("adapter_failed", file=Path(path).name, reason=reason)
            self._adapters.attach(Path(path), scale)
            if self._weights != "nf4":
                self._adapters.merge()
        self._adapter = path, scale

    def _adapt(self) -> None:
        """The lean decoder where model and adapter allow it, with the adapter in it; else the generic one."""
        changes = None
        if weights.supports(self._model):
            changes = self._adapters.low_rank(weights.linears(self._model))
        if changes is None:
            self._decoder = None
            self._decoder = GenericDecoder(self._model, self._n_ctx, self._picker)
            return
        if not isinstance(self._decoder, LeanDecoder):
            self._decoder = None
            self._decoder = LeanDecoder(self._model, self._n_ctx, self._picker)
        self._decoder.adapt(changes)

    def _warm_up(self) -> None:
        """Use everything once, so that no answer pays for it, and find out how large a batch may be."""
        self._batch = self._largest_batch()
        self._reuse([])
        self._evaluate([0], lambda: False)
        self._picker.begin(Sampling(), 0, len(self._cached), [])
        for pick in (self._pick_sampled, self._pick_greedy):
            pick()
            self._decoder_in_use.step(len(self._cached))
        self._check(int(self._picker.chosen[len(self._cached)]))
        self._reuse([])

    def _largest_batch(self) -> int:
        """The largest batch that takes no longer than `BATCH_S`."""
        most = min(LARGEST_BATCH, self._n_ctx // 2)
        sizes = [SMALLEST_BATCH << n for n in range(most.bit_length()) if SMALLEST_BATCH << n <= most]
        sizes = sizes or [most]
        if self._device.type == "cuda":
            # Most cards need no second try.
            return next((size for size in reversed(sizes) if self._batch_s(size) <= BATCH_S), sizes[0])
        return max(itertools.takewhile(lambda size: self._batch_s(size) <= BATCH_S, sizes), default=sizes[0])

    def _batch_s(self, size: int) -> float:
        """Seconds that a batch takes."""
        self._batch = size
        took = 0.0
        for _ in range(2):  # the first time, libraries choose and load their kernels
            self._reuse([])
            began = time.perf_counter()
            self._evaluate([0] * size, lambda: False)
            took = time.perf_counter() - began
        return took

    def _stop_tokens(self) -> frozenset[int]:
        """Every token that ends a turn: the declared ones, and the special token with which the template
        itself closes an assistant's message. Fine-tunes often declare another."""
        declared: set[int] = set()
        for config in (self._model.generation_config, self._model.config, self._tokenizer):
            ends = getattr(config, "eos_token_id", None)
            declared |= set(ends) if isinstance(ends, list) else {ends} if ends is not None else set()
        return frozenset(declared | (set(self._tokenize(self._template.between_turns())) & self._special))

    # Text and tokens

    def _tokenize(self, text: str) -> list[int]:
        # A template writes its own beginning-of-sequence token, or none is wanted.
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    # Evaluation

    @property
    def _decoder_in_use(self) -> Decoder:
        if self._decoder is None or not self._whole:
            raise EngineError("no_model")
        return self._decoder

    def _reuse(self, tokens: list[int]) -> int:
        """Cut the KV cache back to what it shares with `tokens`; return how many tokens that is."""
        shared = prompting.shared_prefix(self._cached, tokens)
        del self._cached[shared:]
        return shared

    def _evaluate(self, tokens: list[int], stopping: Stopping) -> bool:
        """Evaluate in batches; False when told to stop, with what is done kept in the cache."""
        done = 0
        while done < len(tokens):
            if stopping():
                return False
            batch = tokens[done : done + self._batch]
            self._decoder_in_use.evaluate(batch, len(self._cached))
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            self._cached += batch
            done += len(batch)
        return True

    def _decode(self, greedy: bool, max_tokens: int, stopping: Stopping) -> Tokens:
        pick = self._pick_greedy if greedy else self._pick_sampled
        stream = DecodeStream(ids=self._prompt[-PRIMED:], skip_special_tokens=True)
        start = len(self._cached)
        room = self._n_ctx - start
        most = min(max_tokens or room, room)
        ahead = self._device.type == "cuda"

        def advance(position: int) -> Callable[[], int]:
            self._decoder_in_use.step(position)
            pick()
            return self._fetch(position + 1)

        pick()
        fetch = self._fetch(start)
        for position in range(start, start + most):
            if stopping():
                return "cancelled"
            last = position == start + most - 1
            # The device goes on with a token that the host has not seen; at worst a step is wasted.
            following = advance(position) if ahead and not last else None
            token = self._check(fetch())
            if token in self._stops:
                return "stop"
            yield self._shown.get(token) or stream.step(self._backend, token) or ""
            if not last:
                fetch = following or advance(position)
                self._cached.append(token)
        return "length"

    def _fetch(self, position: int) -> Callable[[], int]:
        """Send the token chosen for `position` to the host; the result waits for it."""
        chosen = self._picker.chosen[position]
        if self._device.type != "cuda":
            return lambda: int(chosen)
        self._read[position].copy_(chosen, non_blocking=True)
        # A blocking event sleeps instead of spinning: the interface has the core meanwhile.
        event = torch.cuda.Event(blocking=True)
        event.record()

        def read() -> int:
            event.synchronize()
            return int(self._read[position])

        return read

    def _check(self, token: int) -> int:
        if token == INVALID:
            raise EngineError("not_numbers")
        return token

    @contextlib.contextmanager
    def _memory(self, kind: str = "gpu_out_of_memory", **values: str) -> Iterator[None]:
        """Out of memory is no crash: what was being made is given back, and the model stays."""
        try:
            yield
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
            print(error, file=sys.stderr)  # noqa: T201  # the engine's log
            traceback.clear_frames(error.__traceback__)  # what they hold is to be given back
        else:
            return
        gc.collect()
        torch.cuda.empty_cache()
        kind, proposal = memory.smaller(kind, self._n_ctx, self._weights)
        raise EngineError(kind, **values, **proposal)


def _template(tokenizer: Any) -> str:
    source = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default") or next(iter(source.values()), "")
    return source or ""
