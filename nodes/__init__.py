"""The boundary: everything that knows ComfyUI."""
from comfy_api.latest import ComfyExtension

from .demo.demo_nodes import DemoReader, DemoScene, LoadDemoModel
from .make_heads import load_save
from .make_heads.estimate import ReadoutEstimate
from .make_heads.fit import FitReadoutHead
from .make_heads.fit_attribute import FitAttribute
from .make_heads.fit_comparing import FitComparingHead
from .make_heads.train import TrainReadoutHead
from .references.invert import ReadoutInvert
from .references.recording_ksampler import KSamplerReadoutReference
from .references.renoise import ReadoutReference
from .samplers import apply_ray
from .samplers.apply import ApplyReadoutGuidance
from .samplers.apply_ray import ApplyReadoutGuidanceRay
from .samplers.guided_ksampler import KSamplerReadoutGuidance
from .samplers.published import KSamplerReadoutGuidancePublished
from .startup.installation import serve_files, warn_of_another
from .startup.prompts import read_prompts
from .targets.attribute import AttributeTarget
from .targets.color import ColorTarget
from .targets.depth import DepthTarget
from .targets.drag import DragTarget
from .targets.drag_path import DragPath
from .targets.edge import EdgeTarget
from .targets.likeness import AppearanceTarget, IdentityTarget, StructureTarget
from .targets.load_tracks import LoadTracks
from .targets.map import MapTarget
from .targets.pose import PoseTarget
from .views.compare import ReadoutCompare
from .views.trace import ReadoutTrace

NODES = [load_save.LoadReadoutHead, load_save.SaveReadoutHead, ReadoutEstimate, FitReadoutHead, FitComparingHead, FitAttribute, TrainReadoutHead,
         PoseTarget, DepthTarget, EdgeTarget, MapTarget, AttributeTarget, DragTarget, AppearanceTarget, StructureTarget, IdentityTarget, ColorTarget,
         DragPath, LoadTracks, ReadoutReference, ReadoutInvert, KSamplerReadoutReference, ApplyReadoutGuidance, ApplyReadoutGuidanceRay,
         KSamplerReadoutGuidance, KSamplerReadoutGuidancePublished, ReadoutTrace, ReadoutCompare, LoadDemoModel, DemoScene, DemoReader]


class ReadoutGuidance(ComfyExtension):
    async def get_node_list(self):
        return [node for node in NODES if node is not ApplyReadoutGuidanceRay or apply_ray.is_installed()]


async def comfy_entrypoint() -> ReadoutGuidance:
    load_save.register_folder()
    warn_of_another(node.define_schema().node_id for node in NODES)
    serve_files()
    read_prompts()
    return ReadoutGuidance()
