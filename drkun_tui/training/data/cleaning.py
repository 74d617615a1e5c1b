"""What is wrong with a row, looked for in many rows at once."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from drkun_tui.training.data.summary import REASONS
from drkun_tui.training.data.text import Counts, Strings, Texts, texts
from drkun_tui.training.recipe import Data

Flags = npt.NDArray[np.bool_]

CODES = {reason: number for number, reason in enumerate(REASONS, 1)}
"""A row's reason as a small number; 0 is a row that stays."""

# The patterns are read by RE2 (through Arrow, for whole columns) and by Python (to say what was found), so
# they use what both know: no looking around.

_NO_DIGIT_BEFORE, _NO_DIGIT_AFTER = r"(?:^|[^0-9.])", r"(?:$|[^0-9])"
PHONE = _NO_DIGIT_BEFORE + r"(?:\+?86[- ]?)?1[3-9][0-9][- ]?[0-9]{4}[- ]?[0-9]{4}" + _NO_DIGIT_AFTER

ADVERTISEMENT = "|".join(
    (
        PHONE,
        _NO_DIGIT_BEFORE + r"0[1-9][0-9]{1,2}[-—－][0-9]{7,8}" + _NO_DIGIT_AFTER,
        _NO_DIGIT_BEFORE + r"[48]00-?[0-9]{3}-?[0-9]{4}" + _NO_DIGIT_AFTER,
        r"(?:电话|热线|手机|致电|拨打)[号码]{0,2}[：:是为 ]{0,3}\(?0?[0-9]{2,4}\)?[- ]?[0-9]{7,8}",
        r"(?i:https?://|www\.[a-z0-9-]+\.)",
        r"(?i:[a-z0-9][a-z0-9-]+\.(?:com|cn|net|org|top|vip|cc)(?:\.cn)?)(?:$|[^A-Za-z0-9.])",
        r"(?i:[a-z0-9_.+-]+@[a-z0-9-]+\.[a-z]{2,})",
        r"(?i:QQ|扣扣|企鹅号)[群号码]{0,3}\s*[：:是为]?\s*[1-9][0-9]{4,10}" + _NO_DIGIT_AFTER,
        r"(?i:微信|威信|薇信|wechat|weixin|\bvx|v信)[公众号码]{0,4}\s*[：:是为]?\s*[A-Za-z0-9][A-Za-z0-9_-]{5,19}",
        r"(?:加|添加|关注|扫码)(?:我们?|医生|专家|本院)?的?(?i:微信|公众号|QQ|vx)",
        r"点击.{0,8}(?:咨询|预约|链接|挂号|了解|查看|头像)",
        r"(?:咨询|预约|健康|服务|客服)(?:热线|专线)",
        r"(?:免费|在线)(?:咨询|预约)(?:电话|专家一对一|请点)",
    )
)
"""Contact details and calls to get in touch, which do not belong in an answer that is learned."""

_LATIN_AGAIN = (
    r"\x{00C3}[\x{0080}-\x{00BF}]|\x{00C2}[\x{0080}-\x{009F}\x{00A1}-\x{00BF}]|\x{00E2}\x{20AC}"
    r"|[\x{00E4}-\x{00E9}][\x{0080}-\x{009F}\x{00A1}-\x{00BF}]{2}"
)
"""UTF-8 that was read as Latin-1: ``Ã¤``, ``â€™``, ``ä½ ``."""
MOJIBAKE = r"\x{FFFD}|锟斤拷|烫烫烫|屯屯屯|" + _LATIN_AGAIN

_RARE_SHARE, _RARE_LEAST = 0.2, 8
"""Of a row's Chinese characters, the share outside the common sets above which it is not Chinese."""
_PRIVATE_SHARE = 0.05
_LATIN_SHARE, _LATIN_LEAST = 0.5, 6

PERSONAL = r"[0-9]{11}|[0-9][- ][0-9]{4}[- ][0-9]{4}|@"
"""What a question must have to be worth a closer look for personal data."""

_CONTROLS = (
    r"[\x00-\x08\x0B-\x1F\x7F-\x9F\x{00AD}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{FEFF}]"
)


def stripped(column: Strings) -> Strings:
    """Without control and invisible characters, CRLF as line breaks, and without white space around."""
    if pc.any(pc.match_substring(column, "\r")).as_py():
        column = pc.replace_substring_regex(column, "\r\n?", "\n")
    # C1 controls are a sign of a wrong encoding, so they are looked for before they are lost.
    if pc.any(pc.match_substring_regex(column, _CONTROLS)).as_py():
        column = pc.replace_substring_regex(column, _CONTROLS, "")
    return pc.utf8_trim_whitespace(column)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a batch of rows.

    Attributes:
        reasons: `CODES` of each row.
        details: what was found, for rows where the reason alone does not tell.
        personal: rows whose question holds somebody's personal data.
    """

    reasons: npt.NDArray[np.uint8]
    details: dict[int, str]
    personal: Flags


def mojibake(columns: list[Strings]) -> Flags:
    """Rows of which some column was read in a wrong encoding; asked before control characters are lost."""
    wrong = np.zeros(len(columns[0]), bool)
    for column in columns:
        wrong |= _matches(column, MOJIBAKE) | _strange(texts(column))
    return wrong


def judge(table: Mapping[str, Strings], options: Data, *, wrong: Flags) -> Verdict:
    """Every reason but duplicates.

    Args:
        table: canonical columns, already `stripped`.
        wrong: rows of `mojibake`.
    """
    question, answer = table["question"], table["answer"]
    lengths = _lengths(answer)
    advertises = _matches(answer, ADVERTISEMENT)
    checks = {
        "empty": (_lengths(question) == 0) | (lengths == 0),
        "mojibake": wrong,
        "advertisement": advertises,
        "too_short": lengths < options.shortest_answer,
        "too_long": (lengths > options.longest_answer) & (options.longest_answer > 0),
    }
    reasons = np.zeros(len(answer), np.uint8)
    for reason in reversed(checks):
        reasons[checks[reason]] = CODES[reason]
    details = {}
    for row in np.flatnonzero(reasons == CODES["advertisement"]):
        found = _advertisement().search(answer[int(row)].as_py())
        details[int(row)] = found[0].strip() if found else ""
    for row in np.flatnonzero((reasons == CODES["too_short"]) | (reasons == CODES["too_long"])):
        details[int(row)] = str(lengths[row])
    personal = np.zeros(len(answer), bool)
    for row in np.flatnonzero(_matches(question, PERSONAL) & (reasons == 0)):
        personal[row] = has_personal_data(question[int(row)].as_py())
    return Verdict(reasons, details, personal)


@functools.cache
def _advertisement() -> re.Pattern[str]:
    return re.compile(ADVERTISEMENT)


def _lengths(column: Strings) -> Counts:
    lengths: Counts = pc.utf8_length(column).to_numpy(zero_copy_only=False)
    return lengths


def _matches(column: Strings, pattern: str) -> Flags:
    matches: Flags = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    return matches


# Characters of a wrong encoding

_CHINESE, _RARE, _PRIVATE, _LATIN = 1, 2, 4, 8


def _strange(of: Texts) -> Flags:
    """Rows with too many characters that no text has so many of."""
    kinds = _kinds()[of.codes]
    if not (kinds & (_RARE | _PRIVATE | _LATIN)).any():
        return np.zeros(len(of.starts) - 1, bool)
    chinese, rare, private, latin = (
        of.sums((kinds & kind) != 0) for kind in (_CHINESE, _RARE, _PRIVATE, _LATIN)
    )
    return (
        ((chinese >= _RARE_LEAST) & (rare > _RARE_SHARE * chinese))
        | (private > _PRIVATE_SHARE * of.lengths)
        | ((latin >= _LATIN_LEAST) & (latin > _LATIN_SHARE * of.lengths))
    )


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Which of the kinds above each code point is. Common are the characters of GB2312 and the first level
    of Big5: everyday simplified and traditional Chinese."""
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    for first, last in ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)):
        table[first : last + 1] = _CHINESE | _RARE
    common = [
        bytes((high, low)).decode("gb2312", "ignore")
        for high in range(0xB0, 0xF8)
        for low in range(0xA1, 0xFF)
    ] + [
        bytes((high, low)).decode("big5", "ignore")
        for high in range(0xA4, 0xC7)
        for low in (*range(0x40, 0x7F), *range(0xA1, 0xFF))
    ]
    for char in filter(None, common):
        table[ord(char[0])] &= _CHINESE
    for first, last in ((0xE000, 0xF8FF), (0xF0000, sys.maxunicode)):
        table[first : last + 1] = _PRIVATE
    for code in range(0xA1, 0x250):
        if unicodedata.category(chr(code)) != "So":
            table[code] = _LATIN
    return table


# Personal data

_ID_NUMBER = re.compile(
    r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dXx])"
)
_MOBILE = re.compile(r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)")
_MAIL = re.compile(r"[A-Za-z0-9_.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_CARD = re.compile(r"(?<!\d)(?:[3-6]\d{15,18}|[3-6]\d{3}(?:[ -]\d{4}){3}(?:[ -]?\d{1,3})?)(?!\d)")


def has_personal_data(text: str) -> bool:
    """Does it hold a Chinese identity number (GB 11643-1999, with its check digit), a mobile phone number, an
    e-mail address or the number of a bank card (ISO/IEC 7812-1, with its check digit)?"""
    return bool(
        _MOBILE.search(text)
        or _MAIL.search(text)
        or any(_identity(found[0]) for found in _ID_NUMBER.finditer(text))
        or any(_luhn(re.sub(r"\D", "", found[0])) for found in _CARD.finditer(text))
    )


def _identity(number: str) -> bool:
    """ISO/IEC 7064, MOD 11-2."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def _luhn(number: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(number)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
