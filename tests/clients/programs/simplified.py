"""comfy-api-simplified: the images of the outputs with these titles. SERVER WORKFLOW FOLDER TITLE ..."""
import sys
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

server, workflow, folder, *titles = sys.argv[1:]
for title in titles:
    for name, content in ComfyApiWrapper(server).queue_and_wait_images(ComfyWorkflowWrapper(workflow), title).items():
        Path(folder, name).write_bytes(content)
