"""The demo model with references and targets that relate to them; how often it is called, and what an error says."""
import json

import pytest
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.demo import demo_model, demo_nodes
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget

BOX = {"x": 10, "y": 4, "width": 40, "height": 50}
DRAG = "[[[0.3, 0.4], [0.6, 0.5]]]"


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors")
                      for kind in ("pose", "correspondence", "appearance", "identity")}
        self.positive = self.clip.encode_from_tokens_scheduled(self.clip.tokenize("a figure in a red shirt, sea"))
        self.negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        self.calls = 0
        self.model.model.diffusion_model.register_forward_pre_hook(self.count)

    def count(self, _module, _args):
        self.calls += 1

    def latent(self, batch=1, size=(64, 64)):
        return {"samples": torch.zeros(batch, 3, *size)}

    def scene(self, size=(64, 64), batch=1):
        return {"samples": self.vae.encode(demo_nodes.DemoScene.execute(5, size[1], size[0], batch).args[0])}

    def made(self, steps=4, sampler="euler", cache_mb=64, size=(64, 64)):
        return recording_ksampler.KSamplerReadoutReference.execute(self.model, 1, steps, 3.0, sampler, "karras", self.positive,
                                                                   self.negative, self.latent(size=size), 1.0, cache_mb).args

    def drag(self, reference, text=DRAG, **changes):
        return DragTarget.execute(**{"head": self.heads["correspondence"], "reference": reference, "drags": text,
                                     "weight": 1.0, "start_percent": 0.0, "end_percent": 0.5} | changes).args[0]

    def like(self, kind, reference, **changes):
        node = {"appearance": AppearanceTarget, "identity": IdentityTarget}[kind]
        return node.execute(**{"head": self.heads[kind], "reference": reference, "weight": 1.0, "start_percent": 0.0,
                               "end_percent": 0.5} | changes).args[0]

    def sample(self, guidance, latent=None, steps=4, sampler="euler", strength=0.1):
        out, trace, _ = guided_ksampler.KSamplerReadoutGuidance.execute(self.model, 1, steps, 3.0, sampler, "karras", self.positive, self.negative,
                                                                        latent or self.latent(), 1.0, guidance, strength).args
        return out["samples"], json.loads(trace)


def calls(w, action):
    before = w.calls
    action()
    return w.calls - before


def said(action) -> str:
    with pytest.raises(ValueError, match="^[A-Z].*: ") as failure:
        action()
    return str(failure.value)
