"""What is written for people points to what is there."""
import re

import pytest

import run
from readout_guidance_pack.nodes import NODES, heads
from tools import ROOT

heads.register_folder()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "web" / "docs").rglob("*.md"))]


def headings(text: str) -> set[str]:
    """As GitHub makes anchors of them."""
    return {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text(encoding="utf-8")), link


def test_commands_of_the_readme_exist():
    said = set(re.findall(r"python run\.py ([\w-]+)", (ROOT / "README.md").read_text()))
    assert said <= set(run.COMMANDS) and {"demo", "test", "evaluate", "bench", "serve"} <= said


def test_every_node_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    names = {node.define_schema().display_name.replace(" (Readout Guidance)", "") for node in NODES}
    assert not {name for name in names if name not in text}
