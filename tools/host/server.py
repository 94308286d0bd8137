"""A real ComfyUI server in a process of its own, with the pack as a custom node and every file it writes under .cache."""
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tools import ROOT
from tools.assets.workflow import to_api

START_SECONDS = 240
PACK_FOLDER = "readout-guidance"


class WorkflowFailed(RuntimeError):
    """A workflow that the server refused or could not finish. `node` is the class of the node that failed, if one did."""

    def __init__(self, message: str, node: str | None = None):
        super().__init__(message)
        self.node = node


class Server:
    """Use as a context manager: `with Server(output) as server: server.run(workflow)`. `pack` stands among its custom nodes by the name `folder`,
    beside `extra_nodes`, which are files or folders. `port` 0 is a free one; raises OSError for one that is taken."""

    def __init__(self, output: Path, home: Path = ROOT / ".cache" / "server", extra_nodes: Sequence[Path] = (), pack: Path = ROOT,
                 folder: str = PACK_FOLDER, port: int = 0):
        self.output, self.home, self.extra_nodes, self.pack, self.folder = output, home, extra_nodes, pack, folder
        with socket.socket() as free:
            if os.name == "posix":
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that a server has just left is free
            free.bind(("127.0.0.1", port))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.client = uuid.uuid4().hex

    def __enter__(self) -> "Server":
        import torch
        nodes = self.home / "custom_nodes"
        shutil.rmtree(nodes, ignore_errors=True)
        for folder in (nodes, self.output, self.home / "models" / "readout_heads", self.home / "input"):
            folder.mkdir(parents=True, exist_ok=True)
        os.symlink(self.pack, nodes / self.folder, target_is_directory=True)
        for path in self.extra_nodes:
            os.symlink(path, nodes / path.name, target_is_directory=path.is_dir())
        self.log = (self.home / "server.log").open("w+")
        command = [sys.executable, Path(os.environ["COMFYUI_PATH"]) / "main.py", "--base-directory", self.home,
                   "--output-directory", self.output, "--port", self.address.rsplit(":", 1)[1], "--disable-auto-launch",
                   "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        self.process = subprocess.Popen(command + ([] if torch.cuda.is_available() else ["--cpu"]), cwd=self.home,
                                        stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            self.wait_for_start()
        except BaseException:  # a signal that stops the caller too
            self.__exit__()
            raise
        return self

    def wait_for_start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/system_stats")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"ComfyUI did not start; its last words:\n{self.last_words()}") from None
                time.sleep(0.3)

    def __exit__(self, *_exception) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.flush()

    def last_words(self, lines: int = 30) -> str:
        return "\n".join((self.home / "server.log").read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.address + path, timeout=30) as reply:
            return json.load(reply)

    def post(self, path: str, content: dict) -> dict:
        request = urllib.request.Request(self.address + path, json.dumps(content).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise WorkflowFailed(error.read().decode()) from None

    def run(self, workflow: dict, progress=lambda node, done, total: None) -> dict:
        """Runs a workflow, in the frontend's format or the API's, to its end; returns its outputs by node id.

        `progress(class of the node, step, steps)` is called while it runs. Raises WorkflowFailed.
        """
        prompt = to_api(workflow, self.get("/object_info")) if "nodes" in workflow else workflow
        return asyncio.run(self._run(prompt, progress))

    async def _run(self, prompt: dict, progress) -> dict:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{self.address}/ws?clientId={self.client}", max_msg_size=0) as socket_:
                queued = await asyncio.to_thread(self.post, "/prompt", {"prompt": prompt, "client_id": self.client})
                await self._follow(socket_, prompt, queued["prompt_id"], progress)
        return (await asyncio.to_thread(self.get, f"/history/{queued['prompt_id']}"))[queued["prompt_id"]]["outputs"]

    async def _follow(self, socket_, prompt: dict, prompt_id: str, progress) -> None:
        async for message in socket_:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            content = json.loads(message.data)
            kind, data = content["type"], content.get("data", {})
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "progress":
                progress(prompt[data["node"]]["class_type"], data["value"], data["max"])
            elif kind == "execution_error":
                raise WorkflowFailed(f"{data['node_type']}: {data['exception_message'].strip()}", data["node_type"])
            elif kind == "execution_interrupted":
                raise WorkflowFailed("interrupted", data.get("node_type"))
            elif kind == "executing" and data["node"] is None:  # sent last, when the history has the outputs
                return
        raise WorkflowFailed(f"the server closed the connection; its last words:\n{self.last_words()}")

    def files(self, outputs: dict) -> dict[str, list[Path]]:
        """The images that a run saved, by the id of the node that saved them."""
        return {node: [self.output / image["subfolder"] / image["filename"] for image in output["images"]]
                for node, output in outputs.items() if any(i.get("type") == "output" for i in output.get("images", ()))}
