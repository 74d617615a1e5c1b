"""How long a scan of many model folders takes, with what earlier scans remember and without."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import Bench
from benchmarks.report import Row, Target, compare
from tests import gguf_files
from tests.model_files import CONFIG, put_json, put_lora, put_safetensors

FOLDERS = 2000
LAYERS = 28
TOKENS = 2000
"""In each GGUF's vocabulary; real ones have seventy times as many, which makes the cold scan slower."""

WARM = Target("at most", 1.0, of="ours")


def measure(bench: Bench) -> list[Row]:
    """All rows of this group."""
    with tempfile.TemporaryDirectory(dir=bench.home) as name:
        folder = Path(name)
        make(folder)
        return _rows(bench, folder)


def _rows(bench: Bench, folder: Path) -> list[Row]:
    def side(how: str) -> float:
        told = json.loads(bench.run(sys.executable, "-m", "benchmarks.children.scan", how, str(folder)))
        if told.get("models", FOLDERS) != FOLDERS:
            raise RuntimeError(f"{told['models']} models were found in {FOLDERS} folders")
        return float(told["scan_s"])

    def cold() -> float:
        (bench.home / "headers.cache").unlink(missing_ok=True)
        return side("scan")

    def warm() -> float:
        side("scan")
        return side("scan")

    times = bench.rounds_of("scan", {"warm": warm, "cold": cold, "walk": lambda: side("walk")})
    size = (bench.home / "headers.cache").stat().st_size / 1e6
    name, other = f"scan of {FOLDERS:,} model folders", "os.walk with stat"
    text = f"remembered in {size:.1f} MB"
    return [
        compare(f"{name}, warm, fresh process", "s", times["warm"], other, times["walk"], WARM, text),
        compare(f"{name}, cold", "s", times["cold"], other, times["walk"]),
    ]


def make(folder: Path) -> None:
    """A third each of base models in shards, of LoRAs and of GGUF files, with the tensors of real ones."""
    modules = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (32, 64), "mlp.up_proj": (128, 64)}
    names = [(f"model.layers.{n}.{m}", shape) for n in range(LAYERS) for m, shape in modules.items()]
    weights = {f"{name}.weight": list(shape) for name, shape in names}
    lora = {}
    for name, (outputs, inputs) in names:
        lora[f"base_model.model.{name}.lora_A.weight"] = [1, inputs]
        lora[f"base_model.model.{name}.lora_B.weight"] = [outputs, 1]
    entries = gguf_files.metadata(
        tokenizer__ggml__tokens=[f"token {n}" for n in range(TOKENS)],
        tokenizer__chat_template="{% for message in messages %}{{ message.content }}{% endfor %}" * 40,
    )
    tensors: list[gguf_files.Tensor] = [
        (f"blk.{n}.{m}.weight", (256, 1), 12) for n in range(LAYERS) for m in ("attn_q", "attn_v", "ffn_up")
    ]
    for number in range(FOLDERS):
        own = folder / f"org{number % 50}" / f"model{number}"
        if number % 3 == 0:
            put_json(own / "config.json", CONFIG | {"hidden_size": 64, "num_hidden_layers": LAYERS})
            put_json(own / "tokenizer_config.json", {"chat_template": "x" * 4000})
            shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
            placed = {name: shards[n * 3 // len(weights)] for n, name in enumerate(weights)}
            put_json(own / "model.safetensors.index.json", {"weight_map": placed})
            for shard in shards:
                put_safetensors(own / shard, {k: v for k, v in weights.items() if placed[k] == shard})
        elif number % 3 == 1:
            put_lora(own, base_model_name_or_path=f"org{(number - 1) % 50}/model{number - 1}")
            put_safetensors(own / "adapter_model.safetensors", lora)
        else:
            gguf_files.write(own / "model-Q4_K_M.gguf", entries, tensors)
