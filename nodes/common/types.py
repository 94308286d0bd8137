"""The pack's own socket types."""
from comfy_api.latest import io

CATEGORY = "readout guidance"
Head = io.Custom("READOUT_HEAD")          # rg_core.head.ReadoutHead
Guidance = io.Custom("READOUT_GUIDANCE")  # tuple of rg_core.targets.Target
ReferenceType = io.Custom("READOUT_REFERENCE")  # nodes.references.Reference
Drags = io.Custom("READOUT_DRAGS")        # JSON text, see nodes/inputs/drag_paths.py
PoseKeypoint = io.Custom("POSE_KEYPOINT")  # list of OpenPose frame dicts, one for each image
Geometry = io.Custom("MOGE_GEOMETRY,DA3_GEOMETRY")  # the host's, of either: dicts with depth [B, H, W]; older hosts have none
LossMap = io.Custom("LOSS_MAP")            # {"loss": [one for each step]}, as of the host's training nodes
