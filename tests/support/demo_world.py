"""The demo model, its heads and prompts, sampled with a pose or without."""
import json

import nodes as host_nodes
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.demo import demo_model, demo_nodes
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.targets.pose import PoseTarget

PROMPT = "a figure in a red shirt and blue trousers, meadow"
SAMPLERS = ["euler", "dpmpp_2m", "heun", "dpm_2", "euler_ancestral", "ddim", "uni_pc", "dpmpp_sde"]


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("pose", "depth", "edge")}
        self.positive, self.negative = self.say(PROMPT), self.say("")

    def say(self, prompt):
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))

    @classmethod
    def with_a_reference(cls):
        """Also with a scene of two images and a reference made of these."""
        world = cls()
        world.scene = demo_nodes.DemoScene.execute(5, 64, 64, 2).args
        latent = {"samples": world.scene[0].movedim(-1, 1) * 2 - 1}
        world.reference = ReadoutReference.execute(world.model, world.positive, latent, 3, 64)[0]
        return world

    def pose(self, batch=2, seed=5, size=(64, 64), **changes):
        scene = demo_nodes.DemoScene.execute(seed, size[1], size[0], batch).args
        return PoseTarget.execute(**{"head": self.heads["pose"], "image": scene[1], "weight": 1.0,
                                     "start_percent": 0.0, "end_percent": 0.5} | changes)[0]

    def sample(self, guidance=None, batch=2, size=(64, 64), steps=4, cfg=3.0, sampler="euler", seed=1, strength=0.1, model=None,
               moves=0, **latent):
        """(latents, trace); unguided without `guidance`."""
        model = model or self.model
        latent = {"samples": torch.zeros(batch, 3, *size)} | latent
        rest = (seed, steps, cfg, sampler, "karras", self.positive, self.negative, latent)
        if guidance is None:
            return host_nodes.common_ksampler(model, *rest)[0]["samples"], []
        latent, trace, _ = guided_ksampler.KSamplerReadoutGuidance.execute(model, *rest, 1.0, guidance, strength, moves=moves).args
        return latent["samples"], json.loads(trace)
