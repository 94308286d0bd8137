"""Whether this version can be published, and what is in the registry's archive: `python tools/release.py [TAG]`.

Needs nothing but Python and git; the release workflow runs it before it publishes anything, because the registry keeps a version for good.
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
# What only whoever publishes can say.
WANTED = {"PublisherId": ("tool", "comfy", "PublisherId"), "Icon": ("tool", "comfy", "Icon"), "Repository": ("project", "urls", "Repository"),
          "Issues": ("project", "urls", "Issues")}


def missing(pyproject: dict) -> list[str]:
    """What pyproject.toml does not say yet, as [section] name."""
    found = []
    for name, path in WANTED.items():
        place = pyproject
        for part in path:
            place = place.get(part, {}) if isinstance(place, dict) else {}
        if not isinstance(place, str) or not place.strip():
            found.append(f"[{'.'.join(path[:-1])}] {name}")
    return found


def problems(pyproject: dict, changelog: str, tag: str | None = None) -> list[str]:
    """Why this version should not be published, in words; nothing if it can be."""
    version, told = pyproject["project"]["version"], re.search(r"^## (\d+\.\d+\.\d+)", changelog, re.M)
    found = [f"pyproject.toml does not say {name}: CONTRIBUTING.md, Publishing." for name in missing(pyproject)]
    if not told or told[1] != version:
        found.append(f"CHANGELOG.md begins with {told[1] if told else 'no version'}, and pyproject.toml says {version}.")
    if tag and tag != f"v{version}":
        found.append(f"the tag is {tag}, and pyproject.toml says {version}: it should be v{version}.")
    return found


def archive() -> list[str]:
    """The files that are in the registry's archive: those that git knows, less what .comfyignore names (comfy-cli's `comfy node pack`)."""
    def listed(*options: str) -> set[str]:
        command = ["git", "ls-files", "-z", "--cached", *options]
        return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"))

    return sorted(listed() - listed("--ignored", "--exclude-from=.comfyignore"))


def unpack(folder: Path) -> Path:
    """Copies the archive's files to `folder`, as an installation does."""
    for name in archive():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def main() -> int:
    found = problems(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
                     sys.argv[1] if len(sys.argv) > 1 else None)
    print("\n".join(f"release: {problem}" for problem in found) or "release: ready")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
