"""The demo model sampled over many scenes, guided or not, and judged: what every table of evaluate.py is made with.

Targets are scenes of the demo world, prompts those of other scenes, so that shape comes from the target and color from
the text. Everything runs through the pack's nodes and the host's sampling code; the judge uses no network.
"""
import time
from dataclasses import dataclass

import nodes as host_nodes
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER, MODEL_FILE, judge, world
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from readout_guidance_pack.rg_core.images.control_images import draw_pose

CONTROLS = {"pose": ("pose",), "depth": ("depth",), "edge": ("edge",), "pose+depth": ("pose", "depth")}
STEPS, CFG = 20, 3.0
BATCH = 4  # images at a time: as many as a core's cache holds, a fifth faster there than 16
SCENE_SEED, PROMPT_SEED, NOISE_SEED = 1000, 2000, 3000
APART = 4000  # added to these seeds: scenes, prompts and noise to choose by, so that a table judges by others


@dataclass(frozen=True)
class Setting:
    """One way to sample; None as `move` means unguided, as sampler or scheduler the bench's own."""
    move: object = None
    end: float = Spatial.end
    steps: int = STEPS
    sampler: str | None = None
    scheduler: str | None = None
    cfg: float = CFG
    start: float = 0.0
    weight: float = 1.0


class Bench:
    """A demo model, its heads and a number of scenes of one size."""

    file, sampler, scheduler = MODEL_FILE, "dpmpp_2m", "karras"

    def __init__(self, seeds: int, height: int = 64, width: int = 64, apart: int = 0):
        self.scene = world.draw(seeds, height, width, seed=SCENE_SEED + apart)
        self.said = world.draw(seeds, height, width, seed=PROMPT_SEED + apart)
        self.noise_seed = NOISE_SEED + apart
        self.heads = self.shipped(("pose", "depth", "edge"))
        skeleton = draw_pose(self.scene.keypoints[:, None], (height * 8, width * 8), (height, width))
        self.images = {"pose": skeleton.movedim(1, -1)} | {
            kind: x[..., None].expand(-1, -1, -1, 3) for kind, x in
            (("depth", self.scene.nearness), ("edge", world.edges(self.scene.image)))}
        with torch.inference_mode():
            self.model, self.clip, self.vae = demo_model.load_demo(self.file)
            self.said_context = self.encoded(self.said.prompts())
            self.negative, = self.context([""])
        self.seeds, self.size = seeds, (height, width)

    def shipped(self, kinds: tuple[str, ...]) -> dict:
        """Heads of these kinds that come with the pack."""
        return {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in kinds}

    def context(self, prompts: list[str]) -> list:
        """The host's CONDITIONING of each."""
        return [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt)) for prompt in prompts]

    def encoded(self, prompts: list[str]) -> torch.Tensor:
        """[number of prompts, T, E], as one conditioning holds them."""
        return torch.cat([said[0][0] for said in self.context(prompts)])

    def guidance(self, kinds: tuple[str, ...], end: float, part: slice, start: float = 0.0, weight: float = 1.0) -> tuple:
        make = {"pose": PoseTarget, "depth": DepthTarget, "edge": EdgeTarget}
        chain = None
        for kind in kinds:
            chain = make[kind].execute(head=self.heads[kind], image=self.images[kind][part], weight=weight, start_percent=start,
                                       end_percent=end, guidance=chain)[0]
        return chain

    def conditions(self, part: slice) -> tuple[list, list]:
        """The positive and the negative conditioning of some of the scenes."""
        return [[self.said_context[part], {}]], self.negative

    def sample(self, kinds: tuple[str, ...], setting: Setting) -> torch.Tensor:
        """Decoded images [seeds, 3, H, W], guided by heads of these kinds."""
        def targets(part: slice) -> tuple:
            return () if setting.move is None else self.guidance(kinds, setting.end, part, setting.start, setting.weight)

        return self.sampled(targets, setting)

    @torch.inference_mode()
    def sampled(self, targets, setting: Setting) -> torch.Tensor:
        """Decoded images [seeds, 3, H, W], guided by what `targets(part)` gives for each part of the scenes, unguided where that is
        nothing; sampled in batches, with the noise of one large batch."""
        images = []
        for first in range(0, self.seeds, BATCH):
            part = slice(first, min(first + BATCH, self.seeds))
            chain = targets(part)
            model = guided("evaluate", self.model, chain, setting.move) if chain else self.model
            latent = {"samples": torch.zeros(part.stop - first, 3, *self.size), "batch_index": list(range(first, part.stop))}
            latent, = host_nodes.common_ksampler(model, self.noise_seed, setting.steps, setting.cfg, setting.sampler or self.sampler,
                                                 setting.scheduler or self.scheduler, *self.conditions(part), latent)
            images.append(self.vae.decode(latent["samples"]).movedim(-1, 1).cpu())
        return torch.cat(images)

    def measure(self, kinds: tuple[str, ...], setting: Setting) -> dict[str, float]:
        start = time.monotonic()
        result = judge.figures(self.sample(kinds, setting), self.scene, self.said)
        return result | {"seconds": round(time.monotonic() - start, 1)}


def show(control: str, setting: str, result: dict) -> None:
    print(f"{control:16} {setting:28} " + "  ".join(f"{k} {v:.3f}" for k, v in result.items()), flush=True)
