"""What depends on the folder that the pack is installed in."""
import re
from collections.abc import Iterable
from pathlib import Path

import nodes as host_nodes
from aiohttp import web

from ..common.log import log

PACK = Path(__file__).parents[2]
PLACES = {"extensions": PACK / "web", "workflow_templates": PACK / "workflows"}  # by where the page looks for them


def warn_of_another(nodes: Iterable[str]) -> None:
    """The host takes each node from the pack that it loads last, and says nothing of it."""
    other = next((host_nodes.NODE_CLASS_MAPPINGS[node] for node in nodes if node in host_nodes.NODE_CLASS_MAPPINGS), None)
    if other:
        log.warning("Readout Guidance is installed twice, as %s and as custom_nodes.%s. ComfyUI mixes the two, which fails if their versions differ. "
                    "Remove one of the two folders and restart ComfyUI.",
                    getattr(other, "RELATIVE_PYTHON_MODULE", "another pack"), PACK.name)


def serve_files(folder: str = PACK.name) -> None:
    """Has the host serve web/ and workflows/ under names of the pack's folder that its own routes do not find.

    Those are static routes of aiohttp, which find no name that addresses must quote, such as one with a space (aiohttp's issue 13433; 3.14.5 has
    it). And the page asks for help only by what is before the first dot or @ of the name. Where the host's own routes find a file, they come first.
    """
    if re.fullmatch(r"[\w-]+", folder, re.ASCII):
        return
    from server import PromptServer
    for name in filter(None, {folder, re.split("[.@]", folder)[0]}):
        # By numbers, because braces mean something in routes; and a % is still quoted where routes are looked for.
        exactly = "".join(f"\\U{ord(letter):08x}" for letter in name.replace("%", "%25"))
        for place, files in PLACES.items():
            PromptServer.instance.routes.get(f"/{place}/{{folder:{exactly}}}/{{path:.+}}")(answer_from(files))


def answer_from(files: Path):
    async def answer(request: web.Request) -> web.FileResponse:
        path = (files / request.match_info["path"]).resolve()
        if not path.is_relative_to(files.resolve()) or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)
    return answer
