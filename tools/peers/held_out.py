"""How far a peer's training is, by scenes that stand nowhere else, and when it ends.

Control comes late and at once, and nothing in the loss says when. So a training is looked at every so many steps: images of
held-out scenes are sampled and judged, and the best network so far is kept. Once control has come it ends when it has not risen
for so many steps; where it does not come, it ends when it has had several times the steps that others needed.
"""
import comfy.model_management
import torch

from tools.peers import networks
from tools.peers.bench import Applied, PeerBench
from tools.peers.pairs import HELD_OUT_SEED, drawn
from tools.peers.training import IMAGES, Training, levels
from tools.tables.control import APART, Setting, judge

EVERY, PATIENCE, IN_VAIN, AT_MOST = 250, 1500, 3000, 20000  # steps
SCENES = 32
LOOK = Setting(steps=8, sampler="lcm", scheduler="sgm_uniform", cfg=1.0)
MEASURES = {"pose": ("pck05", 1), "depth": ("mae", -1), "edge": ("fscore", 1)}  # and the sign that makes more better
RISE = 0.002  # of a measure, at least, to count as better
COMES = {"pose": 0.2, "depth": 0.02, "edge": 0.2}  # of it, above the first look


class HeldOut:
    """Scenes of one kind to look at peers by."""

    def __init__(self, kind: str):
        self.kind, self.bench, self.pairs = kind, PeerBench(SCENES, APART), drawn(kind, SCENES, HELD_OUT_SEED)

    def look(self, training: Training) -> dict[str, float]:
        """The held-out loss of the averaged network, and the figures of images sampled under its control."""
        comfy.model_management.in_training = False
        self.bench.applied = (Applied(networks.control(training.average), self.kind),)
        images = self.bench.sample((), LOOK)
        figures = judge.figures(images, self.bench.scene, self.bench.said)
        comfy.model_management.in_training = True
        return {"step": training.progress.step, "loss": self.loss(training)} | figures

    @torch.no_grad()
    def loss(self, training: Training) -> float:
        torch.manual_seed(0)
        picks = torch.arange(SCENES).split(IMAGES)
        found = [training.loss(training.average, self.pairs, pick, levels(training.what, len(pick))).item() for pick in picks]
        return round(sum(found) / len(found), 5)


def goodness(kind: str, figures: dict[str, float]) -> float:
    measure, sign = MEASURES[kind]
    return sign * figures[measure]


def best(kind: str, history: list[dict]) -> dict:
    """The first look that no later one exceeds by RISE."""
    found = history[0]
    for figures in history[1:]:
        if goodness(kind, figures) >= goodness(kind, found) + RISE:
            found = figures
    return found


def ended(kind: str, history: list[dict]) -> bool:
    if not history:
        return False
    step, chosen = history[-1]["step"], best(kind, history)
    came = goodness(kind, chosen) - goodness(kind, history[0]) >= COMES[kind]
    return step >= AT_MOST or step - chosen["step"] >= (PATIENCE if came else IN_VAIN)
