"""The inputs that targets share, and a target made from them."""
from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ...rg_core.guidance.targets import Spatial, Target
from ..common import checks
from ..common.types import Guidance, Head
from ..inputs.depth_maps import Maps

WEIGHT = io.Float.Input("weight", default=1.0, min=0.0, max=10.0, step=0.05,
                        tooltip="How hard this target pulls. If it is the only active target, the weight multiplies strength. 0 turns it off.")
CHAIN = Guidance.Input("guidance", optional=True, tooltip="Other targets that should act at the same time.")
START = "When the target starts to act, as a fraction of the noise schedule: 0 is pure noise, 1 the finished image."
END = "When the target stops acting, as a fraction of the noise schedule: 0 is pure noise, 1 the finished image."
OUT = "This target, plus any targets connected to guidance. Connect it to another target, Apply Readout Guidance or KSampler (Readout Guidance)."


def when(target: type[Target], tooltip: str = END) -> list:
    """Weight and percents, with the defaults of this kind of target."""
    return [WEIGHT,
            io.Float.Input("start_percent", default=target.start, min=0.0, max=1.0, step=0.01, tooltip=START),
            io.Float.Input("end_percent", default=target.end, min=0.0, max=1.0, step=0.01, tooltip=tooltip)]


def inputs(image: list, kind: str, *more) -> list:
    return [
        Head.Input("head", tooltip=f"A head that reads {kind}, for the model that you sample with."),
        *image,
        *when(Spatial, "When the target stops acting, as a fraction of the noise schedule. The layout of the image is settled by 0.5; a later "
              "end takes longer and matches more exactly."),
        *more,
        io.Mask.Input("mask", optional=True, tooltip="The target acts where the mask is white. The mask must be as large as the target."),
        CHAIN,
    ]


class Acting(NamedTuple):
    """How hard a target acts, when and where, as its node was given it; and the targets beside it."""
    weight: float
    start: float
    end: float
    mask: Tensor | None = None
    guidance: tuple | None = None

    def checked(self, node: str, head) -> dict:
        """These fields of a target that `head` reads for, from when it can."""
        checks.check_range(node, self.weight, self.start, self.end)
        return {"weight": self.weight, "start": checks.effective_start(node, head, self.start, self.end), "end": self.end}

    def beside(self, target: Target) -> io.NodeOutput:
        """The chain with `target` at its end."""
        return io.NodeOutput((*(self.guidance or ()), target))


def spatial_target(name: str, head, image: Tensor | Maps, acting: Acting) -> io.NodeOutput:
    """The target of a node that takes heads of one kind, as its name says."""
    node = f"{name.capitalize()} Target"
    checks.head_kind(node, head, name)
    return map_target(node, head, image, acting)


def map_target(node: str, head, image: Tensor | Maps, acting: Acting) -> io.NodeOutput:
    """`image` [B, 3, h, w] is what `head` should read; with it, where it is known."""
    fields = acting.checked(node, head)
    mask, (image, known) = checks.mask(node, acting.mask), image if isinstance(image, tuple) else (image, None)
    checks.same_size(node, mask, image)
    return acting.beside(Spatial(name=head.kind, head=head, image=image, known=known, mask=mask, **fields))
