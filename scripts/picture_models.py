"""Takes the pictures of the models screen and of the search: ``python scripts/picture_models.py``.

The program is real and so is the server on loopback that it searches and fetches from. The models are
stand-ins: headers and configurations of well-known shapes over empty weights that take no room on the disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from picture import PICTURES, repaired, until

from tests import gguf_files
from tests.hub_server import serving

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from drkun_tui.app import DrkunApp

SIZE = (132, 30)

CARD = """---
license: apache-2.0
---
# Qwen3-4B-GGUF

**Qwen3** 是通义千问系列的大语言模型，可以先*思考*再回答，也可以直接回答。

- 支持一百多种语言
- 上下文 32,768 词元

| 量化 | 大小 |
| --- | --- |
| Q4_K_M | 2.5 GB |
| Q8_0 | 4.3 GB |
"""


def qwen3(hidden: int, layers: int, heads: int, mlp: int, vocabulary: int = 151_936) -> dict[str, list[int]]:
    """The weights of a Qwen3 with tied embeddings, each (outputs, inputs)."""
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes |= {
            f"{name}.self_attn.q_proj.weight": [heads * 128, hidden],
            f"{name}.self_attn.k_proj.weight": [8 * 128, hidden],
            f"{name}.self_attn.v_proj.weight": [8 * 128, hidden],
            f"{name}.self_attn.o_proj.weight": [hidden, heads * 128],
            f"{name}.mlp.gate_proj.weight": [mlp, hidden],
            f"{name}.mlp.up_proj.weight": [mlp, hidden],
            f"{name}.mlp.down_proj.weight": [hidden, mlp],
        }
    return shapes


def put_safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """A whole header in bfloat16 over a hole of the right size."""
    tensors, end = {}, 0
    for name, (rows, columns) in ((name, [*shape, 1][:2]) for name, shape in shapes.items()):
        size = 2 * rows * columns
        tensors[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(tensors).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def put_models(store: Path) -> None:
    """A base with an adapter, a GGUF, one that misses a part, one that is refused."""
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 2560,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 9728, "vocab_size": 151_936, "max_position_embeddings": 40_960,
        "tie_word_embeddings": True,
    }  # fmt: skip
    base = store / "Qwen" / "Qwen3-4B"
    weights = qwen3(2560, 36, 32, 9728)
    put_safetensors(base / "model.safetensors", weights)
    (base / "config.json").write_text(json.dumps(config), "utf8")
    lora = store / "Sogrey" / "Chinese-medical-lora"
    told = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-4B", "r": 16, "lora_alpha": 16}
    told["target_modules"] = ["q_proj", "v_proj"]
    ranks: dict[str, list[int]] = {}
    for name, (outputs, inputs) in ((n, s) for n, s in weights.items() if "q_proj" in n or "v_proj" in n):
        module = f"base_model.model.{name.removesuffix('.weight')}"
        ranks |= {f"{module}.lora_A.weight": [16, inputs], f"{module}.lora_B.weight": [outputs, 16]}
    put_safetensors(lora / "adapter_model.safetensors", ranks)
    (lora / "adapter_config.json").write_text(json.dumps(told), "utf8")
    gguf = gguf_files.metadata(
        general__name="Qwen3 4B", general__file_type=15, qwen3__block_count=36, qwen3__context_length=40_960,
        qwen3__embedding_length=2560, qwen3__feed_forward_length=9728, qwen3__attention__head_count=32,
        qwen3__attention__head_count_kv=8, qwen3__attention__key_length=128,
        qwen3__attention__value_length=128, tokenizer__ggml__tokens=["t"] * 151_936,
    )  # fmt: skip
    tensors: list[gguf_files.Tensor] = [("token_embd.weight", (2560, 151_936), 14)]
    for layer in range(36):
        for name, shape in (
            *(("attn_q", (2560, 4096)), ("attn_k", (2560, 1024)), ("attn_v", (2560, 1024))),
            *(("attn_output", (4096, 2560)), ("ffn_gate", (2560, 9728)), ("ffn_up", (2560, 9728))),
            ("ffn_down", (9728, 2560)),
        ):
            tensors.append((f"blk.{layer}.{name}.weight", shape, 12))
    gguf_files.write(store / "Qwen3-4B-Q4_K_M.gguf", gguf, tensors)
    distill = store / "deepseek-ai" / "DeepSeek-R1-Distill-Qwen-7B"
    placed = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    put_safetensors(distill / "model-00001-of-00002.safetensors", {"a": [3584, 600_000]})
    (distill / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 3584}), "utf8")
    (distill / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}), "utf8")
    old = store / "old-medical-model"
    old.mkdir()
    (old / "config.json").write_text(json.dumps({"model_type": "llama"}), "utf8")
    (old / "pytorch_model.bin").write_bytes(b"\0" * 4096)


async def take() -> dict[str, str]:
    """Run the application; return the repaired pictures by their file names."""
    from drkun_tui import i18n, paths
    from drkun_tui.app import DrkunApp
    from drkun_tui.library.hub.protocol import Request
    from drkun_tui.settings import Settings

    i18n.set_language("zh")
    store = paths.model_store()
    put_models(store)
    app = DrkunApp(Settings(language="zh"))
    pictures: dict[str, str] = {}
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.session.engine.loaded)
        await pilot.press("f3")
        await until(pilot, lambda: _shows(app, "tok/s"))
        await app.fetch(Request(hub="hf", repo="Qwen/Qwen3-8B-GGUF", store=str(store), quant="Q4_K_M"))
        await until(pilot, lambda: any(d.done > d.total / 4 > 0 for d in app.downloads_now))
        await pilot.press("home", "down")
        await _take(app, pilot, pictures, "models.svg")
        await pilot.press("d")
        await until(pilot, lambda: _shows(app, "Qwen/Qwen3-4B-GGUF"))
        await pilot.press(*"qwen3", "enter")
        await until(pilot, lambda: _shows(app, "128,000"))
        # The card of what was proposed may still be there; that of what was found comes a moment later.
        await pilot.pause(1)
        await until(pilot, lambda: _shows(app, "一百多种语言"))
        await _take(app, pilot, pictures, "fetch.svg")
        for download in app.downloads_now:
            await app.downloads.cancel(download.id)
    return pictures


async def _take(app: DrkunApp, pilot: Pilot[None], pictures: dict[str, str], name: str) -> None:
    await pilot.pause(0.3)
    pictures[name] = repaired(app.export_screenshot(simplify=True))


def _shows(app: DrkunApp, text: str) -> bool:
    return any(text in strip.text for strip in app.screen._compositor.render_strips())


def main() -> None:
    """Take the pictures and write them."""
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory(prefix="drkun-") as name, serving() as hub:
        folder = Path(name)
        repositories = (
            ("Qwen/Qwen3-4B-GGUF", 128_000, "Q4_K_M", 1_000_000),
            ("Qwen/Qwen3-8B-GGUF", 96_000, "Q4_K_M", 5_000_000_000),
            ("Qwen/Qwen3-0.6B-GGUF", 61_000, "Q8_0", 1_000_000),
        )
        for repo, downloads, quant, size in repositories:
            stem = repo.rpartition("/")[2].removesuffix("-GGUF")
            weights = folder / stem
            with weights.open("wb") as file:
                file.truncate(size)
            files: dict[str, bytes | Path] = {"README.md": CARD.encode(), f"{stem}-{quant}.gguf": weights}
            hub.add(repo, files, tags=["gguf", "zh", "text-generation"], downloads=downloads)
        own = {"HOME": str(folder), "DRKUN_HOME": str(folder / "drkun")}
        os.environ |= own | hub.environment(folder)
        pictures = asyncio.run(take())
    for name, svg in pictures.items():
        (PICTURES / name).write_text(svg, encoding="utf8")
        print(f"{PICTURES / name}  {len(svg.encode()):,} bytes")


if __name__ == "__main__":
    main()
