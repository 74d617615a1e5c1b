"""Chinese answers as a larger model writes them, built from a few phrases, the same at every run."""

from __future__ import annotations

import random

_TOPICS = (
    "低盐饮食",
    "规律作息",
    "监测血压",
    "适量运动",
    "戒烟限酒",
    "按时服药",
    "控制体重",
    "定期复查",
    "情绪管理",
    "补充水分",
)
_ADVICE = (
    "每天食盐不超过五克，少吃腌制食品和加工肉类",
    "早晚各测一次并记录下来，复诊时带给医生看",
    "每周至少五天、每次三十分钟的快走或慢跑，以微微出汗为宜",
    "不要自行增减药量，出现头晕、乏力等不适应及时就诊",
    "若收缩压持续高于 160 mmHg，或伴有胸痛、肢体麻木，请立即就医",
    "睡前一小时不看手机，卧室保持安静、避光和通风",
    "多吃新鲜蔬菜、全谷物和豆类，如芹菜、燕麦、黄豆",
    "可检查血常规、肝肾功能（ALT、肌酐）、血脂和空腹血糖",
)

REASONING_CHARACTERS = 160
LONG_CHARACTERS = 6800
"""Of 4,000 tokens, at 1.7 characters each."""

LIST, NESTED = "一份很长的清单", "一份很长的嵌套清单"
"""What is asked, and so what comes."""

LAST = "以上就是全部内容"


def reasoning() -> str:
    """A short piece of reasoning."""
    return _prose(random.Random(1), REASONING_CHARACTERS)


def answer(kind: str) -> str:
    """One list of about 4,000 tokens: of many items, or of one item with many below it."""
    chance = random.Random(2)
    lines = [] if kind != NESTED else ["1. **日常注意事项**："]
    mark = "   - " if kind == NESTED else ""
    length = 0
    while length < LONG_CHARACTERS:
        number = mark or f"{len(lines) + 1}. "
        lines.append(f"{number}**{chance.choice(_TOPICS)}**：{chance.choice(_ADVICE)}。")
        length += len(lines[-1]) + 1
    return "\n".join([*lines, f"{mark or f'{len(lines) + 1}. '}{LAST}"])


def consultation(number: int) -> tuple[str, str, str]:
    """Question, reasoning and answer of one turn of a long conversation."""
    chance = random.Random(number)
    topic = chance.choice(_TOPICS)
    steps = "\n".join(
        f"{step}. **{chance.choice(_TOPICS)}**：{chance.choice(_ADVICE)}。"
        for step in range(1, chance.randint(4, 8))
    )
    question = f"医生您好，第 {number} 个问题：关于{topic}，我应该怎么做？"
    answer = (
        f"### 关于{topic}\n\n{_prose(chance, 160)}\n\n{steps}\n\n{_prose(chance, 120)}\n\n{closing(number)}"
    )
    return question, _prose(chance, chance.randint(150, 400)), answer


def closing(number: int) -> str:
    """The last line of a turn's answer."""
    return f"第 {number} 次答复完。"


def _prose(chance: random.Random, characters: int) -> str:
    sentences: list[str] = []
    while sum(map(len, sentences)) < characters:
        sentences.append(f"{chance.choice(_TOPICS)}很重要，{chance.choice(_ADVICE)}。")
    return "".join(sentences)
