"""What is written for people points to what is there."""
import json
import re
from collections import Counter

import pytest
from PIL import Image

import run
from readout_guidance_pack.nodes import NODES
from readout_guidance_pack.nodes.make_heads import load_save
from tools import ROOT, evaluate

load_save.register_folder()
HELP = ROOT / "web" / "docs"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / ".github").rglob("*.md")), *DOCS, *sorted(HELP.rglob("*.md"))]

WITHOUT_IMAGE = {"ApplyReadoutGuidanceRay"}  # all that it is connected to is of another pack, without which no page draws it


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
        # The page of a node is shown as if it stood in web/docs, whatever its language.
        folder = HELP if HELP in page.parents else page.parent
        target = folder / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text(encoding="utf-8")), link


def commands(page: str) -> set[str]:
    return set(re.findall(r"python run\.py ([\w-]+)", (ROOT / page).read_text(encoding="utf-8")))


def test_commands_exist_and_each_is_listed():
    readme, listed = commands("README.md"), commands("CONTRIBUTING.md")
    assert {"demo", "test", "serve"} <= readme <= listed == set(run.COMMANDS)
    assert set().union(*(commands(page.relative_to(ROOT)) for page in DOCS)) <= listed


def test_each_table_of_evaluate_is_listed():
    row, = (line for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `python run.py evaluate"))
    assert set(re.findall(r"`--(\w+)`", row)) == set(evaluate.TABLES)


def test_every_node_has_its_place_in_the_list():
    cells = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8"), re.M)
    listed = Counter(name for cell in cells for name in cell.split(", ") if name != "node") | Counter(cell for cell in cells if "(" in cell)
    assert not [name for name in (node.define_schema().display_name for node in NODES) if listed[name] != 1]


def test_the_readme_has_every_template():
    named = set(re.findall(r"\*([^*|]+)\*", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert not {path.stem for path in (ROOT / "workflows").glob("*.json")} - named


def test_the_index_has_every_page_of_the_docs():
    linked = set(re.findall(r"\]\(([\w/]+\.md)\)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.relative_to(ROOT / "docs").as_posix() for page in DOCS} - {"README.md"}


def parts(text: str) -> dict:
    """What a translation must have too."""
    return {"headings": re.findall(r"^#+ ", text, re.M), "items": len(re.findall(r"^ *- ", text, re.M)),
            "rows": [line.count("|") for line in text.splitlines() if line.startswith("|")], "pictures": re.findall(r"\]\((pictures/.*?)\)", text),
            "code": sorted(re.findall(r"`[^`]+`", text))}


@pytest.mark.parametrize("language", sorted(path.name for path in (ROOT / "locales").iterdir()))
@pytest.mark.parametrize("page", sorted(HELP.glob("*.md")), ids=lambda page: page.stem)
def test_help_says_the_same_in_every_language(page, language):
    said, translated = (path.read_text(encoding="utf-8") for path in (page, HELP / page.stem / f"{language}.md"))
    assert parts(translated) == parts(said)
    numbers = [Counter(re.findall(r"\d+(?:\.\d+)?", text)) for text in (said, translated)]
    assert not numbers[0] - numbers[1]  # some languages write a digit where English has a word


@pytest.mark.parametrize("page", sorted(page for page in HELP.glob("*.md") if page.stem not in WITHOUT_IMAGE), ids=lambda page: page.stem)
def test_help_has_an_image_that_is_a_workflow_with_the_node(page):
    image, = parts(page.read_text(encoding="utf-8"))["pictures"]
    assert page.stem in {node["type"] for node in json.loads(Image.open(HELP / image).text["workflow"])["nodes"]}
