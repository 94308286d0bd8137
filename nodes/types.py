"""The pack's own socket types."""
from comfy_api.latest import io

CATEGORY = "readout guidance"
Head = io.Custom("READOUT_HEAD")          # rg_core.head.ReadoutHead
Guidance = io.Custom("READOUT_GUIDANCE")  # tuple of rg_core.guidance.Target
PoseKeypoint = io.Custom("POSE_KEYPOINT")  # list of OpenPose frame dicts, one for each picture
