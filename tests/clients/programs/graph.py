"""comfyui-autograph: its own conversion of a workflow as the page saves it, and the images of that. SERVER WORKFLOW FOLDER"""
import sys
from pathlib import Path

from autograph import Flow

server, workflow, folder = sys.argv[1:]
prompt = Flow(workflow, server_url=server).convert(server_url=server)
Path(folder, "prompt.json").write_text(prompt.to_json())
for image in prompt.submit(server_url=server, wait=True).fetch_images():
    if image["ref"]["type"] == "output":
        Path(folder, image["ref"]["filename"]).write_bytes(image["bytes"])
