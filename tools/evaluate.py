"""Control over many seeds, guided against unguided: `python run.py evaluate [--seeds N] [--json FILE] [--moves] [--estimates]`.

Targets are scenes of the demo world, prompts those of other scenes, so that shape comes from the target and colour from
the text. Everything runs through the pack's nodes and the host's sampling code; the judge uses no network.
"""
import argparse
import importlib
import json
import time
from dataclasses import dataclass

import torch

from tools.host import load_pack

CONTROLS = {"pose": ("pose",), "depth": ("depth",), "edge": ("edge",), "pose+depth": ("pose", "depth")}
STEPS, CFG, SAMPLER, SCHEDULER = 20, 3.0, "dpmpp_2m", "karras"
BATCH = 16
TABLES = {"relations": "drag, appearance, identity and inversion", "moves": "the move's form and size, for pose",
          "samplers": "every sampler and scheduler, for pose", "precisions": "fp32, bf16 and fp16",
          "presets": "the published preset beside the default", "estimates": "what Readout Estimate reads, by noise level"}
SCENE_SEED, PROMPT_SEED, NOISE_SEED = 1000, 2000, 3000


@dataclass(frozen=True)
class Setting:
    """One way to sample; None as `move` means unguided."""
    move: object = None
    end: float = 0.5
    steps: int = STEPS
    sampler: str = SAMPLER
    scheduler: str = SCHEDULER


class Bench:
    """The demo model, its heads and a number of scenes of one size."""

    def __init__(self, seeds: int, height: int = 64, width: int = 64):
        self.pack = load_pack().__name__
        world = self.module("heads.demo.world")
        self.judge, self.guide, self.engine = (self.module(m) for m in ("heads.demo.judge", "nodes.guide", "nodes.engine"))
        demo, heads = self.module("heads.demo"), self.module("heads")
        self.host = importlib.import_module("nodes")
        self.scene = world.draw(seeds, height, width, seed=SCENE_SEED)
        self.said = world.draw(seeds, height, width, seed=PROMPT_SEED)
        self.heads = {kind: heads.load_head(demo.HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("pose", "depth", "edge")}
        draw_pose = self.module("rg_core.pictures").draw_pose
        skeleton = draw_pose(self.scene.keypoints[:, None], (height * 8, width * 8), (height, width))
        self.images = {"pose": skeleton.movedim(1, -1)} | {
            kind: x[..., None].expand(-1, -1, -1, 3) for kind, x in
            (("depth", self.scene.nearness), ("edge", world.edges(self.scene.image)))}
        with torch.inference_mode():
            self.model, self.clip, self.vae = self.module("nodes.demo_model").load_demo()
            clip = self.clip
            said = [clip.encode_from_tokens_scheduled(clip.tokenize(p))[0][0] for p in self.said.prompts()]
            self.said_context = torch.cat(said)
            self.negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        self.seeds, self.size = seeds, (height, width)

    def module(self, name: str):
        return importlib.import_module(f"{self.pack}.{name}")

    def guidance(self, kinds: tuple[str, ...], end: float, part: slice) -> tuple:
        nodes = self.module("nodes.targets")
        make = {"pose": nodes.PoseTarget, "depth": nodes.DepthTarget, "edge": nodes.EdgeTarget}
        chain = None
        for kind in kinds:
            chain = make[kind].execute(head=self.heads[kind], image=self.images[kind][part], weight=1.0, start_percent=0.0,
                                       end_percent=end, guidance=chain)[0]
        return chain

    @torch.inference_mode()
    def sample(self, kinds: tuple[str, ...], setting: Setting) -> torch.Tensor:
        """Decoded pictures [seeds, 3, H, W]; sampled in batches, with the noise of one large batch."""
        pictures = []
        for first in range(0, self.seeds, BATCH):
            part = slice(first, min(first + BATCH, self.seeds))
            model = self.model
            if setting.move is not None:
                model = self.guide.guided("evaluate", model, self.guidance(kinds, setting.end, part), setting.move,
                                          self.engine.Trace())
            latent = {"samples": torch.zeros(part.stop - first, 3, *self.size), "batch_index": list(range(first, part.stop))}
            latent, = self.host.common_ksampler(model, NOISE_SEED, setting.steps, CFG, setting.sampler, setting.scheduler,
                                                [[self.said_context[part], {}]], self.negative, latent)
            pictures.append(self.vae.decode(latent["samples"]).movedim(-1, 1).cpu())
        return torch.cat(pictures)

    def measure(self, kinds: tuple[str, ...], setting: Setting) -> dict[str, float]:
        start = time.monotonic()
        result = self.judge.figures(self.sample(kinds, setting), self.scene, self.said)
        return result | {"seconds": round(time.monotonic() - start, 1)}


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def show(control: str, setting: str, result: dict) -> None:
    print(f"{control:16} {setting:28} " + "  ".join(f"{k} {v:.3f}" for k, v in result.items()), flush=True)


def controls(seeds: int) -> dict:
    """The figures of every control, and of pose at two other sizes, unguided and guided with the nodes' defaults."""
    results = {}
    for (height, width), names in {(64, 64): CONTROLS, (48, 80): ["pose"], (80, 48): ["pose"]}.items():
        bench = Bench(seeds, height, width)
        unguided = bench.measure((), Setting())
        for name in names:
            label = name if (height, width) == (64, 64) else f"{name} {width}x{height}"
            results[label] = {"unguided": unguided, "guided": bench.measure(CONTROLS[name], Setting(bench.engine.Move()))}
            for setting, result in results[label].items():
                show(label, setting, result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--json")
    chosen = parser.add_mutually_exclusive_group()
    for name, what in TABLES.items():
        chosen.add_argument(f"--{name}", dest="table", action="store_const", const=name, help=f"only {what}")
    options = parser.parse_args()

    def table(name: str) -> dict:
        return getattr(importlib.import_module(f"tools.{name}"), name)(options.seeds)

    results = table(options.table) if options.table else controls(options.seeds) | table("relations")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": device_name(), "seeds": options.seeds, "controls": results}, file, indent=1)


if __name__ == "__main__":
    main()
