"""The page ``docs/benchmarks.md``: the table, how to repeat it, and what each row means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import (
    data,
    decode,
    download,
    evaluation,
    inventory,
    lag,
    library_lag,
    machine,
    report,
    speed_estimates,
    turns,
)
from benchmarks.machine import DISTURBED_SHARE, Bench

PAGE = """\
# Benchmarks

Written by `python -m benchmarks --markdown docs/benchmarks.md`; do not edit by hand.

Pages of their own: the profiles [on a GPU](benchmarks-gpu.md), [a GGUF](benchmarks-gguf-gpu.md),
[fine-tuning](benchmarks-training-gpu.md) and [evaluating](benchmarks-evaluation-gpu.md) there, and
[what a fine-tune learns](benchmarks-training.md) on a CPU.

{summary}

## Repeating it

`make bench` measures everything and prints this table; `.venv/bin/python -m benchmarks --only decode`
measures one group, and `--rounds N` sets how often. tmux is needed. elia and oterm are installed under
`.bench/` the first time, each with its own environment; a row whose program cannot be installed is
missing, and a note says so.

Absolute figures belong to the machine above. What is held against a target is a ratio of two figures of
the same round, or one of our own. In each round every side is measured once, in an order that changes;
the table gives the median of each side, the median of the rounds' ratios, and in brackets the least and
the greatest of them. A sample begins when the machine is quiet. It is taken again when other processes
used more than {disturbed:.0%} of the processor meanwhile, whatever its result, and kept after the fourth
try; the line below the table counts both. Every child gets a data folder of its own through
`DRKUN_HOME`.

The chat screen always runs in a real terminal: a pane of 120 × 36 in a tmux server of its own, without
the user's configuration, driven by keys.

## The rows

**Start.** From the moment at which the pane's waiting shell becomes the program, to the moment at which
its first frame arrives at the terminal: the prompt's placeholder for the chat screen, the text of one
`Static` for a bare Textual application that is started in the same way. `--version` is timed from start
to exit. elia 1.10 knows no `--version`, so its `--help` stands in, the quickest thing that it can say.

**Tokens a second.** {tokens} tokens on the bundled model, two threads, a context of 2,048, the same
question, seed, sampling and weight layout on all sides, engine loaded and prompt evaluated before the
clock starts: tokens after the first, over the time from the first to the last. The bundled model ends
its turns after about a hundred tokens. A repeat penalty of {penalty} rewards repetition, so that with
the right seed, which is looked for first, it goes on to the limit by itself; no side's end of turn is
switched off and all stages of the sampler are in use. The bare loop is `Llama.generate` with every token
turned into text and nothing printed. "By the engine's clock" is what the program itself reports; "at the
other end of a pipe" and "by the interface's clock" are what the reader of standard output and the chat
screen see. The engine shares two cores with the screen, the terminal and this benchmark.

**Lag.** While an answer streams, and for 0.3 s after its end, a task in the interface sleeps {tick:.0f}
ms at a time and notes how much later it wakes. For a waking that is late by more than one sleep, the
ones that it kept from happening count too, each {tick:.0f} ms less late; otherwise a long block would be
one sample among thousands. The figure is the median over the runs of each run's 99th percentile. The
bundled model cannot write 4,000 tokens, so the long lists come from a scripted engine process that
speaks the engine protocol at 650 tokens a second, while two threads keep both cores as busy as a model
would: once as one list of many items, once as a single item with a list in it, which stays one Markdown
block to its end.

**Turns.** Conversations of ten short questions through the program's own session and engine, every
answer ended by the model itself, {pause:.1f} s between an answer's end and the next question, nothing
dropped from the context. "Tokens evaluated" is the prompt less what was still in the KV cache; a
question's own tokens include what the chat template puts around it. Time to first token is from the
engine's reading of the request.

**Memory.** Resident memory of the interface process, the engine being a process of its own: 250
questions and answers with reasoning, about 800 characters each, kept in the database, opened from the
list by keys, then scrolled through to the first one. RSS counts pages that are shared with others; PSS
shares them out, USS leaves them out.

**Inventory.** {folders} model folders, a third each of base models in three shards with an index, of
LoRAs whose bases are among them, and of GGUF files with a vocabulary of {vocabulary} and a template. Each
scan is made by a process of its own, timed after its imports. "Warm" is with what an earlier scan
remembered of the headers, "cold" without; the system's own cache of files is warm in both, and so it is
for the walk that they are compared with, which looks at every file's size and time and reads nothing.

**Download.** A repository of {files} files, {weights} of them weights, from a server on loopback, where
nothing but the programs limits the speed. "Verified" is the download job against `snapshot_download` of
the hub's own client library, each in a process of its own, imports left out, the question which files
there are counted: the job hashes every byte as it comes, the library looks at lengths only. "Whole" is
`drkun pull` from start to exit, against a process that imports the library and does the same.

**Lag beside downloads and scans.** The models screen, in which {downloads} downloads of {download_bytes} each
from a server on loopback run at once while the folders of the row above are scanned again and again, until
all is fetched. Downloads, hashing and scans share the cores with the screen; the server, which stands
elsewhere in life, has the least priority.

**Memory of a model.** What `fit.need` says before a model is loaded, against the resident memory of the
engine process after a prompt of some 600 tokens, less those pages of the model's file that were mapped and
not looked at: where llama.cpp re-packs weights, it works with a copy, and the file's own pages stay in the
page cache until someone needs the memory. Random weights in the shapes of well-known models; F16 is
written here, the others are made of it by llama.cpp's quantiser.

**Estimates of speed.** Random models again, through the real engine: time to the first token of 512, and
tokens a second at about 100 and about 1,000 tokens of context, {speed_rounds} rounds or more, medians. The
kernels' rates are measured once before. "Before any answer" is arithmetic alone; then the first round's
answers are recorded, as if they had been asked, and the later rounds are held against what is told then.
Two threads on two cores wait for each other spinning: where another program takes a core, a sample is
many times slower, so these rows mean nothing on a busy machine.

**Data.** {dialogues} dialogues in six folders of GB18030, made from the sample that `{sample}` names: each
has the title of one row, parts of the questions of three, and the answer of another. Ours is everything from
reading to the files on disk, near duplicates included; the loops read, strip, leave out empty and short rows
and keep the rest in a list. Each side is a process of its own, timed once Python has started.

**Evaluation.** {questions} questions through one `drkun eval`, from the shell's call to the last figure: the
answers, the loss of every reference, all metrics and their intervals. Beside it `drkun ask` for
{asked_alone} of the same questions, one after the other, with the same greedy sampling and limit; each starts
its processes and loads the model, as a loop in a script would. What the loop would still have to measure is
not counted.
"""


def whole(text: str) -> str:
    """The page around a summary."""
    return PAGE.format(
        summary=text,
        disturbed=DISTURBED_SHARE,
        tokens=f"{decode.TOKENS:,}",
        penalty=decode.SAMPLING.repeat_penalty,
        tick=lag.TICK_S * 1000,
        pause=turns.PAUSE_S,
        folders=f"{inventory.FOLDERS:,}",
        vocabulary=f"{inventory.TOKENS:,}",
        files=1 + len(download.SMALL),
        weights=f"{download.BYTES / 1e9:.0f} GB",
        downloads=library_lag.DOWNLOADS,
        download_bytes=f"{library_lag.BYTES / 1e9:.0f} GB",
        speed_rounds=speed_estimates.LEAST_ROUNDS,
        dialogues=f"{data.ROWS:,}",
        questions=evaluation.QUESTIONS,
        asked_alone=evaluation.ASKED_ALONE,
        sample=data.SAMPLE,
    )


def summary(rows: Mapping[str, Sequence[report.Row]], bench: Bench, seconds: float) -> str:
    """What is printed: the machine, the table, how quiet it was, and the notes."""
    lines = [machine.describe(), ""]
    lines.append(report.table([row for group in rows.values() for row in group]))
    lines += ["", f"{bench.rounds} rounds in {seconds / 60:.0f} minutes. {bench.quietness()}"]
    if bench.notes:
        lines += ["", *(f"- {note}" for note in bench.notes)]
    return "\n".join(lines)
