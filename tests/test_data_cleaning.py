"""Rows come in any shape; what is wrong with one is found, and what only looks wrong is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa

from drkun_tui.errors import DrkunError
from drkun_tui.i18n import catalogue
from drkun_tui.training.data import cleaning, shapes
from drkun_tui.training.data.summary import REASONS
from tests.data_files import answer, every_row, prepared, question, rows_of, write_lines

Q, A = question(1), answer(1)


def one_row(folder: Path, row: Any) -> dict[str, Any]:
    """A file of one row, in the canonical columns."""
    prepared(write_lines(folder / "one.jsonl", [row]), folder / "out")
    (made,) = every_row(folder / "out")
    return made


# Shapes


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"question": Q, "answer": A}, {}),
        ({"问题": Q, "回答": A, "科室": "骨科"}, {"department": "骨科"}),
        ({"提问": Q, "答案": A}, {}),
        ({" Prompt ": Q, "Response": A}, {}),
        ({"query": Q, "response": A, "id": 3}, {}),
        ({"input": Q, "output": A}, {}),
        ({"标题": "头晕", "提问": Q, "回答": A}, {}),
        ({"instruction": Q, "input": "", "output": A}, {}),
        (
            {"instruction": "请回答患者的问题", "input": Q, "output": A},
            {"question": f"请回答患者的问题\n{Q}"},
        ),
        ({"instruction": Q, "input": None, "output": A, "system": "你是医生"}, {"system": "你是医生"}),
        ({"Question": Q, "Complex_CoT": "先想想。", "Response": A}, {"reasoning": "先想想。"}),
        ({"question": Q, "answer": f"<think>\n先想想。\n</think>\n\n{A}"}, {"reasoning": "先想想。"}),
        ({"question": Q, "answer": f"<思考>先想想。</思考>{A}"}, {"reasoning": "先想想。"}),
        ({"question": Q, "answer": f"先想想。</think>{A}"}, {"reasoning": "先想想。"}),
        (
            {"question": Q, "answer": f"## Thinking\n\n先想想。\n\n## Final Response\n\n{A}"},
            {"reasoning": "先想想。"},
        ),
        (
            {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
            {},
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "你是医生"},
                    {"role": "user", "content": "你好"},
                    {"role": "assistant", "content": "<think>问候</think>您好"},
                    {"role": "user", "content": [{"type": "text", "text": Q}]},
                    {"role": "assistant", "content": f"<think>先想想。</think>{A}"},
                    {"role": "user", "content": "谢谢"},
                ]
            },
            {"system": "你是医生", "history": '[["你好", "您好"]]', "reasoning": "先想想。"},
        ),
        (
            {"instruction": Q, "output": A, "history": [["早", "早上好"]]},
            {"history": '[["早", "早上好"]]'},
        ),
    ],
)
def test_a_shape(tmp_path: Path, row: dict[str, Any], wanted: dict[str, str]) -> None:
    made = one_row(tmp_path, row)
    if "标题" in row:
        assert made["question"] == f"{row['标题']}\n{Q}" if row["标题"] not in Q else Q
        wanted = {"question": made["question"]}
    whole = {"system": "", "question": Q, "reasoning": "", "answer": A, "department": "", "history": ""}
    assert {name: made[name] for name in whole} == whole | wanted


@pytest.mark.parametrize(
    ("title", "ask", "wanted"),
    [
        ("高血压怎么办", "我今年五十岁", "高血压怎么办\n我今年五十岁"),
        ("高血压怎么办", "高血压怎么办", "高血压怎么办"),
        ("高血压怎么办", "您好，高血压怎么办？", "您好，高血压怎么办？"),
        ("您好，高血压怎么办？", "高血压怎么办", "您好，高血压怎么办？"),
        ("高血压怎么办", "无", "高血压怎么办"),
        ("高血压怎么办", "如题。", "高血压怎么办"),
        ("高血压怎么办", "", "高血压怎么办"),
        ("", "我今年五十岁", "我今年五十岁"),
        ("高血压怎么办", "无力两天", "高血压怎么办\n无力两天"),
    ],
)
def test_title_and_text_of_a_question(tmp_path: Path, title: str, ask: str, wanted: str) -> None:
    row = {"department": "内科", "title": title, "ask": ask, "answer": A}
    assert one_row(tmp_path, row)["question"] == wanted


def test_what_is_mapped_goes_before_what_is_known(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "错的", "real": Q, "answer": A}])
    prepared(path, tmp_path / "out", columns={"question": "real"})
    assert every_row(tmp_path / "out")[0]["question"] == Q


def test_a_dialogue_is_found_in_the_column_that_was_told(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
    path = write_lines(tmp_path / "a.jsonl", [{"chat": turns, "question": "错的", "system": "你是医生"}])
    prepared(path, tmp_path / "out", columns={"dialogue": "chat"})
    (made,) = every_row(tmp_path / "out")
    assert (made["question"], made["answer"], made["system"]) == (Q, A, "你是医生")
    with pytest.raises(DrkunError) as raised:
        prepared(path, tmp_path / "none", columns={"dialogue": "question"})
    assert raised.value.kind == "no_dialogues"


def test_a_dialogue_that_is_none_is_an_empty_row(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]}
    bad: list[Any] = [{"messages": []}, {"messages": None}, {"messages": [{"role": "user", "content": Q}]}]
    summary = prepared(write_lines(tmp_path / "a.jsonl", [good, *bad, {"messages": "x"}]), tmp_path / "out")
    assert summary.dropped == {"empty": 4}


def test_reasoning_without_an_answer_is_no_answer(tmp_path: Path) -> None:
    rows = [{"question": Q, "answer": A}, {"question": question(2), "answer": "<think>没有想完"}]
    summary = prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert summary.dropped == {"empty": 1}


def test_columns_that_say_nothing_are_none() -> None:
    assert shapes.recognise("x", pa.table({"问题": ["a"], "答": ["b"]}), {}).columns == {
        "question": "问题",
        "answer": "答",
    }


# Cleaning


def reasons_of(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[str]:
    """The reason of each row; "" where it stays."""
    good = [{"question": "最后一个问题怎么办呢", "answer": "多喝水，多休息，不舒服就去医院。"}]
    prepared(write_lines(folder / "rows.jsonl", rows + good), folder / "out", **options)
    dropped = {row["row"]: row["reason"] for row in rows_of(folder / "out", "dropped")}
    return [dropped.get(number, "") for number in range(len(rows))]


def answers(texts: list[str]) -> list[dict[str, str]]:
    return [{"question": question(number), "answer": text} for number, text in enumerate(texts)]


INNOCENT = [
    "血压140/90mmHg属于临界，正常范围是90-139/60-89mmHg，建议每天测量2-3次。",
    "白细胞4.0-10.0×10^9/L，血小板100000-300000之间都算正常。",
    "每次0.5g，每日3次，连服7-10天后复查；具体用量请遵医嘱。",
    "如果胸痛不缓解，请立即拨打120急救电话，或者让家人送到急诊。",
    "体温38.5℃以上可以物理降温，24小时内复测4次，记录在表格里。",
    "您可以在线咨询医生，也可以到当地正规医院的消化科就诊，做胃镜检查。",
    "建议使用微信小程序记录血糖，也可以用笔记本，方便复诊时给医生看。",
    "孕妇热线很多，有疑问时请咨询专业医生，不要自己用药。",
    "HbA1c低于6.5%、LDL-C低于2.6mmol/L，BMI在18.5-23.9之间。",
    "2020-03-15至2020-04-15期间请忌口，身份核对后可以查询报告单。",
    "病理编号123456，胶囊规格是每盒20151粒的说法不对，请看说明书。",
    "Take 500mg only if your doctor agrees; the normal range is 3.5-5.0 mmol/L.",
    "加强营养，加微量元素，关注病情变化，必要时请专家会诊。",
    "QQ上的偏方不可信，请到医院检查后再决定治疗方案。",
]


ADVERTISING = [
    "这个病可以治好，请加我微信 doctor_wang88 详细沟通治疗方案。",
    "具体情况请拨打13812345678，我们的专家为您解答。",
    "请致电010-12345678预约专家，祝您早日康复。",
    "详情请登录www.example.com查看，祝您健康。",
    "可以到 https://example.org/a 了解更多治疗方法。",
    "有问题请加QQ：123456789，随时为您服务。",
    "建议您点击在线咨询，与专家一对一交流病情。",
    "微信号：jiankang2020，欢迎添加，专业治疗。",
    "免费热线400-123-4567，全天为您服务，欢迎来电。",
    "联系邮箱 doctor@example.com，可以发送检查报告。",
    "关注我们的公众号，回复关键词领取养生手册。",
    "更多内容请看 jiankang120.com，名医在线。",
]


def test_innocent_answers_stay(tmp_path: Path) -> None:
    found = reasons_of(tmp_path, answers(INNOCENT))
    assert {text: reason for text, reason in zip(INNOCENT, found, strict=True) if reason} == {}


def test_advertising_goes_with_what_gave_it_away(tmp_path: Path) -> None:
    found = reasons_of(tmp_path, answers(ADVERTISING))
    assert [text for text, reason in zip(ADVERTISING, found, strict=True) if reason != "advertisement"] == []
    for row in rows_of(tmp_path / "out", "dropped"):
        assert row["detail"]
        assert row["detail"] in row["answer"]


GARBLED = [
    "锟斤拷锟斤拷要多休息，锟斤拷",
    "建议您\ufffd\ufffd多休息，少熬夜。",
    "高血压患者应当注意饮食".encode().decode("latin-1"),
    "高血压患者应当注意饮食".encode("gbk").decode("latin-1"),
    "高血压患者应当注意饮食，多休息，少熬夜，".encode().decode("gb18030", "ignore"),
    "Donâ€™t worry, drink water and rest.",
    "\ue000\ue001\ue002请多休息",
    "烫烫烫烫烫烫烫请多休息",
]

READABLE = [
    "患者主訴頭暈目眩，建議多休息、少熬夜，並至神經內科就診，檢查血壓與血糖。",
    "Café au lait et thé: évitez-les « le soir », surtout après 18 h — dormez tôt à 22°.",
    "体温38℃，α-羟基酸，β受体，每日≤3次，SpO₂≥95％，№5，Ⅱ度房室传导阻滞。",
    "嘌呤高的食物会引起痛风，忌食动物内脏、沙丁鱼、蛤蜊、豆豉，髌骨、腘窝、踇趾处可红肿。",
    "您好👩‍⚕️，请多休息😊，祝早日康复！",
    "Müdigkeit kann viele Ursachen haben: Schlafmangel, Stress, Eisenmangel.",
]


def test_garbled_answers_go(tmp_path: Path) -> None:
    found = reasons_of(tmp_path, answers(GARBLED))
    assert [text for text, reason in zip(GARBLED, found, strict=True) if reason != "mojibake"] == []


def test_unusual_text_is_not_garbled(tmp_path: Path) -> None:
    found = reasons_of(tmp_path, answers(READABLE))
    assert {text: reason for text, reason in zip(READABLE, found, strict=True) if reason} == {}


def test_lengths_and_emptiness(tmp_path: Path) -> None:
    rows = [
        {"question": "", "answer": A},
        {"question": " \u3000\u200b\n", "answer": A},
        {"question": question(3), "answer": " \x00 "},
        {"question": question(4), "answer": "休息"},
        {"question": question(5), "answer": "休息。" * 20},
        {"question": question(6), "answer": "休息四天"},
    ]
    found = reasons_of(tmp_path, rows, shortest_answer=4, longest_answer=50)
    assert found == ["empty", "empty", "empty", "too_short", "too_long", ""]


def test_control_characters_are_stripped(tmp_path: Path) -> None:
    row = one_row(tmp_path, {"question": "头\x00晕\x1b[31m\u202e怎么办\r\n呢", "answer": f"\ufeff{A}\x07 "})
    assert (row["question"], row["answer"]) == ("头晕[31m怎么办\n呢", A)


@pytest.mark.parametrize(
    ("text", "personal"),
    [
        ("我的身份证是11010519491231002X，想问高血压", True),
        ("我的身份证是110105194912310021，想问高血压", False),
        ("电话13812345678，请回电", True),
        ("电话 +86 138-1234-5678，请回电", True),
        ("写信到 someone.name@mail.example.cn 好吗", True),
        ("卡号4111 1111 1111 1111能报销吗", True),
        ("卡号4111 1111 1111 1112能报销吗", False),
        ("血小板13812345678901这么多正常吗", False),
        ("体重@65公斤，血压140/90", False),
    ],
)
def test_personal_data(text: str, personal: bool) -> None:
    assert bool(cleaning.personal_data(text)) == personal


def test_personal_data_is_flagged_and_kept(tmp_path: Path) -> None:
    rows = [
        {"question": f"{question(1)}电话13812345678", "answer": A},
        {"question": question(2), "answer": A},
        # What is left out is not flagged, too.
        {"question": f"{question(1)}电话13812345678", "answer": A},
    ]
    summary = prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert (summary.usable, summary.flagged, summary.dropped) == (2, {"personal": 1}, {"duplicate": 1})


@pytest.mark.parametrize("where", ["history", "reasoning", "system"])
def test_personal_data_and_mojibake_are_found_wherever_they_stand(tmp_path: Path, where: str) -> None:
    def row(number: int, text: str) -> dict[str, Any]:
        told: Any = [[text, "您好"]] if where == "history" else text
        return {"instruction": question(number), "output": answer(number), where: told}

    rows = [row(1, "我的电话是13812345678"), row(2, "æˆ‘å¤´ç—›"), row(3, "我头痛")]
    summary = prepared(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert (summary.usable, summary.flagged, summary.dropped) == (2, {"personal": 1}, {"mojibake": 1})


def test_every_reason_has_a_name_in_both_languages() -> None:
    for language in ("zh", "en"):
        assert {f"data.reason_{reason}" for reason in REASONS} <= catalogue(language).keys()


def test_a_history_of_something_else_is_none(tmp_path: Path) -> None:
    row = one_row(tmp_path, {"instruction": Q, "output": A, "history": json.dumps({"a": 1})})
    assert row["history"] == ""
