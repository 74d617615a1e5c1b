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
import pyarrow as pa
import pyarrow.compute as pc

from drkun_tui.training.data.summary import REASONS
from drkun_tui.training.data.text import Counts, Strings, Texts, raw_bytes, rows_at, texts
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

_SECONDS, _FIRSTS, _LETTERS = "信众击线费", "微威薇vV公点热专在免", "\u017f\u212a"
"""What stands in an `ADVERTISEMENT` that `_advertises` does not see in its bytes: one of the first behind one
of the second, as in 微信 or 点击, or a letter that is s or k where case makes no difference."""

PERSONAL = r"[0-9]{11}|[0-9][- ][0-9]{4}[- ][0-9]{4}|@"
"""What a text must have to be worth a closer look for personal data."""

_CONTROLS = (
    r"[\x00-\x08\x0B-\x1F\x7F-\x9F\x{00AD}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{FEFF}]"
)


@dataclass(frozen=True, slots=True)
class Tidied:
    """A column without control and invisible characters, with plain line breaks and no white space around its
    texts.

    Attributes:
        column: its rows.
        whole: their code points, where they did not have to be changed.
        garbled: rows that were read in a wrong encoding.
        like_advertising: rows with characters that an advertisement may have.
    """

    column: Strings
    whole: Texts | None
    garbled: Flags
    like_advertising: Flags


def tidied(column: Strings) -> Tidied:
    """One look at every character finds the few rows that need more than a look."""
    of = texts(column)
    none = np.zeros(len(column), bool)
    if not len(of.codes):
        return Tidied(column, of, none, none)
    kinds = _kinds()[of.codes]
    notable = np.flatnonzero((kinds & ~np.uint8(_SPACE | _FIRST)) != 0)
    found, rows = kinds[notable], np.searchsorted(of.starts, notable, side="right") - 1
    garbled = _strange(of, found, rows)
    like_advertising = none
    pairs = ((found & _SECOND) != 0) & ((kinds[notable - 1] & _FIRST) != 0)
    # Where a control character is lost, the ones around it become neighbours.
    like_advertising[rows[pairs | ((found & (_CONTROL | _SUSPECT)) != 0)]] = True
    suspects = np.unique(rows[(found & (_SUSPECT | _LATIN)) != 0])
    if len(suspects):
        garbled[suspects] |= _matches(column.take(pa.array(suspects)), MOJIBAKE)
    # Control characters are a sign of a wrong encoding, so they are looked at before they are lost.
    controls = bool((found & _CONTROL).any())
    if controls:
        column = pc.replace_substring_regex(column, "\r\n?", "\n")
        column = pc.replace_substring_regex(column, _CONTROLS, "")
    full = np.flatnonzero(of.lengths)
    edges = kinds[of.starts[:-1][full]] | kinds[of.starts[1:][full] - 1]
    changed = controls or bool((edges & _SPACE).any())
    if changed:
        column = pc.utf8_trim_whitespace(column)
    return Tidied(column, None if changed else of, garbled, like_advertising)


_SEEN_BY_THE_MODEL = ("question", "answer", "reasoning", "history", "system")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a batch of rows.

    Attributes:
        reasons: `CODES` of each row.
        details: what was found, for rows where the reason alone does not tell.
        personal: rows in which somebody's personal data stand, wherever that is.
    """

    reasons: npt.NDArray[np.uint8]
    details: dict[int, str]
    personal: Flags


def judge(columns: Mapping[str, Strings], options: Data, garbled: Flags, like_advertising: Flags) -> Verdict:
    """Every reason but duplicates.

    Args:
        columns: canonical ones, already `tidied`.
        garbled: rows that were read in a wrong encoding.
        like_advertising: rows whose answer has characters that an advertisement may have.
    """
    question, answer = columns["question"], columns["answer"]
    lengths = _lengths(answer)
    advertises = _advertises(answer, like_advertising)
    checks = {
        "empty": (_lengths(question) == 0) | (lengths == 0),
        "mojibake": garbled,
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
    for column in (columns[name] for name in _SEEN_BY_THE_MODEL if name in columns):
        for row in np.flatnonzero(_may_be_personal(column) & (reasons == 0) & ~personal):
            if number := personal_data(column[int(row)].as_py()):
                personal[row], details[int(row)] = True, number
    return Verdict(reasons, details, personal)


def _advertises(answers: Strings, like: Flags) -> Flags:
    """Which rows are an `ADVERTISEMENT`. Without three digits in a row, a letter behind a q, v, w or full
    stop, or ``:/``, only what is `like` one can be one."""
    raw, starts = raw_bytes(answers)
    small = raw | np.uint8(0x20)
    letters = (small - np.uint8(ord("a"))) < 26
    begins = (raw == ord(".")) | (small == ord("q")) | (small == ord("v")) | (small == ord("w"))
    links = (raw[:-1] == ord(":")) & (raw[1:] == ord("/"))
    suspects = like.copy()
    for places in (begins[:-1] & letters[1:] | links, _digits(raw, 3)):
        suspects[rows_at(starts, places)] = True
    return _matches_of(answers, suspects, ADVERTISEMENT)


def _may_be_personal(column: Strings) -> Flags:
    """Which rows have a `PERSONAL`, looked for where there are four digits in a row or the sign that is in
    every address."""
    raw, starts = raw_bytes(column)
    suspects = np.zeros(len(column), bool)
    for places in (raw == ord("@"), _digits(raw, 4)):
        suspects[rows_at(starts, places)] = True
    return _matches_of(column, suspects, PERSONAL)


def _digits(raw: npt.NDArray[np.uint8], count: int) -> Flags:
    """Where so many digits in a row begin."""
    digits = (raw - np.uint8(ord("0"))) < 10
    begins = max(0, len(digits) - count + 1)
    found: Flags = digits[:begins].copy()
    for place in range(1, count):
        found &= digits[place : begins + place]
    return found


def _matches_of(column: Strings, suspects: Flags, pattern: str) -> Flags:
    """`_matches` of the rows that are suspects; the others have none."""
    found = np.zeros(len(column), bool)
    if suspects.any():
        found[suspects] = _matches(column.filter(pa.array(suspects)), pattern)
    return found


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

_RARE, _PRIVATE, _LATIN, _SUSPECT, _CONTROL, _SPACE, _SECOND, _FIRST = (1 << bit for bit in range(8))


def _strange(of: Texts, kinds: npt.NDArray[np.uint8], rows: Counts) -> Flags:
    """Rows with too many characters that no text has so many of.

    Args:
        of: the rows.
        kinds: of their notable characters.
        rows: of these characters.
    """
    count = len(of.starts) - 1
    rare, private, latin = (
        np.bincount(rows[(kinds & kind) != 0], minlength=count) for kind in (_RARE, _PRIVATE, _LATIN)
    )
    strange: Flags = (private > _PRIVATE_SHARE * of.lengths) | (
        (latin >= _LATIN_LEAST) & (latin > _LATIN_SHARE * of.lengths)
    )
    for row in np.flatnonzero(rare >= _RARE_LEAST * _RARE_SHARE):
        codes = of.codes[of.starts[row] : of.starts[row + 1]]
        chinese = int(((codes >= 0x3400) & (codes <= 0x9FFF)).sum())
        strange[row] |= chinese >= _RARE_LEAST and rare[row] > _RARE_SHARE * chinese
    return strange


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Which of the kinds above each code point is. Common are the characters of GB2312 and the first level
    of Big5: everyday simplified and traditional Chinese."""
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    for first, last in ((0x3400, 0x9FFF), (0xF900, 0xFAFF)):
        table[first : last + 1] = _RARE
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
        table[ord(char[0])] = 0
    for first, last in ((0xE000, 0xF8FF), (0xF0000, sys.maxunicode)):
        table[first : last + 1] = _PRIVATE
    for code in range(0xA1, 0x250):
        if unicodedata.category(chr(code)) != "So":
            table[code] = _LATIN
    for char in "\ufffd锟烫屯\u20ac":
        table[ord(char)] |= _SUSPECT
    for chars, kind in ((_SECONDS, _SECOND), (_FIRSTS, _FIRST), (_LETTERS, _SUSPECT)):
        for char in chars:
            table[ord(char)] |= kind
    controls = re.compile(_CONTROLS.replace("\\x{", "\\u").replace("}", ""))
    for code in (*range(0x100), 0xFEFF, *range(0x2000, 0x2100)):
        if controls.match(chr(code)):
            table[code] |= _CONTROL | _SUSPECT * (code >= 0x80 and code < 0xA0)
    for code in (*range(0x21), 0xA0, 0x3000, *range(0x2000, 0x200B), 0x1680, 0x202F, 0x205F):
        if chr(code).isspace():
            table[code] |= _SPACE
    return table


# Personal data

_ID_NUMBER = re.compile(
    r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dXx])"
)
_MOBILE = re.compile(r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)")
_MAIL = re.compile(r"[A-Za-z0-9_.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_CARD = re.compile(r"(?<!\d)(?:[3-6]\d{15,18}|[3-6]\d{3}(?:[ -]\d{4}){3}(?:[ -]?\d{1,3})?)(?!\d)")


def personal_data(text: str) -> str:
    """The first Chinese identity number (GB 11643-1999, with its check digit), mobile phone number, e-mail
    address or number of a bank card (ISO/IEC 7812-1, with its check digit) in a text; "" when there is none.
    """
    found = [*_MOBILE.finditer(text), *_MAIL.finditer(text)]
    found += [number for number in _ID_NUMBER.finditer(text) if _identity(number[0])]
    found += [number for number in _CARD.finditer(text) if _luhn(re.sub(r"\D", "", number[0]))]
    return min(found, key=re.Match.start)[0].strip() if found else ""


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
