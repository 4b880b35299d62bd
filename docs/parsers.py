"""The directive `subcommand`: the help of a subcommand, from its parser; and links to files outside the manual."""

import io
import os
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
LINK = re.compile(r"(?<=\]\()([\w./-]+)(#[^)\s]*)?(?=\))")
INCLUDE = re.compile(r"^```{include} (\S+)\n```$", re.MULTILINE)
PICTURES = {".png", ".svg"}
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

    printed = io.StringIO()
    with (
        patch.object(ArgumentParser, "print_help", keep),
        redirect_stdout(printed),
        redirect_stderr(io.StringIO()),
        suppress(SystemExit),
    ):
        main([*subcommand.split(), "--help"])
    # Which classes anomalib happens to know fills a page each time.
    return re.sub(r",\s+known\s+subclasses:[^)]*(?=\))", "", found[0] if found else printed.getvalue())


class Subcommand(SphinxDirective):
    """```{subcommand} audit```: its help; without an argument that of `anomalib-medical` itself."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Make a block of text."""
        text = help_of(self.arguments[0] if self.arguments else "")
        if not text.startswith("usage:"):
            logger.warning("%s has no help: %r", self.arguments, text[:80], location=self.get_location())
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        return [block]


def read_source(app: Sphinx, name: str, content: list[str]) -> None:
    """Take in files of the repository, and let links that leave the manual lead to the repository."""
    page, manual = Path(app.env.doc2path(name)), Path(app.srcdir).resolve()

    def included(match: re.Match[str]) -> str:
        file = page.parent / match[1]
        return with_links(file.read_text(encoding="utf-8"), file.parent)

    def with_links(text: str, folder: Path) -> str:
        def target(match: re.Match[str]) -> str:
            path, anchor = (folder / match[1]).resolve(), match[2] or ""
            if not path.exists():
                logger.warning("%s links to %s, which is not there.", name, match[1])
            if path.suffix in PICTURES or (path.is_relative_to(manual) and path.suffix == ".md"):
                return os.path.relpath(path, page.parent) + anchor
            return FILES + path.relative_to(ROOT.resolve()).as_posix() + anchor

        return LINK.sub(target, text)

    # Not by MyST's own directive, which takes links for those of the page.
    content[0] = INCLUDE.sub(included, with_links(content[0], page.parent))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both."""
    app.add_directive("subcommand", Subcommand)
    app.connect("source-read", read_source)
    return {"parallel_read_safe": False}
