"""The demo's bench with ControlNets and T2I-Adapters in its conditioning."""
from dataclasses import dataclass

import nodes as host_nodes
import torch

from tools.peers.pairs import hints
from tools.tables.control import Bench


@dataclass(frozen=True)
class Applied:
    """What the host's apply node is given."""
    net: object             # CONTROL_NET
    kind: str               # of the hints
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


class PeerBench(Bench):
    def __init__(self, seeds: int, apart: int = 0):
        super().__init__(seeds, apart=apart)
        self.applied: tuple[Applied, ...] = ()
        self.drawn: dict[str, torch.Tensor] = {}

    def hints(self, kind: str) -> torch.Tensor:
        """The control images of the scenes as an IMAGE, as large as the latent."""
        if kind not in self.drawn:  # a skeleton takes a twentieth of a second
            self.drawn[kind] = hints(kind, self.scene.image, self.scene.keypoints, self.scene.nearness).movedim(1, -1)
        return self.drawn[kind]

    def conditions(self, part: slice) -> tuple[list, list]:
        positive, negative = super().conditions(part)
        for one in self.applied:
            positive, negative = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
                positive, negative, one.net, self.hints(one.kind)[part], one.strength, one.start, one.end)
        return positive, negative
