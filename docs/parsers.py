"""The directive `subcommand`: the help of a subcommand, from its parser; and links to files outside the manual."""

import io
import re
from argparse import SUPPRESS
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from docutils import nodes
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from anomalib_medical.cli.main import main

ROOT = Path(__file__).parents[1]
FILES = "https://github.com/anomalib-medical/anomalib-medical/blob/main/"
WIDTH = 100
# Lightning's own, explained by its manual, and nearly all of what `train --help` shows.
OTHERS = ("--trainer.", "--optimizer", "--lr_scheduler")
LINK = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]+)(#[^)\s]*)?(?=\))")
logger = logging.getLogger(__name__)


def help_of(subcommand: str) -> str:
    """What `anomalib-medical SUBCOMMAND --help` says, in plain text and without `OTHERS`."""
    found: list[str] = []

    def keep(parser: ArgumentParser, _file: object = None) -> None:
        for action in parser._actions:  # noqa: SLF001 - argparse has no other way to them
            if any(option.startswith(OTHERS) for option in action.option_strings):
                action.help = SUPPRESS
        parser.formatter_class = lambda prog: DefaultHelpFormatter(prog, width=WIDTH)
        found.append(parser.format_help())

    with patch.object(ArgumentParser, "print_help", keep), redirect_stdout(io.StringIO()), suppress(SystemExit):
        with redirect_stderr(io.StringIO()):
            main([*subcommand.split(), "--help"])
    # Which classes anomalib happens to know fills a page each time.
    return re.sub(r",\s+known\s+subclasses:[^)]*(?=\))", "", found[0])


class Subcommand(SphinxDirective):
    """```{subcommand} audit```: its help; without an argument that of `anomalib-medical` itself."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make a block of text."""
        text = help_of(self.arguments[0] if self.arguments else "")
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        return [block]


def link_to_repository(app: Sphinx, name: str, content: list[str]) -> None:
    """Let links that leave the manual, which work where the sources are read, lead to the repository."""
    here, manual = Path(app.env.doc2path(name)).parent, Path(app.srcdir).resolve()

    def target(match: re.Match[str]) -> str:
        path = (here / match[1]).resolve()
        if path.is_relative_to(manual) and path.suffix != ".ipynb":
            return match[0]
        if not path.exists():
            logger.warning("%s links to %s, which is not there.", name, match[1])
        return FILES + path.relative_to(ROOT.resolve()).as_posix() + (match[2] or "")

    content[0] = LINK.sub(target, content[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both."""
    app.add_directive("subcommand", Subcommand)
    app.connect("source-read", link_to_repository)
    return {"parallel_read_safe": False}
