"""Appearance, Structure and Identity Target: what should stay as it is in a reference."""
from comfy_api.latest import io

from ...rg_core.features.raw_features import AS_THEY_ARE
from ...rg_core.guidance.targets import Appearance, Identity, Target
from ...rg_core.images.regions import WHOLE
from ..common import checks
from ..common.types import CATEGORY, Guidance, Head, ReferenceType
from ..inputs import beside_reference
from ..inputs.boxes import box_input, box_of
from .inputs import CHAIN, OUT, Acting, when

REFERENCE = ReferenceType.Input("reference", tooltip="A reference from Readout Invert, KSampler (Readout Reference) or Readout Reference.")


def optional_head(kind: str):
    return Head.Input("head", optional=True, tooltip=f"A head that reads {kind}, for the model that you sample with. Without a head, the model's "
                      "own features are compared directly.")


def comparing(node: str, head, kind: str):
    """The head to compare with; the features as they are where there is none."""
    if head is None:
        return AS_THEY_ARE
    checks.head_kind(node, head, kind)
    return head


def likeness_inputs(head: list, target: type[Target]) -> list:
    where = "The mask needs the size or the aspect ratio of the reference image."
    return [
        *head, REFERENCE, *when(target),
        io.Mask.Input("mask", optional=True, tooltip=f"The target acts where this mask is white, in the new image. {where}"),
        io.Mask.Input("reference_mask", optional=True, tooltip=f"Only the white part of the reference counts. {where}"),
        box_input("box", "Where the target acts in the new image, in pixels."),
        box_input("reference_box", "Which part of the reference counts, in pixels."),
        CHAIN,
    ]


def likeness(kind: str, make: type[Target], head, reference, acting: Acting, reference_mask, boxes: tuple) -> io.NodeOutput:
    """`boxes` are that of the image being made and that of the reference."""
    node = f"{kind.capitalize()} Target"
    fields = acting.checked(node, head)
    box, reference_box = (box_of(node, name, given, reference) for name, given in zip(("box", "reference_box"), boxes))
    if make is Appearance:  # places are compared, so one box means the same on both sides
        box, reference_box = box or reference_box, reference_box or box
    return acting.beside(make(name=kind, head=head, reference=reference, mask=beside_reference.mask_of(node, acting.mask, reference),
                              reference_mask=beside_reference.mask_of(node, reference_mask, reference, "reference_mask"),
                              box=box or WHOLE, reference_box=reference_box or WHOLE, **fields))


class AppearanceTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutAppearanceTarget", display_name="Appearance Target", category=CATEGORY,
            search_aliases=["style", "ip adapter", "look"],
            description="Keeps the look of a reference, place by place. With boxes, what is in the reference's box should appear in the new image's "
                        "box.",
            inputs=likeness_inputs([optional_head("appearance")], Appearance), outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, reference, weight, start_percent, end_percent, head=None, mask=None, reference_mask=None, box=None,
                reference_box=None, guidance=None):
        head = comparing("Appearance Target", head, "appearance")
        acting = Acting(weight, start_percent, end_percent, mask, guidance)
        return likeness("appearance", Appearance, head, reference, acting, reference_mask, (box, reference_box))


class StructureTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutStructureTarget", display_name="Structure Target", category=CATEGORY,
            search_aliases=["layout", "composition"],
            description="Keeps where things are in a reference image. What they are and their colors come from the prompt. It needs no head and "
                        "no preprocessor.",
            inputs=likeness_inputs([], Appearance), outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, reference, weight, start_percent, end_percent, mask=None, reference_mask=None, box=None, reference_box=None,
                guidance=None):
        acting = Acting(weight, start_percent, end_percent, mask, guidance)
        return likeness("structure", Appearance, AS_THEY_ARE, reference, acting, reference_mask, (box, reference_box))


class IdentityTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutIdentityTarget", display_name="Identity Target", category=CATEGORY,
            search_aliases=["character", "face", "ip adapter", "same person"],
            description="Keeps who is in a reference, wherever they stand in the new image.",
            inputs=likeness_inputs([Head.Input("head", tooltip="A head that reads identity, for the model that you sample with.")], Identity),
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, head, reference, weight, start_percent, end_percent, mask=None, reference_mask=None, box=None,
                reference_box=None, guidance=None):
        checks.head_kind("Identity Target", head, "identity")
        acting = Acting(weight, start_percent, end_percent, mask, guidance)
        return likeness("identity", Identity, head, reference, acting, reference_mask, (box, reference_box))
