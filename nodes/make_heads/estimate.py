"""Readout Estimate: what a head reads of a given image."""
import comfy.sample
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...rg_core.images.control_images import draw_pose
from ...rg_core.images.resize import resize
from ...rg_core.readout import estimates
from ..common import checks, latents, model_checks
from ..common.latents import encoded
from ..common.types import CATEGORY, Head, PoseKeypoint
from ..engine.read_features import embeddings, read_features, sigma_at
from ..engine.reader import read as read_head
from ..inputs.keypoints import KEYPOINTS
from .training_set import readout_size

NODE = "Readout Estimate"
CLEANEST = 0.999  # percent of the timestep 1 of 1000


def read(model, head, positive: list, samples: Tensor, noise: Tensor, percent: float) -> Tensor:
    """The head's readout [B, C, h, w] of latents [B, C, H, W] with `noise` of the same shape, on the CPU."""
    if head.kind == "keypoints":  # trained and used on clean latents only, at the cleanest timestep but one
        percent, noise = CLEANEST, torch.zeros_like(noise)
    levels = torch.full((len(samples),), sigma_at(model, percent))

    def use(base_model, reading) -> Tensor:
        size, told = readout_size(samples, head.stride), None
        if head.kind == "keypoints" or head.config.get("diffusion_mode") == "generation":
            # The authors' training tells a head how many steps of a generation are done, 1000 - t, and not the timestep t.
            told = embeddings(base_model, levels[:1], reading, left=True)
        return read_head(head, reading, size, told).cpu()

    return read_features(NODE, model, positive, samples, noise, levels, use, [head])


def skeletons(readout: Tensor, height: int, width: int) -> tuple[Tensor, list[dict]]:
    """Heatmaps [B, 18, h, w] as images [B, 3, height, width] and POSE_KEYPOINT."""
    if readout.shape[1] != KEYPOINTS:
        raise ValueError(f"{NODE}: the head reads {readout.shape[1]} heatmaps, but OpenPose's body has {KEYPOINTS} points. Load another head.")
    points = estimates.keypoints(readout, (height, width))
    frames = [{"canvas_width": width, "canvas_height": height, "people": [{"pose_keypoints_2d": person.flatten().tolist()}]}
              for person in points]
    return draw_pose(points[:, None], (height, width)), frames


class ReadoutEstimate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutEstimate", display_name=NODE, category=CATEGORY,
            search_aliases=["detect", "preprocessor", "probe"],
            description="Shows what a head reads from an image: a pose, a depth map or edges, to look at or to use as a target for other images.",
            inputs=[io.Model.Input("model", tooltip="The model whose features the head reads. LoRAs on it count; guidance on it does not."),
                    Head.Input("head", tooltip="A readout head for this model."),
                    io.Conditioning.Input("positive", tooltip="What the image shows. An empty prompt is enough."),
                    io.Float.Input("percent", default=0.9, min=0.0, max=1.0, step=0.01,
                                   tooltip="How clean the image is when the head reads it: 0 is pure noise, 1 the image itself. Heads that read "
                                   "keypoints always read the image itself."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="The seed of the added noise."),
                    io.Latent.Input("latent", optional=True, tooltip="The image to read, as a latent. Or connect image and vae instead."),
                    io.Image.Input("image", optional=True, tooltip="The image to read, instead of latent. It needs vae."),
                    io.Vae.Input("vae", optional=True, tooltip="The model's VAE, which encodes image.")],
            outputs=[io.Image.Output(display_name="image", tooltip="What the head reads, in the size of the image that was read."),
                     PoseKeypoint.Output(display_name="keypoints", tooltip="The body points, for Pose Target. Only heads that read keypoints give "
                                         "them.")])

    @classmethod
    def execute(cls, model, head, positive, percent, seed, latent=None, image=None, vae=None):
        model_checks.heads_fit(NODE, model, [head])
        if (latent is None) == (image is None):
            raise ValueError(f"{NODE}: got {'neither latent nor' if image is None else 'both latent and'} image. Connect one of them.")
        if image is not None:
            if vae is None:
                raise ValueError(f"{NODE}: an image needs the VAE that belongs to the model. Connect vae, or use latent instead.")
            image = checks.image(NODE, image)
            latent = {"samples": encoded(vae, image)}
        samples = latents.samples_for(NODE, model, latent)
        ratio = model.get_model_object("latent_format").spacial_downscale_ratio
        # A VAE cuts off less than a latent pixel; stretched back over all, no place is off by more than half of one.
        height, width = [n * ratio for n in samples.shape[-2:]] if image is None else image.shape[-2:]
        noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
        readout = read(model, head, positive, samples, noise, percent)
        if head.kind == "keypoints":
            image, keypoints = skeletons(readout, height, width)
        else:
            image = estimates.colors(readout) if head.output_head is None else estimates.from_range(readout, head.control_range)
            image = resize(image.expand(-1, 3, -1, -1), (height, width))
            keypoints = ExecutionBlocker(f"{NODE}: only a head that reads keypoints outputs keypoints, but this one reads {head.kind}.")
        return io.NodeOutput(image.movedim(1, -1), keypoints)
