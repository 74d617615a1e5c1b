"""The command line: what ``drkun`` understands, and how every failure becomes one line.

The contract: with ``--json`` standard output holds exactly one JSON object and everything else goes
to standard error; exit codes are those of `drkun_tui.errors`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from drkun_tui import __version__
from drkun_tui.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, DrkunError
from drkun_tui.i18n import set_language, t

HUBS = ("hf", "modelscope")
REASONS = (
    *("malformed", "empty", "mojibake", "advertisement", "too_short", "too_long"),
    *("duplicate", "near_duplicate", "personal"),
)
"""Why rows of a data set are left out or flagged, as `drkun_tui.training.data.summary` has it; that would be
dear to import here."""
TEMPLATES = ("chat", "sikao")
PROFILES = ("auto", "cpu", "gpu8", "gpu16", "remote")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    _speak_utf8()
    set_language("auto")
    # What the locale cannot decode comes as lone surrogates, which neither a pipe nor JSON takes.
    words = sys.argv[1:] if argv is None else argv
    given = [word.encode("utf8", "surrogateescape").decode("utf8", "replace") for word in words]
    arguments = argparse.Namespace(json="--json" in given, debug="--debug" in given, command="")
    try:
        # Who only wants the chat screen does not wait for the grammar of all the rest.
        if given:
            arguments = parser().parse_args(given)
        command = importlib.import_module(f"drkun_tui.commands.{arguments.command or 'chat'}")
        code: int = command.run(arguments)
        sys.stdout.flush()
    except DrkunError as error:
        return _fail(error, arguments)
    except KeyboardInterrupt:
        return _fail(DrkunError("interrupted", t("error.interrupted"), "", EXIT_INTERRUPTED), arguments)
    except BrokenPipeError:
        _fall_silent()
        return EXIT_FAILED
    except Exception as error:
        if arguments.debug:
            raise
        reason = f"{type(error).__name__}: {error}"
        return _fail(
            DrkunError("internal", t("error.internal", reason=reason), t("error.internal_hint")), arguments
        )
    return code


def parser() -> argparse.ArgumentParser:
    """The whole grammar."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help=t("cli.json"))
    common.add_argument("--debug", action="store_true", help=t("cli.debug"))

    top = _Parser(
        prog="drkun",
        description=t("cli.description"),
        epilog=t("cli.epilog"),
    )
    top.add_argument("--version", action="version", version=f"drkun {__version__}")
    top.add_argument("--debug", action="store_true", help=t("cli.debug"))
    top.set_defaults(json=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    chosen = _Parser(add_help=False)
    chosen.add_argument("--model", metavar="M", help=t("cli.model"))
    chosen.add_argument("--adapter", metavar="A", help=t("cli.adapter"))
    chosen.add_argument("--adapter-scale", type=float, metavar="X", help=t("cli.adapter_scale"))
    chosen.add_argument("--profile", choices=PROFILES, help=t("cli.profile"))
    chosen.add_argument("--context", type=_count, metavar="N", help=t("cli.context"))
    chosen.add_argument("--threads", type=_count, metavar="N", help=t("cli.threads"))

    asked = _Parser(add_help=False)
    asked.add_argument("--system", metavar="T", help=t("cli.system"))
    asked.add_argument("--no-think", action="store_true", help=t("cli.no_think"))
    asked.add_argument("--max-tokens", type=_count, metavar="N", help=t("cli.max_tokens"))
    asked.add_argument("--temperature", type=float, metavar="X", help=t("cli.temperature"))
    asked.add_argument("--top-p", type=float, metavar="X")
    asked.add_argument("--top-k", type=_count, metavar="N")
    asked.add_argument("--repeat-penalty", type=float, metavar="X")
    asked.add_argument("--seed", type=_count, metavar="N")
    text = _Parser(add_help=False)
    text.add_argument("text", nargs="*", metavar="TEXT", help=t("cli.text"))
    commands.add_parser("ask", parents=[common, chosen, asked, text], help=t("cli.ask"))

    compare = commands.add_parser(
        "compare", parents=[common, asked, text], help=t("compare.help"), description=t("compare.description")
    )
    compare.add_argument(
        "--model", dest="models", action="append", default=[], metavar="M", help=t("compare.model_help")
    )
    compare.add_argument("--adapter-scale", type=float, metavar="X", help=t("cli.adapter_scale"))
    compare.add_argument("--profile", choices=PROFILES, help=t("cli.profile"))
    compare.add_argument("--context", type=_count, metavar="N", help=t("cli.context"))
    compare.add_argument("--threads", type=_count, metavar="N", help=t("cli.threads"))
    compare.add_argument("--in-turn", action="store_true", help=t("compare.in_turn_help"))
    compare.add_argument("--blind", action="store_true", help=t("compare.blind_help"))
    compare.add_argument("--votes", action="store_true", help=t("compare.votes_help"))

    models = commands.add_parser("models", parents=[common], help=t("cli.models"))
    models.add_argument("--speed", action="store_true", help=t("cli.speed"))
    inspect = commands.add_parser("inspect", parents=[common], help=t("cli.inspect"))
    inspect.add_argument("model", metavar="PATH|NAME")
    hub = _Parser(add_help=False)
    hub.add_argument("--from", dest="hub", choices=HUBS, help=t("cli.from"))
    pull = commands.add_parser("pull", parents=[common, hub], help=t("cli.pull"))
    pull.add_argument("repo", metavar="REPO", help=t("cli.repo"))
    pull.add_argument("--revision", default="", metavar="R", help=t("cli.revision"))
    pull.add_argument("--include", action="append", default=[], metavar="GLOB", help=t("cli.include"))
    pull.add_argument("--quant", default="", metavar="Q", help=t("cli.quant"))
    pull.add_argument("--yes", "-y", action="store_true", help=t("cli.yes"))
    looks = pull.add_mutually_exclusive_group()
    for look in ("list", "card"):
        looks.add_argument(
            f"--{look}", dest="look", action="store_const", const=look, help=t(f"cli.pull_{look}")
        )
    search = commands.add_parser("search", parents=[common, hub], help=t("cli.search"))
    search.add_argument("query", nargs="*", metavar="QUERY", help=t("cli.query"))
    kinds = search.add_mutually_exclusive_group()
    for kind in ("gguf", "safetensors"):
        kinds.add_argument(
            f"--{kind}", dest="format", action="store_const", const=kind, default="", help=t(f"cli.{kind}")
        )
    search.add_argument("--size", type=_sizes, default=(0, 0), metavar="B-B", help=t("cli.size"))
    search.add_argument("--task", default="", metavar="T", help=t("cli.task"))
    search.add_argument("--language", default="", metavar="L", help=t("cli.lang"))
    search.add_argument("--limit", type=_count, default=20, metavar="N", help=t("cli.limit"))

    # "import" is a word of Python's, so the module is called otherwise.
    bring = commands.add_parser("import", parents=[common], help=t("cli.import"))
    bring.set_defaults(command="import_model")
    bring.add_argument("path", metavar="PATH")
    modes = bring.add_mutually_exclusive_group()
    for mode in ("link", "copy", "move"):
        modes.add_argument(
            f"--{mode}", dest="mode", action="store_const", const=mode, help=t(f"cli.import_{mode}")
        )
    bring.add_argument("--name", metavar="N", help=t("cli.import_name"))
    remove = commands.add_parser("remove", parents=[common], help=t("cli.remove"))
    remove.add_argument("model", metavar="NAME")
    remove.add_argument("--yes", action="store_true", help=t("cli.remove_yes"))
    rename = commands.add_parser("rename", parents=[common], help=t("cli.rename"))
    rename.add_argument("model", metavar="NAME")
    rename.add_argument("alias", metavar="ALIAS", help=t("cli.alias"))
    data = commands.add_parser("data", help=t("cli.data")).add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    check = data.add_parser("check", parents=[common], help=t("cli.data_check"))
    check.add_argument("path", metavar="PATH", help=t("cli.data_path"))
    check.add_argument("--hub", action="store_true", help=t("cli.data_hub"))
    check.add_argument("--config", default="", metavar="C", help=t("cli.data_config"))
    check.add_argument("--split", default="train", metavar="S", help=t("cli.data_split"))
    check.add_argument("--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help=t("cli.data_columns"))
    check.add_argument("--model", default="starter", metavar="M", help=t("cli.data_model"))
    check.add_argument("--length", type=_count, default=2048, metavar="N", help=t("cli.data_length"))
    check.add_argument("--template", choices=TEMPLATES, default="chat", help=t("cli.data_template"))
    check.add_argument("--system", default="", metavar="T", help=t("cli.data_system"))
    check.add_argument("--show", choices=REASONS, metavar="REASON", help=t("cli.data_show"))
    check.add_argument("--limit", type=_count, default=20, metavar="N", help=t("cli.data_limit"))
    train = commands.add_parser("train", parents=[common], help=t("cli.train"))
    train.add_argument("recipe", nargs="?", metavar="RECIPE", help=t("cli.recipe"))
    train.add_argument("--resume", metavar="RUN", help=t("cli.resume"))
    train.add_argument("--detach", action="store_true", help=t("cli.detach"))
    commands.add_parser("runs", parents=[common], help=t("cli.runs_list"))
    stop = commands.add_parser("stop", parents=[common], help=t("cli.stop"))
    stop.add_argument("id", metavar="ID", help=t("cli.job"))
    evaluate = commands.add_parser("eval", parents=[common, chosen, asked], help=t("evaluation.cli"))
    evaluate.add_argument("suite", nargs="?", metavar="SUITE|RUN", help=t("evaluation.cli_suite"))
    evaluate.add_argument(
        "--task", choices=("auto", "department"), default="auto", help=t("evaluation.cli_task")
    )
    evaluate.add_argument("--limit", type=_count, default=1000, metavar="N", help=t("evaluation.cli_limit"))
    evaluate.add_argument(
        "--sequences", type=_count, default=0, metavar="N", help=t("evaluation.cli_sequences")
    )
    evaluate.add_argument("--against", metavar="ID", help=t("evaluation.cli_against"))
    evaluate.add_argument("--card", action="store_true", help=t("evaluation.cli_card"))
    evaluate.add_argument("--resume", metavar="ID", help=t("evaluation.cli_resume"))
    evaluate.add_argument("--show", metavar="ID", help=t("evaluation.cli_show"))
    evaluate.add_argument("--remove", metavar="ID", help=t("evaluation.cli_remove"))
    evaluate.add_argument("--yes", action="store_true", help=t("cli.remove_yes"))
    evaluate.add_argument("--list", action="store_true", help=t("evaluation.cli_list"))
    evaluate.add_argument("--detach", action="store_true", help=t("evaluation.cli_detach"))
    export = commands.add_parser("export", parents=[common], help=t("publishing.cli_export"))
    export.add_argument("model", nargs="?", metavar="NAME", help=t("publishing.cli_model"))
    export.add_argument("--type", default="Q4_K_M", metavar="T", help=t("publishing.cli_type"))
    export.add_argument("--base", default="", metavar="B", help=t("publishing.cli_base"))
    export.add_argument("--name", default="", metavar="N", help=t("publishing.cli_name"))
    matrix = export.add_mutually_exclusive_group()
    matrix.add_argument("--imatrix", default="", metavar="FILE", help=t("publishing.cli_imatrix"))
    matrix.add_argument("--imatrix-from", default="", metavar="FILE", help=t("publishing.cli_imatrix_from"))
    export.add_argument("--detach", action="store_true", help=t("publishing.cli_detach"))
    export.add_argument("--list", action="store_true", help=t("publishing.cli_list"))
    export.add_argument("--follow", metavar="ID", help=t("publishing.cli_follow"))
    publish = commands.add_parser("publish", parents=[common], help=t("publishing.cli_publish"))
    publish.add_argument("model", metavar="NAME", help=t("publishing.cli_published"))
    publish.add_argument("repo", metavar="REPO", help=t("publishing.cli_repo"))
    publish.add_argument("--to", dest="hub", choices=HUBS, default=HUBS[0], help=t("publishing.cli_to"))
    publish.add_argument("--public", action="store_true", help=t("publishing.cli_public"))
    publish.add_argument("--card", default="", metavar="FILE", help=t("publishing.cli_card"))
    publish.add_argument("--license", default="", metavar="L", help=t("publishing.cli_license"))
    publish.add_argument("--data-license", default="", metavar="L", help=t("publishing.cli_data_license"))
    publish.add_argument("--update", action="store_true", help=t("publishing.cli_update"))
    publish.add_argument("--yes", "-y", action="store_true", help=t("publishing.cli_yes"))
    commands.add_parser("doctor", parents=[common], help=t("cli.doctor"))
    bench = commands.add_parser("bench", parents=[common, chosen], help=t("cli.bench"))
    bench.add_argument("--runs", type=_count, default=3, metavar="N", help=t("cli.runs"))
    return top


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as every other failure is said."""

    def error(self, message: str) -> NoReturn:
        hint = t("error.bad_usage_hint", command=self.prog)
        raise DrkunError("bad_usage", t("error.bad_usage", reason=message), hint, EXIT_BAD_INPUT)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number from 0 up: {text!r}")
    return int(text)


def _sizes(text: str) -> tuple[int, int]:
    """Billions of parameters, from and to, as millions; 0 where an end is open."""
    number = r"(\d{1,4}(?:\.\d{1,3})?)?"
    found = re.fullmatch(f"{number}-{number}", text)
    if not found or text == "-":
        raise argparse.ArgumentTypeError(f"no range such as 1-8 or 4-: {text!r}")
    least, most = (round(float(end or 0) * 1000) for end in found.groups())
    return least, most


def _fail(error: DrkunError, arguments: argparse.Namespace) -> int:
    # Imported late: what goes well needs no cleaning, and `drkun --version` no width tables.
    from drkun_tui.ui.typeset.sanitise import clean

    try:
        if arguments.json:
            print(json.dumps({"error": error.as_dict()}, ensure_ascii=False), flush=True)
        parts = (" ".join(clean(part).split()) for part in (error.message, error.hint) if part)
        print(f"drkun: {'  '.join(parts)}", file=sys.stderr)
    except BrokenPipeError:
        _fall_silent()
    return error.exit_code


def _fall_silent() -> None:
    """Whoever read us has enough; Python must not complain about the rest at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _speak_utf8() -> None:
    """Chinese must also come out of a pipe and in a C locale; a closed stream becomes an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # Lives as long as the program.
            setattr(sys, name, open(os.devnull, mode, encoding="utf8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf8", errors="replace")
