"""Pose Target."""
from comfy_api.latest import io

from ...rg_core.images.control_images import fit
from ..common import checks
from ..common.types import CATEGORY, Guidance, PoseKeypoint
from ..inputs import bars, skeletons
from ..inputs.empty_images import mask_empty_images
from ..inputs.keypoints import drawn
from .inputs import OUT, Acting, inputs, spatial_target


class PoseTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutPoseTarget", display_name="Pose Target", category=CATEGORY,
            search_aliases=["openpose", "skeleton", "controlnet"],
            description="Steers toward a pose, given as an image of an OpenPose skeleton or as keypoints, which are drawn as one.",
            inputs=inputs([io.Image.Input("image", optional=True, tooltip="An image of an OpenPose skeleton on black."),
                           PoseKeypoint.Input("keypoints", optional=True, tooltip="Body points, instead of image. A mask is fitted to their "
                                              "canvas.")], "pose"),
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, head, weight, start_percent, end_percent, image=None, keypoints=None, mask=None, guidance=None):
        node = "Pose Target"
        if (image is None) == (keypoints is None):
            raise ValueError(f"{node}: got {'neither image nor' if image is None else 'both image and'} keypoints. Connect one of them.")
        mask = checks.mask(node, mask)
        if image is None:
            image = drawn(node, keypoints)
            mask = None if mask is None else fit(mask.float(), image.shape[-2:])  # nobody sees the size that it is drawn in
        else:
            image, mask = bars.left_out(node, "pose", checks.image(node, image), mask)
            image, = skeletons.prepared(node, [image])
        mask = mask_empty_images(node, image, mask, "pose")
        return spatial_target("pose", head, image, Acting(weight, start_percent, end_percent, mask, guidance))
