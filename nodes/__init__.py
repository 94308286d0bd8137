"""The boundary: everything that knows ComfyUI."""
from comfy_api.latest import ComfyExtension

from . import attribute, colour, demo, estimate, fit, fit_comparing, guide, heads, published, references, relations, show, targets, tracks, train
from .installed import serve_files, warn_of_another
from .prompts import read_prompts

NODES = [heads.LoadReadoutHead, heads.SaveReadoutHead, estimate.ReadoutEstimate, fit.FitReadoutHead, fit_comparing.FitComparingHead,
         attribute.FitAttribute, train.TrainReadoutHead, targets.PoseTarget, targets.DepthTarget, targets.EdgeTarget, targets.MapTarget,
         attribute.AttributeTarget, relations.DragTarget, relations.AppearanceTarget, relations.StructureTarget, relations.IdentityTarget,
         colour.ColourTarget, relations.DragPath, tracks.LoadTracks, references.ReadoutReference, references.ReadoutInvert,
         references.KSamplerReadoutReference, guide.ApplyReadoutGuidance, guide.KSamplerReadoutGuidance, published.KSamplerReadoutGuidancePublished,
         show.ReadoutTrace, show.ReadoutCompare, demo.LoadDemoModel, demo.DemoScene, demo.DemoReader]


class ReadoutGuidance(ComfyExtension):
    async def get_node_list(self):
        return NODES


async def comfy_entrypoint() -> ReadoutGuidance:
    heads.register_folder()
    warn_of_another(node.define_schema().node_id for node in NODES)
    serve_files()
    read_prompts()
    return ReadoutGuidance()
