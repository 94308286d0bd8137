"""The demo world's nodes: its model, scenes to take targets from, and what its pictures show."""
from comfy_api.latest import io

from ...heads.demo import MODEL_FILE, TRANSFORMER_FILE, judge, world
from ...rg_core.images.pictures import draw_pose
from ..common import checks
from ..common.types import CATEGORY, PoseKeypoint
from .demo_model import load_demo

DEMO_CATEGORY = f"{CATEGORY}/demo"
FILES = {"UNet": MODEL_FILE, "transformer": TRANSFORMER_FILE}
SKELETON_SCALE = 8  # a skeleton is drawn larger than the scene, as a pose detector would


class LoadDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadReadoutDemoModel", display_name="Load Demo Model (Readout Guidance)", category=DEMO_CATEGORY,
            description="A tiny diffusion model of a marionette in a room, to try readout guidance without downloads. It "
                        "knows prompts such as 'a figure in a red shirt and blue trousers, meadow' and pictures of about 64x64.",
            inputs=[io.Combo.Input("model", options=list(FILES), default="UNet", optional=True,
                                   tooltip="A UNet, as Stable Diffusion 1.5 and SDXL are, with heads that come along; or a flow transformer, as "
                                           "Z-Image is, for which Fit Readout Head makes them.")],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()])

    @classmethod
    def execute(cls, model="UNet"):
        return io.NodeOutput(*load_demo(FILES[model]))


class DemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDemoScene", display_name="Demo Scene (Readout Guidance)", category=DEMO_CATEGORY,
            description="Draws a scene of the demo world and what is true of it, as targets for the demo model.",
            inputs=[io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True),
                    io.Int.Input("width", default=64, min=48, max=128, step=8),
                    io.Int.Input("height", default=64, min=48, max=128, step=8),
                    io.Int.Input("batch_size", default=1, min=1, max=64)],
            outputs=[io.Image.Output(display_name="picture"), io.Image.Output(display_name="pose"),
                     io.Image.Output(display_name="depth"), io.Image.Output(display_name="edges"),
                     PoseKeypoint.Output(display_name="keypoints")])

    @classmethod
    def execute(cls, seed, width, height, batch_size):
        scene = world.draw(batch_size, height, width, seed=seed)
        skeleton = draw_pose(scene.keypoints[:, None], (height * SKELETON_SCALE, width * SKELETON_SCALE), (height, width))
        frames = [{"canvas_width": width, "canvas_height": height,
                   "people": [{"pose_keypoints_2d": points.flatten().tolist()}]} for points in scene.keypoints]
        grey = [x[..., None].expand(-1, -1, -1, 3) for x in (scene.nearness, world.edges(scene.image))]
        return io.NodeOutput(scene.image.movedim(1, -1), skeleton.movedim(1, -1), *grey, frames)


class DemoReader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDemoReader", display_name="Demo Reader (Readout Guidance)", category=DEMO_CATEGORY,
            description="Reads depth, edges and where the shirt is from pictures of the demo world, also from ones that the demo model sampled. In "
                        "other graphs a depth, edge or segmentation node stands here.",
            inputs=[io.Image.Input("image", tooltip="Pictures of the demo world.")],
            outputs=[io.Image.Output(display_name="depth"), io.Image.Output(display_name="edges"), io.Image.Output(display_name="shirt")])

    @classmethod
    def execute(cls, image):
        image = checks.picture("Demo Reader", image).float()
        found = judge.nearness(image), world.edges(image), judge.shirt(image).float()
        return io.NodeOutput(*(x[..., None].expand(-1, -1, -1, 3) for x in found))
