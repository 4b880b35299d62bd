"""`anomalib-medical`: our subcommands, and anomalib's with our classes registered; honest exit codes.

This file imports neither torch nor anomalib, nor does a subcommand's before it runs: their help comes at once.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from jsonargparse import Namespace

import anomalib_medical
from anomalib_medical.allocator import keep_freed_memory
from anomalib_medical.cli.guides import ANOMALIB, guide
from anomalib_medical.cli.output import console
from anomalib_medical.cli.parser import PROGRAM, CommandParser
from anomalib_medical.errors import MedicalError, is_user_error, user_message

# Ours: each a module beside this one with a DESCRIPTION, `add_arguments(parser)`, and `run(arguments)`, which gives the
# exit code; one with OWN_CONFIG declares a --config of its own.
COMMANDS = ("quickstart", "audit", "benchmark", "bundle", "configs", "report", "retarget")
DEBUG_VARIABLE = "ANOMALIB_MEDICAL_DEBUG"
_HELP = frozenset({"-h", "--help"})
# With --help anomalib's options, all or the most used.
_MORE = frozenset({"-v", "-vv", "--verbose"})
_OPTIONS = {
    "--version": "Show the versions of anomalib-medical and anomalib.",
    "--verbose": "With any command: show all that libraries say, and the model's layers.",
    "--debug": f"With any command: show the traceback of every error (or set {DEBUG_VARIABLE}=1).",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, by default the process's arguments; exits with the code, if it is not 0."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments or os.environ.get(DEBUG_VARIABLE, "0") not in {"", "0"}
    arguments = [argument for argument in arguments if argument != "--debug"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files that are no text would end a command that prints them; stderr is so by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    try:
        with console(verbose="--verbose" in arguments):
            code = _run(arguments)
    except Exception as error:
        if debug or not is_user_error(error):
            raise
        print(f"error: {user_message(error)}\n(the traceback: --debug)", file=sys.stderr)
        raise SystemExit(1) from None
    if code:
        raise SystemExit(code)


def _run(arguments: Sequence[str]) -> int:
    verbose = "--verbose" in arguments
    first, *rest = [argument for argument in arguments if argument != "--verbose"] or ["--help"]
    asks_help = not _HELP.isdisjoint(rest)
    if first in _HELP or first == "--version":
        print(_versions() if first == "--version" else _overview())
        raise SystemExit(0 if arguments else 2)
    if first in COMMANDS:
        command = _module(first)
        return int(command.run(_parse(first, command, rest, only_help=asks_help)))
    if first in ANOMALIB and asks_help and _MORE.isdisjoint(arguments):
        print(guide(first))
        raise SystemExit(0)
    if first not in ANOMALIB and not first.startswith("-"):
        names = (*COMMANDS, *ANOMALIB)
        close = difflib.get_close_matches(first, names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(names)}."
        msg = f"There is no command {first!r}. {hint}"
        raise MedicalError(msg)
    from anomalib_medical.cli.anomalib_commands import MedicalCLI
    from anomalib_medical.cli.ending import ending

    if last := ending(MedicalCLI([first, *rest], verbose=verbose)):
        print(f"\n{last}")
    return 0


def _module(name: str) -> ModuleType:
    return import_module(f"anomalib_medical.cli.{name}")


def _parse(name: str, command: ModuleType, arguments: Sequence[str], *, only_help: bool) -> Namespace:
    parser = CommandParser(prog=f"{PROGRAM} {name}", description=command.DESCRIPTION, only_help=only_help)
    if not getattr(command, "OWN_CONFIG", False):
        parser.add_config_option()
    command.add_arguments(parser)
    return parser.parse_args(list(arguments))


def _versions() -> str:
    return f"{PROGRAM} {anomalib_medical.__version__}, anomalib {version('anomalib')}"


def _overview() -> str:
    ours = {name: _module(name).DESCRIPTION for name in COMMANDS}
    groups = {"Commands:": ours, "anomalib's commands, with our models and data:": ANOMALIB, "Options:": _OPTIONS}
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "Medical anomaly detection with anomalib."]
    for title, entries in groups.items():
        lines += ["", title]
        for name, text in entries.items():
            lines += textwrap.wrap(text, 100, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help explains a command."])
