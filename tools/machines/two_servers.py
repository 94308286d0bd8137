"""ComfyUI-Distributed and NetDist with this pack, on two real servers of this machine, on loopback:

    python -m tools.machines.two_servers --distributed FOLDER --netdist FOLDER

FOLDERs are copies of the two packs; the Python is that of .venv, with COMFYUI_PATH set to ComfyUI's folder. Each row is a guided graph that both
servers run: its images must be, pixel by pixel, those that one server makes of the same seeds. docs/machines.md has the table.
"""
import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
from PIL import Image

from tools import ROOT
from tools.host.server import Server

HOME = ROOT / ".cache" / "machines"
SEED, LIMIT = 4, 300  # seconds of a run
WORKER = "1"          # its id; the seed node of ComfyUI-Distributed gives the first worker the next seed
SHARE = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.9}
SAMPLING = {"steps": 6, "cfg": 3.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0}
DRAGS = "[[[0.3, 0.4], [0.6, 0.5]]]"
Prompt = dict[str, dict]


def node(kind: str, /, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def base() -> Prompt:
    """Model, words, an empty latent, a scene, and the guided sampler; numbers are the ids, which NetDist needs."""
    words = {"positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    return {"1": node("LoadReadoutDemoModel"), "2": node("CLIPTextEncode", clip=["1", 1], text="a figure in a red shirt, sea"),
            "3": node("CLIPTextEncode", clip=["1", 1], text=""), "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "5": node("ReadoutDemoScene", seed=5, width=64, height=64, batch_size=1),
            "20": node("KSamplerReadoutGuidance", model=["1", 0], seed=SEED, strength=0.1, guidance=["10", 0], **SAMPLING, **words),
            "21": node("VAEDecode", samples=["20", 0], vae=["1", 2])}


def head(kind: str) -> dict:
    return node("LoadReadoutHead", head_name=f"demo_{kind}.safetensors")


def pose() -> Prompt:
    return base() | {"6": head("pose"), "10": node("ReadoutPoseTarget", head=["6", 0], image=["5", 1], **SHARE)}


def depth() -> Prompt:
    return base() | {"6": head("depth"), "10": node("ReadoutDepthTarget", head=["6", 0], image=["5", 2], **SHARE)}


def drag() -> Prompt:
    """With the reference in the same graph, from the same seed."""
    made = base()
    words = {name: made["20"]["inputs"][name] for name in ("positive", "negative", "latent_image")}
    return made | {"7": node("KSamplerReadoutReference", model=["1", 0], seed=SEED, cache_mb=64, **SAMPLING, **words),
                   "10": node("ReadoutDragTarget", reference=["7", 1], drags=DRAGS, **SHARE)}


def appearance() -> Prompt:
    return base() | {"7": node("VAEEncode", pixels=["5", 0], vae=["1", 2]),
                     "8": node("ReadoutReference", model=["1", 0], positive=["2", 0], latent=["7", 0], seed=3, cache_mb=64),
                     "10": node("ReadoutAppearanceTarget", reference=["8", 0], **SHARE | {"weight": 0.05})}


def fitted() -> Prompt:
    """A head that each server fits for itself."""
    return base() | {"6": node("ReadoutDemoScene", seed=9, width=64, height=64, batch_size=8), "7": node("VAEEncode", pixels=["6", 0], vae=["1", 2]),
                     "8": node("FitReadoutHead", model=["1", 0], latents=["7", 0], positive=["2", 0], image=["6", 2], kind="depth", seed=0),
                     "10": node("ReadoutDepthTarget", head=["8", 0], image=["5", 2], **SHARE)}


CASES: dict[str, Callable[[], Prompt]] = {"pose": pose, "depth": depth, "drag with its reference": drag, "appearance of a reference": appearance,
                                          "a head fitted in the graph": fitted}


def seeded(prompt: Prompt, seed) -> Prompt:
    """All samplers by one `seed`, a number or a link."""
    for each in prompt.values():
        if each["class_type"].startswith("KSampler"):
            each["inputs"]["seed"] = seed
    return prompt


def saved(server: Server, outputs: dict, name: str = "30") -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in server.files(outputs).get(name, [])]


def alone(server: Server, prompt: Prompt, seed: int) -> np.ndarray:
    """What one server makes of it."""
    prompt = seeded(deepcopy(prompt), seed) | {"30": node("SaveImage", images=["21", 0], filename_prefix="alone")}
    image, = saved(server, server.run(prompt))
    return image


def finished(server: Server, prompt_id: str) -> dict:
    """The outputs of a prompt that somebody else has queued."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        found = server.get(f"/history/{prompt_id}").get(prompt_id)
        if found and found["status"]["completed"]:
            return found["outputs"]
        if found and found["status"]["status_str"] == "error":
            raise RuntimeError(f"a run failed: {json.dumps(found['status']['messages'][-1])[:600]}")
        time.sleep(0.5)
    raise RuntimeError(f"a run took more than {LIMIT} seconds")


def distributed(master: Server, prompt: Prompt, seed_node: bool) -> list[np.ndarray]:
    """By ComfyUI-Distributed: the master's image, and then the worker's; by its seed node each has a seed of its own."""
    prompt = seeded(deepcopy(prompt), ["40", 0] if seed_node else SEED)
    if seed_node:
        prompt["40"] = node("DistributedSeed", seed=SEED)
    prompt |= {"29": node("DistributedCollector", images=["21", 0], load_balance=False),
               "30": node("SaveImage", images=["29", 0], filename_prefix="distributed")}
    queued = master.post("/distributed/queue", {"prompt": prompt, "client_id": master.client, "enabled_worker_ids": [WORKER],
                                                "delegate_master": False})
    if queued["worker_count"] != 1:
        raise RuntimeError("the worker did not take part")
    return saved(master, finished(master, queued["prompt_id"]))


def net_dist(master: Server, worker: Server, prompt: Prompt) -> list[np.ndarray]:
    """By NetDist: the image made here, and the one made there, of the next seed."""
    prompt = seeded(deepcopy(prompt), ["40", 0])
    prompt |= {"40": node("RemoteQueueSimple", remote_url=worker.address, batch_local=1, batch_remote=1, trigger="on_change", enabled="true",
                          seed=SEED),
               "30": node("SaveImage", images=["21", 0], filename_prefix="here"),
               "41": node("FetchRemote", final_image=["21", 0], remote_info=["40", 2]),
               "31": node("SaveImage", images=["41", 0], filename_prefix="there")}
    outputs = master.run(prompt)
    return saved(master, outputs) + saved(master, outputs, "31")


def servers(packs: list[Path]) -> list[Server]:
    """Two, each with copies of the packs, for these write files of their own into their folders."""
    found = []
    for name in ("master", "worker"):
        home, nodes = HOME / name, []
        for pack in packs:
            copy = HOME / f"{name}_packs" / pack.name
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(pack, copy)
            nodes.append(copy)
        found.append(Server(home / "output", home, nodes))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distributed", type=Path, help="a copy of ComfyUI-Distributed")
    parser.add_argument("--netdist", type=Path, help="a copy of ComfyUI_NetDist")
    options = parser.parse_args()
    packs = [pack.resolve() for pack in (options.distributed, options.netdist) if pack]
    if not packs:
        parser.error("give a copy of at least one of the two packs")
    os.environ["OMP_NUM_THREADS"] = "1"  # with more, two servers on two cores take six times as long
    master, worker = servers(packs)
    if options.distributed:
        port = int(worker.address.rsplit(":", 1)[1])
        about = {"id": WORKER, "name": "worker", "host": "127.0.0.1", "port": port, "enabled": True, "type": "remote"}
        config = master.extra_nodes[packs.index(options.distributed.resolve())] / "gpu_config.json"
        config.write_text(json.dumps({"master": {"host": "127.0.0.1"}, "workers": [about]}))
    failed = []
    with master, worker:
        for label, case in CASES.items():
            prompt = case()
            made = {seed: alone(master, prompt, seed) for seed in (SEED, SEED + 1)}
            rows = {}
            if options.distributed:
                rows["ComfyUI-Distributed, one seed"] = distributed(master, prompt, False), [SEED, SEED]
                rows["ComfyUI-Distributed, its seed node"] = distributed(master, prompt, True), [SEED, SEED + 1]
            if options.netdist:
                rows["NetDist"] = net_dist(master, worker, prompt), [SEED, SEED + 1]
            for way, (images, seeds) in rows.items():
                same = [bool(np.array_equal(image, made[seed])) for image, seed in zip(images, seeds)]
                print(f"{label}, {way}: {len(images)} images, pixels as of one server: {same}", flush=True)
                failed += [] if same == [True, True] else [f"{label}, {way}"]
    print("not so: " + "; ".join(failed) if failed else "all as of one server")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
