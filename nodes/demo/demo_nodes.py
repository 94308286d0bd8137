"""The demo world's nodes: its model, scenes to take targets from, and what its images show."""
from comfy_api.latest import io

from ...heads.demo import MODEL_FILE, TRANSFORMER_FILE, judge, world
from ...rg_core.images.control_images import draw_pose
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
            description="Loads a tiny diffusion model that draws a marionette in a room, to try readout guidance without downloads. It knows "
                        "prompts such as 'a figure in a red shirt and blue trousers, meadow' and images of about 64x64 pixels.",
            inputs=[io.Combo.Input("model", options=list(FILES), default="UNet", optional=True,
                                   tooltip="UNet: built like Stable Diffusion 1.5 and SDXL; its heads are included. transformer: a flow model built "
                                   "like Z-Image; make its heads with Fit Readout Head.")],
            outputs=[io.Model.Output(tooltip="The demo model."), io.Clip.Output(tooltip="The text encoder of the demo model."),
                     io.Vae.Output(tooltip="The VAE of the demo model.")])

    @classmethod
    def execute(cls, model="UNet"):
        return io.NodeOutput(*load_demo(FILES[model]))


class DemoScene(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDemoScene", display_name="Demo Scene (Readout Guidance)", category=DEMO_CATEGORY,
            description="Draws scenes of the demo world with their true pose, depth and edges, as targets for the demo model.",
            inputs=[io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="The seed that chooses the scenes."),
                    io.Int.Input("width", default=64, min=48, max=128, step=8, tooltip="The width of the scenes in pixels."),
                    io.Int.Input("height", default=64, min=48, max=128, step=8, tooltip="The height of the scenes in pixels."),
                    io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="The number of scenes.")],
            outputs=[io.Image.Output(display_name="image", tooltip="The drawn scenes."),
                     io.Image.Output(display_name="pose", tooltip="The OpenPose skeletons of the scenes, for Pose Target."),
                     io.Image.Output(display_name="depth", tooltip="The depth maps of the scenes, for Depth Target. White is near."),
                     io.Image.Output(display_name="edges", tooltip="The edges of the scenes, for Edge Target: white lines on black."),
                     PoseKeypoint.Output(display_name="keypoints", tooltip="The body points of the scenes, for Pose Target.")])

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
            description="Reads depth, edges and the place of the shirt from images of the demo world, including images that the demo model sampled. "
                        "With other models, use a depth, edge or segmentation node instead.",
            inputs=[io.Image.Input("image", tooltip="Images of the demo world.")],
            outputs=[io.Image.Output(display_name="depth", tooltip="Depth maps of the images. White is near."),
                     io.Image.Output(display_name="edges", tooltip="Edges of the images: white lines on black."),
                     io.Image.Output(display_name="shirt", tooltip="Where the shirt is: white on black.")])

    @classmethod
    def execute(cls, image):
        image = checks.image("Demo Reader", image).float()
        found = judge.nearness(image), world.edges(image), judge.shirt(image).float()
        return io.NodeOutput(*(x[..., None].expand(-1, -1, -1, 3) for x in found))
