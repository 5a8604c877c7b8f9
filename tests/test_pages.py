"""README and docs: what they name is there."""

import re
from pathlib import Path

import pytest

from circlet.training.recipe import built_in_recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_recipes_of_a_page(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for recipe in re.findall(r"circlet (?:train|sweep) ([a-z][a-z0-9_]*)(?![\w./-])", text):
        assert recipe in built_in_recipes(), recipe
    assert not re.search(r"@[A-Z]+@", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_that_links_point_to(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        other = page if not target else page.parent / target
        headings = re.findall(r"^#+ (.*)$", other.read_text(), flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
        assert heading in slugs, (target, heading)
