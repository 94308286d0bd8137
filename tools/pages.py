"""`python run.py raise-page`: the newest page on PyPI becomes the newest in pages.json. The browser tests are then to be run on it."""
import json
import re
import subprocess
import sys

from tools import ROOT

PAGES = ROOT / "pages.json"


def newest() -> str:
    listed = subprocess.run([sys.executable, "-m", "pip", "index", "versions", "comfyui-frontend-package"], check=True, capture_output=True,
                            text=True).stdout
    return re.search(r"\((\d+(?:\.\d+)+)\)", listed)[1]


def main() -> None:
    pages = json.loads(PAGES.read_text())
    before, pages["newest"] = pages["newest"], newest()
    PAGES.write_text(json.dumps(pages, indent=1) + "\n")
    print(f"The newest page is {pages['newest']}" + (", as before." if before == pages["newest"] else f"; it was {before}. Now run: "
          "COMFYUI_FRONTEND=newest python run.py test tests/browser"))


if __name__ == "__main__":
    main()
