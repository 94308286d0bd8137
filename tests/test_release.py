"""What is published: the archive's files, and when the release workflow refuses."""
import ast
import re
from collections import Counter

import pytest
import tomllib
import yaml

from tools import ROOT, release

PYPROJECT = (ROOT / "pyproject.toml").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
READY = tomllib.loads(PYPROJECT.replace("[tool.comfy]", """[project.urls]
Repository = "https://github.com/o/r"
Issues = "https://github.com/o/r/issues"
[tool.comfy]
PublisherId = "o"
Icon = "https://o/i.png\"""", 1))


def test_the_archive_holds_what_a_user_needs_and_nothing_else():
    files = release.archive()
    assert {name for name in files if "/" not in name} == {"CHANGELOG.md", "LICENSE", "README.md", "__init__.py", "pyproject.toml"}
    assert set(Counter(name.split("/")[0] for name in files if "/" in name)) == {"docs", "heads", "locales", "nodes", "rg_core", "subgraphs", "web",
                                                                                 "workflows"}
    assert not [name for name in files if name.startswith(("tests", "tools", "."))]
    code = {str(path.relative_to(ROOT)) for folder in ("heads", "nodes", "rg_core", "web") for path in (ROOT / folder).rglob("*.[pj][ys]")}
    assert code <= set(files)
    assert sum((ROOT / name).stat().st_size for name in files) < 33e6


def test_windows_takes_all_names_of_the_archive():
    files = release.archive()
    assert all(name.isascii() and len(name) < 100 and not set(name) & set('<>:"\\|?*') for name in files)
    assert len({name.lower() for name in files}) == len(files)
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[. ]| .*", re.I)
    assert not [part for name in files for part in name.split("/") if reserved.fullmatch(part)]


def test_nothing_of_the_archive_imports_what_is_left_out():
    for name in release.archive():
        if name.endswith(".py"):
            modules = [node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]
            named = {part for node in modules for alias in node.names for part in f"{getattr(node, 'module', None) or ''}.{alias.name}".split(".")}
            assert not named & {"tools", "tests"}, name


def test_a_release_wants_what_only_the_owner_can_say():
    found = release.problems(tomllib.loads(PYPROJECT), CHANGELOG)
    assert [problem.split(":")[0] for problem in found] == ["pyproject.toml does not say [tool.comfy] PublisherId",
                                                            "pyproject.toml does not say [tool.comfy] Icon",
                                                            "pyproject.toml does not say [project.urls] Repository",
                                                            "pyproject.toml does not say [project.urls] Issues"]
    version = READY["project"]["version"]
    assert not release.problems(READY, CHANGELOG, f"v{version}")


@pytest.mark.parametrize("changelog, tag, said", [("# Changes\n", None, "CHANGELOG.md begins with no version"),
                                                  ("## 0.0.1\n", None, "CHANGELOG.md begins with 0.0.1"),
                                                  (CHANGELOG, "v9.9.9", "the tag is v9.9.9")])
def test_a_release_of_another_version_is_refused(changelog, tag, said):
    found = release.problems(READY, changelog, tag)
    assert len(found) == 1 and found[0].startswith(said)


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["feature", "problem"])
def test_the_forms_for_issues_can_be_read(name):
    """As GitHub reads them, which shows no form whose file it cannot read."""
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"] and len(form["body"]) == 4
    for field in form["body"]:
        texts = [field["attributes"]["label"], field["attributes"].get("description", "")]
        assert field["type"] in ("textarea", "checkboxes") and all(isinstance(text, str) for text in texts)
    assert all(isinstance(option["label"], str) for option in form["body"][-1]["attributes"]["options"])
    assert read(".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": True}


def test_the_citation_has_the_version_and_license_of_the_pack():
    project, citation = tomllib.loads(PYPROJECT)["project"], read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"cff-version", "title", "message", "authors", "preferred-citation"} <= set(citation)
    assert all(citation["preferred-citation"][field] for field in ("type", "title", "authors", "year", "url"))


def test_the_workflows_can_be_read():
    """As GitHub reads them, which runs no workflow whose file it cannot read."""
    publish = read(".github/workflows/publish.yml")
    assert publish[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 takes `on` for true
    tests = read(".github/workflows/tests.yml")
    assert tests[True] == {"push": {"branches": ["main"]}, "pull_request": None} and tests["jobs"]["tests"]["steps"][-1]["run"] == ".ci/run"
    assert "python tools/release.py" in publish["jobs"]["publish"]["steps"][2]["run"]
