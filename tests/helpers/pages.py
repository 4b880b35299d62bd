"""The Markdown files that people read, their links, and the commands in them that are marked as runnable.

A block after `<!-- run -->` runs as it stands; after `<!-- run after s/old/new/ -->` with that replaced, so that a
training of hours takes seconds: what people read is what they should type, and what is changed stands beside it. A
block after `<!-- file NAME -->` is written to that file.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts),
    *sorted((ROOT / "anomalib_medical").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
_BLOCK = re.compile(
    r"^<!-- (?:run|file (?P<file>\S+))(?: after s/(?P<old>[^/\n]+)/(?P<new>[^/\n]+)/)? -->\n"
    r"```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|\[`[^`]*`\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r"^```{include} (\S+)\n```$", re.MULTILINE)


class Block(NamedTuple):
    language: str  # bash or python
    text: str  # what runs
    file: str | None  # or what is written to this file


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The blocks to run, one after another in one folder."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        block = match["text"]
        if match["old"]:
            assert match["old"] in block, f"{name_of(page)}: {match['old']!r} is not in the block after its mark"
            block = block.replace(match["old"], match["new"])
        found.append(Block(match["language"], block, match["file"]))
    assert len(found) == text.count("\n<!-- run") + text.count("\n<!-- file"), (
        f"{name_of(page)}: a mark stands before no block"
    )
    return found


def links_of(page: Path) -> list[str]:
    """Targets of links and pictures that are no addresses."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = [first or second for first, second in _LINK.findall(text)]
    return [each for each in targets if not re.match(r"\w+:", each)]


def anchors_of(page: Path) -> set[str]:
    """Anchors of headings, as GitHub and the manual make them; an included file's too."""
    text = page.read_text(encoding="utf-8")
    text = _INCLUDE.sub(lambda match: (page.parent / match[1]).read_text(encoding="utf-8"), text)
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
