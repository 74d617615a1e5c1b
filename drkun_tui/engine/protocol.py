"""What the interface and an engine process say to each other: one JSON object a line.

Requests go down the child's standard input, events come up its standard output. Every engine
(llama.cpp, Transformers, a remote server) speaks the same few messages, so the floors above know
none of them by name.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from drkun_tui.sampling import Sampling

FinishReason = Literal["stop", "length", "cancelled"]
Role = Literal["system", "user", "assistant"]


class ChatMessage(msgspec.Struct, frozen=True):
    """One message as the chat template sees it; an assistant's holds the answer, not the reasoning."""

    role: Role
    content: str


# Requests


class Load(msgspec.Struct, frozen=True, tag="load", kw_only=True):
    """Load one model. A process loads one and ends with it."""

    path: str
    """The model's file or folder; a server's address."""
    context_length: int
    """Tokens of context to reserve memory for."""
    threads: int
    engine: Literal["llama_cpp", "transformers", "openai"] = "llama_cpp"
    device: Literal["cpu", "cuda", "elsewhere"] = "cpu"
    weights: Literal["nf4", "half", "full"] = "half"
    """What safetensors are loaded as: four bits, sixteen or thirty-two. A GGUF is loaded as it is."""
    model: str = ""
    """What a server calls the model; "" leaves it to the server."""
    gpu: str = ""
    """UUID of the card that the process is to see; "" shows it all that this one sees."""
    memory_limit: int = 0
    """Bytes of GPU memory that the process may take; 0 is all there is."""
    adapter: str | None = None
    adapter_scale: float = 1.0
    template: str = ""
    """A named template (`drkun_tui.engine.chat_template.NAMED`) in the place of the model's own."""
    gpu_layers: int = 0
    """Of a GGUF, how many layers go to the GPU; the output counts as one more."""
    kv_cache: Literal["f16", "q8_0", "q4_0"] = "f16"
    """What a GGUF's keys and values are kept as."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    """For a GGUF; a quantised cache needs it."""
    safe_mode: bool = False
    """Without the CPU's special weight layouts, which crash on some machines."""
    sequences: int = 1
    """Above 1 so many questions are answered at once, each with a context of its own of `context_length`
    tokens. `Generate` and `Score` are then taken as they come and answered in any order, text comes once
    at the end of each answer, and one is not cancelled by itself: the process is ended."""


class Partial(msgspec.Struct, frozen=True):
    """An answer that was cut off, to be carried on from its last character."""

    thinking: str
    answer: str


class Generate(msgspec.Struct, frozen=True, tag="generate", kw_only=True):
    """Answer the last user message."""

    id: int
    messages: list[ChatMessage]
    sampling: Sampling = Sampling()
    think: bool = True
    resume: Partial | None = None


class Score(msgspec.Struct, frozen=True, tag="score", kw_only=True):
    """How likely is it that the model gives this very response to the last user message? The prompt is
    rendered as it is for training: with thinking where the response has reasoning."""

    id: int
    messages: list[ChatMessage]
    response: Partial


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop the generation of this id and keep what has come."""

    id: int


class SetAdapter(msgspec.Struct, frozen=True, tag="set_adapter", kw_only=True):
    """Attach a GGUF LoRA in the place of any other, or none; the model stays loaded."""

    id: int
    path: str | None
    scale: float = 1.0


Request = Load | Generate | Score | Cancel | SetAdapter


# Events


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Progress of a load."""

    stage: Literal["start", "weights", "warmup"]
    fraction: float
    """0 to 1 within the stage."""
    done_bytes: int = 0
    """Of the files of the weights, read so far."""
    total_bytes: int = 0
    """0 where it is not known."""
    shard: int = 0
    """The file that is being read, from 1, if the files are read one after the other."""
    shards: int = 0


class Ready(msgspec.Struct, frozen=True, tag="ready", kw_only=True):
    """The model answers from now on."""

    engine: str
    architecture: str
    parameters: int
    size_bytes: int
    context_length: int
    threads: int
    load_s: float
    safe_mode: bool
    has_template: bool
    """False where the file brings no chat template and ChatML is used."""
    can_toggle_thinking: bool
    """The template reads ``enable_thinking``."""
    weight_bytes: int = 0
    """On the GPU, right after the weights were loaded; 0 where none is used or the engine cannot tell."""
    reserved_bytes: int = 0
    """On the GPU, for weights, KV cache and buffers, ready to answer; 0 as above."""
    cpu_layers: int = 0
    """Layers that found no room on the GPU and are computed at the CPU's pace."""
    not_fused: str = ""
    """Why a GPU decodes without the engine's own kernels, several times slower; "" where it is not so."""


class Started(msgspec.Struct, frozen=True, tag="started", kw_only=True):
    """The prompt is built and its evaluation begins."""

    id: int
    prompt_tokens: int
    reused_tokens: int
    """Of these, how many were still in the KV cache."""
    dropped_messages: int
    """Oldest messages left out because the context is full."""
    seed: int


class Delta(msgspec.Struct, frozen=True, tag="delta", kw_only=True):
    """More text. `reclassify` first moves every answer character so far to the reasoning."""

    id: int
    thinking: str = ""
    answer: str = ""
    reclassify: bool = False
    thinking_tokens: int = 0
    """Of the whole generation so far."""
    answer_tokens: int = 0
    """Of the whole generation so far."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one generation."""

    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    reused_tokens: int


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and tokens a second of one generation."""

    ttft_s: float
    """Request read to first token sampled."""
    decode_tok_s: float
    """Tokens after the first over the time they took; 0 where there was no second one."""
    thinking_s: float


class Finished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """The generation ended by itself, at a limit, or by a cancel."""

    id: int
    finish_reason: FinishReason
    thinking_truncated: bool
    usage: Usage
    timings: Timings


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """A load, a generation or a change of adapter failed; the process goes on unless the load did.

    `kind` is a key of the catalogue's ``engine`` section, `values` fill its placeholders, so the
    child needs to know no language.
    """

    kind: str
    values: dict[str, str | int] = {}
    id: int | None = None


class AdapterSet(msgspec.Struct, frozen=True, tag="adapter_set"):
    """What `SetAdapter` of this id asked for is done; what is asked from now on is answered with it."""

    id: int


class Scored(msgspec.Struct, frozen=True, tag="scored", kw_only=True):
    """The response of this id, end of turn included."""

    id: int
    loss: float
    """Nats, summed over its tokens."""
    tokens: int


Event = Loading | Ready | Started | Delta | Finished | Failed | AdapterSet | Scored

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_event = msgspec.json.Decoder(Event).decode
