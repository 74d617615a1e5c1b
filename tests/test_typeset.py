"""Typesetting: cleaning, line breaking, Markdown blocks and their layout."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from drkun_tui.ui.typeset.blocks import BlockStream, blocks
from drkun_tui.ui.typeset.cells import edges, width_of
from drkun_tui.ui.typeset.markdown import STYLES, code_blocks, render_block
from drkun_tui.ui.typeset.sanitise import clean, one_line
from drkun_tui.ui.typeset.wrap import Line, Span, Wrapper, fold, wrap

relaxed = settings(deadline=None)  # a busy machine is no failure

OPENING = "（《「『【“‘([{"
CLOSING = "，。、；：？！）》」』】”’…—%,.;:?!)]}"


def plain(lines: Sequence[Line]) -> list[str]:
    return ["".join(span.text for span in line) for line in lines]


def wrapped(text: str, width: int) -> list[str]:
    return plain(wrap([Span(text)], width))


def rendered(text: str, width: int = 40) -> list[str]:
    return [line for block in blocks(text) for line in plain(render_block(block, width))]


def styled(text: str, width: int = 60) -> list[tuple[str, str]]:
    return [
        (span.style, span.text)
        for block in blocks(text)
        for line in render_block(block, width)
        for span in line
    ]


# --- sanitise ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("头晕，怎么办？\n", "头晕，怎么办？\n"),
        ("a\tb", "a    b"),
        ("一\r\n二\r三\u2028四\u2029五\x85六\x0b七\x0c八", "一\n二\n三\n四\n五\n六\n七\n八"),
        ("half of a CRLF\r", "half of a CRLF"),
        ("nul\x00 bell\x07 del\x7f c1\x90", "nul bell del c1"),
        ("\x1b[31m红\x1b[0m\x1b[2J\x1b[?25l", "红"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x1bPq#0\x1b\\a\x1bcb\x1b(0c", "abc"),
        ("\x1b]0;never closed\n下一行", "0;never closed\n下一行"),
        ("\x1b", ""),
        ("\x9b31m", "31m"),
        ("\x9dkept\x9c", "kept"),
        ("abc\u202edcba\u202c \u2066x\u2069\u200e\u200f\u061c", "abcdcba x"),
        ("药\u200b\u2060\ufeff\u00ad名\U000e0041\u3164\ufe01", "药名"),
        ("👩\u200d⚕\ufe0f", "👩⚕"),
        ("\ud83d", "\ufffd"),
        ("　　首行缩进", "　　首行缩进"),
    ],
)
def test_clean(raw: str, expected: str) -> None:
    assert clean(raw) == expected


def test_clean_leaves_no_control_or_format_character() -> None:
    # Signs that stand before Arabic, Syriac and Kaithi numbers: of that category, but visible.
    visible = set(map(chr, [*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD]))
    left = {
        char
        for char in map(chr, range(0x110000))
        if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char in clean(char)
    }
    assert left == visible | {"\n"}


nasty = st.text(
    st.one_of(st.sampled_from("\x1b[]0;m\x07\\\r\n\t\x9b\u202e\u200d\ud800汉a "), st.characters())
)


@relaxed
@given(nasty)
def test_clean_is_idempotent(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@relaxed
@given(nasty, nasty)
def test_clean_works_chunk_by_chunk(first: str, second: str) -> None:
    first, second = first.replace("\x1b", "").rstrip("\r"), second.replace("\x1b", "")
    assert clean(first) + clean(second) == clean(first + second)


@relaxed
@given(nasty, st.integers(0, 12))
def test_one_line_fits(text: str, width: int) -> None:
    line = one_line(text, width)
    assert cell_len(line) <= width
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("最近总是\n\n头晕", 20, "最近总是 头晕"),
        ("最近总是头晕", 12, "最近总是头晕"),
        ("最近总是头晕", 11, "最近总是头…"),
        ("最近总是头晕", 10, "最近总是…"),
        ("ab cd", 4, "ab…"),
        ("头晕", 1, "…"),
        ("头晕", 0, ""),
    ],
)
def test_one_line(text: str, width: int, expected: str) -> None:
    assert one_line(text, width) == expected


# --- wrap ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("", 10, [""]),
        ("\n", 10, ["", ""]),
        ("头晕怎么办", 6, ["头晕怎", "么办"]),
        ("头晕怎么办", 7, ["头晕怎", "么办"]),
        # No closing mark begins a line, no opening mark ends one.
        ("头晕怎么，办", 8, ["头晕怎", "么，办"]),
        ("头晕怎么？！办", 8, ["头晕怎", "么？！办"]),
        ("头晕（怎么）办", 6, ["头晕", "（怎", "么）办"]),
        ("他说“你好”吧", 6, ["他说", "“你好”", "吧"]),
        ("等等……再说", 5, ["等", "等……", "再说"]),
        ("体温是37.5℃左右", 12, ["体温是37.5℃", "左右"]),
        ("约占百分之50%的人", 12, ["约占百分之", "50%的人"]),
        # Long runs of them do break.
        ("啊" + "！" * 20, 8, ["啊！！！", "！！！！", "！！！！", "！！！！", "！！！！", "！"]),
        ("你好啊" + "！" * 20, 20, ["你好啊" + "！" * 7, "！" * 10, "！！！"]),
        # Words and figures stay whole where they fit, and may stand right beside Chinese.
        ("血压150/95 mmHg偏高", 9, ["血压", "150/95", "mmHg偏高"]),
        ("the patient's dizziness", 10, ["the", "patient's", "dizziness"]),
        ("（hypertension）", 12, ["（", "hypertension", "）"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("don’t stop", 6, ["don’t", "stop"]),
        # Spaces at a break are dropped, others are not.
        ("ab cd", 2, ["ab", "cd"]),
        ("ab   cd   ", 3, ["ab", "cd"]),
        ("ab ", 3, ["ab "]),
        ("　　头晕怎么办", 8, ["　　头晕", "怎么办"]),
        ("  a\n    b", 10, ["  a", "    b"]),
        ("      ", 4, [""]),
        ("      abc", 4, ["abc"]),
        ("    abcdefgh", 8, ["abcdefgh"]),
        ("see .bashrc )", 8, ["see", ".bashrc", ")"]),
        # Too narrow for a character.
        ("头a晕", 1, ["头", "a", "晕"]),
        ("头，", 1, ["头", "，"]),
        # Marks stay with what they mark.
        ("e\u0301e\u0301e\u0301", 2, ["e\u0301e\u0301", "e\u0301"]),
        ("🇨🇳🇨🇳🇨🇳", 4, ["🇨🇳🇨🇳", "🇨🇳"]),
        ("🇨🇳🇨🇳", 3, ["🇨🇳", "🇨🇳"]),
        ("👩\u200d⚕\ufe0f👍🏽", 2, ["👩\u200d⚕\ufe0f", "👍🏽"]),
        ("❤\ufe0f❤\ufe0f", 3, ["❤\ufe0f", "❤\ufe0f"]),
        ("ab \u0301cd", 3, ["ab", " \u0301cd"]),
    ],
)
def test_wrap(text: str, width: int, expected: list[str]) -> None:
    assert wrapped(text, width) == expected


@pytest.mark.parametrize("width", [1, 2, 3, 7, 40])
@pytest.mark.parametrize(
    "text",
    ["a" * 10_000, "头" * 10_000, "，" * 10_000, "（" * 300, " " * 10_000 + "a", "a" + "\u0301" * 10_000],
)
def test_wrap_long_lines(text: str, width: int) -> None:
    assert "".join(wrapped(text, width)).replace(" ", "") == text.replace(" ", "")


pieces = st.sampled_from(
    [
        *"头晕病，。、（）《》“”…—！% \n　a1.,()-/",
        "mmHg",
        "150/95",
        "   ",
        "\u0301",
        "\u200d",
        "\ufe0f",
        "❤",
        "👩",
        "👍",
        "🏽",
        "🇨",
        "🇳",
        "é",
        "한",
    ]
)
texts = st.one_of(st.lists(pieces, max_size=60).map("".join), st.text().map(clean))
widths = st.integers(1, 24)


def spaces(text: str) -> bool:
    return not text.strip(" 　")


@relaxed
@given(texts, widths)
def test_wrap_loses_only_spaces_at_breaks(text: str, width: int) -> None:
    rest = text
    for line in wrapped(text, width):
        before, _, rest = rest.partition(line) if line else ("", "", rest)
        assert spaces(before.replace("\n", ""))
    assert spaces(rest.replace("\n", ""))


@relaxed
@given(texts, widths)
def test_wrap_fits_and_keeps_characters_whole(text: str, width: int) -> None:
    for line in wrapped(text, width):
        assert edges(line)[-1] == cell_len(line)
        assert cell_len(line) <= width or len(wrapped(line, 1)) == 1
    for source in text.split("\n"):
        for before, after in pairwise(wrapped(source, width)):
            # A space after a joiner is dropped like any other.
            assert not before.endswith("\u200d") or re.search("\u200d[ 　]", source)
            assert cell_len(after[0]) > 0 or after[0] == "\u200d"


words = st.text("abc150", min_size=1, max_size=8)
signs = st.one_of(st.sampled_from(OPENING + CLOSING), st.just(" "))
prose = st.lists(st.tuples(st.one_of(words, st.text("头晕病", min_size=1)), signs), max_size=30).map(
    lambda pairs: "汉".join(word + sign for word, sign in pairs)
)


@relaxed
@given(prose, st.integers(16, 40))
def test_wrap_keeps_the_rules(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert not any(line[0] in CLOSING for line in lines[1:])
    assert not any(line[-1] in OPENING for line in lines[:-1])


@relaxed
@given(st.lists(st.one_of(words, st.sampled_from("头，（） ")), max_size=30), st.integers(8, 16))
def test_wrap_keeps_words_whole(parts: list[str], width: int) -> None:
    text = "病".join(parts)
    assert [word for part in parts if (word := part.strip("头，（） "))] == [
        word
        for line in wrapped(text, width)
        for word in "".join(c if c.isascii() else " " for c in line).split()
    ]


@relaxed
@given(
    st.lists(st.tuples(texts, st.sampled_from(["", "strong", "code"]))),
    widths,
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_wrap_keeps_styles(parts: list[tuple[str, str]], width: int, indent: int, hanging: int) -> None:
    spans = [Span(*part) for part in parts]
    width += 3
    lines = wrap(spans, width, indent, hanging)
    bare = [line[1:] if line and (hanging if index else indent) else line for index, line in enumerate(lines)]
    assert all(
        line[0].text == " " * (hanging if i else indent) for i, line in enumerate(lines) if line != bare[i]
    )
    if indent == hanging:
        assert plain(bare) == wrapped("".join(text for text, _ in parts), width - indent)
    seen = Counter(
        (style, char) for line in bare for text, style in line for char in text if not spaces(char)
    )
    given_ = Counter(
        (style, char) for text, style in parts for char in text if not spaces(char) and char != "\n"
    )
    assert seen == given_


@relaxed
@given(st.lists(texts), widths)
@example(["（abcd", "efgh"], 5)
@example(["ab cd   ", ")"], 5)
def test_wrapper_equals_wrap(chunks: list[str], width: int) -> None:
    wrapper = Wrapper(width, "dim")
    for chunk in chunks:
        before = list(wrapper.lines)
        changed = wrapper.append(chunk)
        assert wrapper.lines[:changed] == before[:changed]
        assert changed == len(before) or changed >= len(before) - 1
        assert changed <= len(wrapper.lines)
    assert wrapper.lines == wrap([Span("".join(chunks), "dim")], width)


def test_wrapper_tells_what_changed() -> None:
    wrapper = Wrapper(6)
    assert wrapper.lines == [()]
    assert wrapper.append("") == 1
    assert wrapper.append("头晕怎") == 0
    assert wrapper.append("么办") == 1  # the first line stays as it was
    assert wrapper.append("？") == 1
    assert wrapper.append("\n\n") == 2
    assert plain(wrapper.lines) == ["头晕怎", "么办？", "", ""]


@relaxed
@given(texts, widths)
def test_fold_loses_nothing(text: str, width: int) -> None:
    for source in text.split("\n"):
        lines = plain(fold(source, width, "code"))
        assert "".join(lines) == source
        assert all(
            cell_len(line) <= width or len(wrapped(line, 1)) == 1 for line in lines if not spaces(line)
        )


def test_memory_of_widths_is_bounded() -> None:
    edges("".join(map(chr, range(0x20000, 0x20000 + (1 << 15) + 9))))
    assert 0 < len(width_of) <= 1 << 15


def test_wrap_is_cheap_to_import() -> None:
    code = "import sys, drkun_tui.ui.typeset.markdown; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"textual", "markdown_it", "rich.console"} & set(modules)


# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n", ["\n\n"]),
        ("\n\n头晕", ["\n\n头晕"]),
        ("一\n二\n\n三", ["一\n二\n\n", "三"]),
        ("# 题\n文\n## 题", ["# 题\n", "文\n", "## 题"]),
        ("#话题\n#", ["#话题\n#"]),
        ("如下：\n- 一\n- 二\n* 三", ["如下：\n", "- 一\n", "- 二\n", "* 三"]),
        ("1. 一\n2) 二\n\n3. 三", ["1. 一\n", "2) 二\n\n", "3. 三"]),
        ("1. 一\n   续\n\n   段\n\n   - 子\n2. 二", ["1. 一\n   续\n\n   段\n\n   - 子\n", "2. 二"]),
        ("- 一\n\n\n  段\n\n文", ["- 一\n\n\n  段\n\n", "文"]),
        ("- 一\n懒\n\n文", ["- 一\n懒\n\n", "文"]),
        ("-\n  文\n- b", ["-\n  文\n", "- b"]),
        ("-      代码\n  文\n\n  段", ["-      代码\n  文\n\n  段"]),
        ("-\t文\n\n\t段\n\n外", ["-\t文\n\n\t段\n\n", "外"]),
        ("- - -\n\n  文", ["- - -\n\n", "  文"]),
        ("文\n```py\n# 注\n\n- x\n```\n文", ["文\n", "```py\n# 注\n\n- x\n```\n", "文"]),
        ("````\n```\n~~~\n````  \n文", ["````\n```\n~~~\n````  \n", "文"]),
        ("~~~\n\n\n```\n\n", ["~~~\n\n\n```\n\n"]),
        ("文\n```行内```\n- 一", ["文\n```行内```\n", "- 一"]),
        ("- ```\n  # a\n\n  b\n  ```\n- c", ["- ```\n  # a\n\n  b\n  ```\n", "- c"]),
        ("文\n\n|a|b|\n|-|-|\n|1|2|\n\n文", ["文\n\n", "|a|b|\n|-|-|\n|1|2|\n\n", "文"]),
        ("> 一\n>\n> 二\n\n文", ["> 一\n>\n> 二\n\n", "文"]),
    ],
)
def test_blocks(text: str, expected: list[str]) -> None:
    assert blocks(text) == expected


marks = st.sampled_from(
    [
        "头",
        "晕。",
        "a",
        "1",
        " ",
        "  ",
        "   ",
        "\n",
        "\n",
        "\n\n",
        "- ",
        "* ",
        "1. ",
        "10) ",
        "# ",
        "##",
        "`",
        "```",
        "```py\n",
        "~~~",
        "|",
        "|-|-|\n",
        "> ",
        "**",
        "_",
        "~~",
        "[",
        "]",
        "!",
        "&lt;",
        "&#10;",
        "<",
        "\\",
        "\t",
    ]
)
sources = st.lists(marks, max_size=50).map("".join)


@relaxed
@given(st.lists(sources, max_size=6))
def test_block_stream_equals_blocks(chunks: list[str]) -> None:
    stream = BlockStream()
    text = ""
    sealed: list[str] = []
    for chunk in chunks:
        text += chunk
        sealed += stream.append(chunk)
        assert [*sealed, *([stream.tail] if text else [])] == blocks(text)
    assert "".join(blocks(text)) == text
    assert all(blocks(text))


@relaxed
@given(sources)
def test_appending_changes_only_the_last_block(text: str) -> None:
    for end in range(len(text)):
        assert blocks(text)[: max(0, len(blocks(text[:end])) - 1)] == blocks(text[:end])[:-1]


# --- markdown ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("头晕", [("", "头晕")]),
        ("# 头**晕**", [("heading", "头"), ("heading strong", "晕")]),
        (
            "**粗** *斜* ~~删~~ `码`",
            [
                ("strong", "粗"),
                ("", " "),
                ("em", "斜"),
                ("", " "),
                ("strike", "删"),
                ("", " "),
                ("code", "码"),
            ],
        ),
        ("***重***", [("em strong", "重")]),
        # Chinese punctuation inside the mark, a letter outside.
        ("**注意：**请", [("strong", "注意："), ("", "请")]),
        ("请**（注意）**A", [("", "请"), ("strong", "（注意）"), ("", "A")]),
        ("是“**重**”", [("", "是“"), ("strong", "重"), ("", "”")]),
        ("2 * 3 * 4 snake_case_name", [("", "2 * 3 * 4 snake_case_name")]),
        ("[指南](http://a.cn/%E5%8D%97)", [("link", "指南"), ("dim", " (http://a.cn/南)")]),
        ("[http://a.cn](http://a.cn)", [("link", "http://a.cn")]),
        ("<a@b.cn>", [("link", "a@b.cn")]),
        ("[x](javascript:alert)", [("", "[x](javascript:alert)")]),
        ("![胸片](x.png)![](y.png)", [("", "胸片"), ("", "y.png")]),
        ("<b>粗</b><script>", [("", "<b>粗</b><script>")]),
        ("&lt;&#27;[31m&#x202e;&#8238;红", [("", "<\ufffd[31m红")]),
        ("`\x1b[31mls`", [("code", "ls")]),
        ("[一]: http://a.cn", [("", "[一]: http://a.cn")]),
        ("> 引`码`", [("quote", "> "), ("quote", "引"), ("quote code", "码")]),
        ("---", [("dim", "-" * 60)]),
        ("- [x] 完成", [("bullet", "- "), ("", "[x] 完成")]),
        ("[bold]不是标记[/bold]", [("", "[bold]不是标记[/bold]")]),
    ],
)
def test_inline_styles(text: str, expected: list[tuple[str, str]]) -> None:
    assert styled(text) == [pair for pair in expected if pair[1]]
    assert {name for style, _ in styled(text) for name in style.split()} <= set(STYLES)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("\n\n一\n二  \n三\\\n四\n\n\n五", 20, ["一", "二", "三", "四", "", "五"]),
        ("# 题\n文\n\n文", 20, ["题", "文", "", "文"]),
        ("　　一\n　　二", 20, ["一", "二"]),
        ("文\n---\n文", 6, ["文", "------", "文"]),
        ("* 头晕怎么办\n+ 二", 8, ["- 头晕怎", "  么办", "- 二"]),
        ("9. 头晕怎么办\n10. 二\n\n007) 三", 9, ["9. 头晕怎", "   么办", "10. 二", "", "007) 三"]),
        ("- 一\n  - 二\n    1. 三\n\n  四", 20, ["- 一", "  - 二", "    1. 三", "", "  四"]),
        ("1. 一\n  - 二\n  - 三\n\n\n四", 20, ["1. 一", "  - 二", "  - 三", "", "四"]),
        ("-\n- - a", 20, ["- ", "- - a"]),
        ("> 头晕\n>\n> - 怎么\n>   办\n\n文", 20, ["> 头晕", "> ", "> - 怎么", ">   办", "", "文"]),
        (">", 20, ["> "]),
        ("- > - 头晕怎么办", 12, ["- > - 头晕怎", "  >   么办"]),
        ("- > - 头晕", 3, ["- ", "- ", "头", "晕"]),
        ("```py\nx = 1\n\n\t中文abc\n```\n后", 8, ["x = 1", "", "    中文", "abc", "后"]),
        ("```\n未完\n\n", 8, ["未完", ""]),
        ("``` 这是说明\nx\n```", 20, ["这是说明", "x"]),
        ("文\n\n    code\n      more", 20, ["文", "", "code", "  more"]),
        (
            "|药|剂量|\n|--|-:|\n|阿司匹林|5 mg|\n|a|**100** mg|",
            30,
            ["药       |   剂量", "---------+-------", "阿司匹林 |   5 mg", "a        | 100 mg"],
        ),
        ("|a|b|\n|:-:|-|\n|中中|x|", 30, [" a   | b", "-----+--", "中中 | x"]),
        (
            "|药|用法|\n|-|-|\n|阿司匹林|每日一次饭后|\n|b||\n",
            14,
            ["药: 阿司匹林", "用法: 每日一次", "  饭后", "", "药: b", "用法: "],
        ),
        ("||药|\n|-|-|\n||阿司匹林|", 6, ["药: 阿", "司匹林"]),
        ("|一二三|四五六|\n|-|-|", 8, ["一二三", "四五六"]),
        ("|a|\n|-|\n|1|2|", 20, ["|a|", "|-|", "|1|2|"]),
        ("|a&#10;b|\n|-|\n|`x\\|y`|", 20, ["a b", "---", "x|y"]),
    ],
)
def test_layout(text: str, width: int, expected: list[str]) -> None:
    assert rendered(text, width) == expected


DOCUMENT = """# 头晕

常见原因：
1. **高血压**：测量`150/95`
   - 头痛

   请就医。
2. 颈椎病

> 引用
> 文字

```text
代码
```
| 药 | 量 |
|---|---|
| 甲 | 1 |

完。
"""


@pytest.mark.parametrize("width", [1, 5, 20, 80])
def test_blocks_rendered_one_by_one_make_the_whole(width: int) -> None:
    assert rendered(DOCUMENT, width) == plain(render_block(DOCUMENT, width))


@relaxed
@given(sources, st.sampled_from([-1, 0, 1, 3, 16, 60]))
@example("|头|\n|-|\n||", 3)
def test_rendering_loses_no_text(text: str, width: int) -> None:
    lines = [line for block in blocks(text) for line in render_block(block, width)]
    seen = Counter("".join(plain(lines)))
    assert all(seen[char] >= text.count(char) for char in "头晕。")
    assert all(
        cell_len(line) <= max(width, 1) or len(wrapped(line, 1)) == 1 for line in plain(lines) if width > 3
    )


@relaxed
@given(
    st.text(st.one_of(st.sampled_from("\x00\x1b[]\u202e&#27;*_`>-\n |~\\"), st.characters())),
    st.integers(-1, 12),
)
def test_rendering_never_raises_and_is_clean(text: str, width: int) -> None:
    for block in blocks(text):
        for line in plain(render_block(block, width)):
            assert clean(line) == line
            assert "\n" not in line
    assert all(clean(code) == code for code in code_blocks(text))


@pytest.mark.parametrize(
    "text",
    [
        "头" * 10_000,
        ">" * 3000 + "头",
        "- " * 3000 + "头",
        "> - " * 40 + "头",
        "".join("  " * depth + "- 头\n" for depth in range(40)),
        "*" * 10_000 + "头",
        "[" * 10_000 + "头",
        "*a **b " * 900 + "头",
        "`" * 10_000 + "头",
        "\x00\x1b[2J\u202e" * 1000 + "头",
        "|头" * 300 + "|\n" + "|-" * 300 + "|\n",
    ],
)
@pytest.mark.parametrize("width", [1, 30])
def test_hostile_markdown(text: str, width: int) -> None:
    shown = "".join(line for block in blocks(text) for line in plain(render_block(block, width)))
    assert shown.count("头") == text.count("头")
    assert "\x1b" not in shown


def test_a_bug_in_the_parser_shows_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(block: str, width: int) -> list[Line]:
        raise RecursionError

    monkeypatch.setattr("drkun_tui.ui.typeset.markdown._layout", broken)
    assert rendered("**头晕**\n\n") == ["**头晕**", ""]


def test_code_blocks() -> None:
    text = "文\n```py\na\x1b[0m = 1\n\n# b\n```\n- x\n  ~~~\n  c\n  ~~~\n\n`d`\n\n```\n未完"
    assert code_blocks(text) == ["a = 1\n\n# b\n", "c\n", "未完"]
    assert code_blocks("没有代码") == []
