"""Every link inside the README, the manual and the results leads somewhere."""

import pytest

from tests.helpers.pages import PAGES, ROOT, anchors_of, links_of, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page):
    broken = []
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            broken.append(target)
    assert not broken


def test_links_are_found_and_broken_ones_too(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `code` heading\n[a](other.md#x) [`b`](c.md) ![p](p.png) [w](https://x.y)\n```\n[no](n.md)\n```\n"
    )
    assert links_of(page) == ["other.md#x", "c.md", "p.png"]
    assert anchors_of(page) == {"one-code-heading"}


def test_the_manual_lists_every_page():
    listed = (ROOT / "docs/index.md").read_text()
    pages = [
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in PAGES
        if path.is_relative_to(ROOT / "docs")
    ]
    assert [page for page in pages if page != "index" and f"\n{page}\n" not in listed] == []
