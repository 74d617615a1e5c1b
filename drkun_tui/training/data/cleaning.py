"""Which rows are left out, and which ought to be looked at."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.training.recipe import Data

_CONTROLS = r"[\x00-\x08\x0b-\x1f\x7f\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2069}\x{feff}]"
"""What no text needs: control characters but tab and line feed, marks without width, changes of direction."""

_MOJIBAKE = r"\x{fffd}|锟斤拷|烫烫烫|屯屯屯|[ÃÂ][\x{80}-\x{bf}]|â€|ï¼|[\x{e000}-\x{f8ff}]|(?:[À-ÿ]{2}){4}"
"""Text that was read in another encoding than it was written in: replacement characters, GBK's picture of
them, of fresh memory, UTF-8 read as Latin-1, private characters."""

_DIGIT = r"(?:^|[^0-9])"
_END = r"(?:[^0-9]|$)"
_CONTACT = (
    rf"https?://|www\.[a-z0-9-]+\.|{_DIGIT}1[3-9][0-9]{{9}}{_END}"
    rf"|{_DIGIT}0[1-9][0-9]{{1,2}}[- ][0-9]{{7,8}}{_END}"
    rf"|{_DIGIT}[48]00[- ][0-9]{{3,4}}[- ]?[0-9]{{3,4}}{_END}"
    r"|(?i:(?:微信|威信|薇信|wechat|weixin|qq|扣扣)(?:号|群)?[:： ]{0,2}[a-z0-9_-]{5,})"
)
"""Addresses, numbers of mobile and fixed telephones, service lines, messengers with a number behind them."""
_ADVERTISEMENT = (
    r"点击(?:这里|此处|下方|上方|头像)?(?:进行)?(?:在线|免费)?(?:咨询|预约|挂号|链接)|免费(?:在线)?(?:咨询|热线|电话)"
    r"|(?:加|添加)(?:我|医生|老师|专家)?(?:的)?(?:微信|QQ|qq|扣扣)|(?:咨询|预约|服务)热线|在线(?:客服|咨询专家)"
    r"|扫(?:一扫|描)(?:下方)?二维码|包治百病|祖传秘方|无效退款"
)

_PERSONAL = re.compile(
    r"(?<!\d)(?P<id>[1-9]\d{16}[\dXx])(?![\dXx])|(?<!\d)1[3-9]\d{9}(?!\d)|[\w.+-]+@[\w-]+\.[\w.]+"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def cleaned(batch: pa.Table) -> pa.Table:
    """The batch without characters that no text needs, and without white space around."""
    columns = {
        name: pc.utf8_trim_whitespace(pc.replace_substring_regex(batch[name], _CONTROLS, ""))
        if name != "history"
        else batch[name]
        for name in batch.column_names
    }
    return pa.table(columns)


def reasons(batch: pa.Table, options: Data) -> Any:
    """Why each row is left out, a string array; null for those that stay. Each row has the first reason of
    `summary.REASONS` that is true of it."""
    question, answer = batch["question"].combine_chunks(), batch["answer"].combine_chunks()
    length = pc.utf8_length(answer)
    empty = pc.or_(pc.equal(pc.utf8_length(question), 0), pc.equal(length, 0))
    either = [pc.match_substring_regex(text, _MOJIBAKE) for text in (question, answer)]
    told = [
        ("empty", empty),
        ("mojibake", pc.or_(*either)),
        (
            "advertisement",
            pc.or_(
                pc.match_substring_regex(answer, _CONTACT), pc.match_substring_regex(answer, _ADVERTISEMENT)
            ),
        ),
        ("too_short", pc.less(length, options.shortest_answer)),
    ]
    if options.longest_answer:
        told.append(("too_long", pc.greater(length, options.longest_answer)))
    made: Any = pa.scalar(None, pa.string())
    for name, true in reversed(told):
        made = pc.if_else(true, pa.scalar(name), made)
    return made if isinstance(made, pa.Array) else pa.array([made.as_py()] * len(batch), pa.string())


def personal(batch: pa.Table) -> int:
    """Rows whose question holds what names a person: an identity number (its check digit right, GB 11643),
    a mobile telephone, an address of electronic mail."""
    likely = pc.match_substring_regex(batch["question"], r"[0-9]{11}|@")
    return sum(map(_is_personal, batch["question"].filter(likely).to_pylist()))


def _is_personal(text: str) -> bool:
    return any(not found["id"] or _checks(found["id"]) for found in _PERSONAL.finditer(text))


def _checks(number: str) -> bool:
    total = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[-1].upper()


def counted(reasons: Any) -> Counter[str]:
    """How often each reason stands there."""
    return Counter(
        {item["values"]: item["counts"] for item in pc.value_counts(reasons).to_pylist() if item["values"]}
    )
