"""ComfyScript: the script that it makes of a prompt, run by its runtime, and the images of that. SERVER PROMPT FOLDER

What saves images has a result of its own in newer hosts, and is a comment in its script; here it is not.
"""
import sys
from pathlib import Path

from comfy_script import runtime
from comfy_script.transpile import WorkflowToScriptTranspiler

server, prompt, folder = sys.argv[1:]
script = WorkflowToScriptTranspiler(Path(prompt).read_text(), server).to_script().replace("# _ =", "_ =")
runtime.load(server)
from comfy_script.runtime import nodes  # noqa: E402  (there when it is loaded)

saved = []
with runtime.Workflow(wait=True):
    exec(script, vars(nodes) | {"SaveImage": lambda *inputs: saved.append(nodes.SaveImage(*inputs))})
for place, output in enumerate(saved):
    for turn, image in enumerate(output.wait().wait()):
        image.save(Path(folder, f"{place}-{turn}.png"))
# A type and a node of one name: the node has an underscore (docs/using.md).
assert type(nodes.ReadoutReference).__name__ != type(nodes.ReadoutReference_).__name__
print(nodes.ReadoutReference, nodes.ReadoutReference_)
