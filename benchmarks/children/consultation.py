"""One conversation of ten turns through the product's session and the real engine.

Prints one JSON list, a turn each. Run as ``python -m benchmarks.children.consultation SEED PAUSE``.
"""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec
from llama_cpp import Llama

from drkun_tui import paths
from drkun_tui.consult.session import Session
from drkun_tui.consult.store import Store
from drkun_tui.engine.client import EngineClient
from drkun_tui.library.plan import plan_load
from drkun_tui.settings import load

QUESTIONS = (
    "头晕怎么办？",
    "胃痛吃什么药？",
    "感冒发热怎么办？",
    "咳嗽有痰怎么办？",
    "失眠怎么调理？",
    "便秘怎么办？",
    "高血压吃什么？",
    "贫血怎么补？",
    "腹泻怎么办？",
    "牙痛怎么办？",
)


async def _hold(seed: int, pause_s: float) -> list[dict[str, object]]:
    settings = load(paths.settings_file())
    store = Store(paths.database())
    session = Session(store, EngineClient(paths.engine_log(), paths.machine_file()))
    turns: list[dict[str, object]] = []
    try:
        async for _ in session.load(plan_load(settings)):
            pass
        for number, question in enumerate(QUESTIONS):
            sampling = msgspec.structs.replace(settings.sampling, seed=seed * 100 + number)
            async for _ in session.ask(question, sampling=sampling):
                pass
            turn = session.last
            assert turn is not None
            turns.append(
                {
                    "prompt": turn.usage["prompt_tokens"],
                    "reused": turn.usage["reused_tokens"],
                    "ttft_s": turn.timings["ttft_s"],
                    "state": str(turn.state),
                    "dropped": turn.dropped_turns,
                }
            )
            await asyncio.sleep(pause_s)
    finally:
        await session.close()
        store.close()
    return turns


def _own_tokens() -> list[int]:
    """Of each question with what the template puts around it."""
    vocabulary = Llama(str(paths.starter()), vocab_only=True, verbose=False)
    texts = (f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS)
    return [len(vocabulary.tokenize(text.encode(), add_bos=False, special=True)) for text in texts]


def main() -> None:
    """Hold it."""
    turns = asyncio.run(_hold(int(sys.argv[1]), float(sys.argv[2])))
    print(json.dumps([{**turn, "own": own} for turn, own in zip(turns, _own_tokens(), strict=True)]))


if __name__ == "__main__":
    main()
