"""What bench.py measures: the demo model, and the real architectures of Stable Diffusion 1.5 and SDXL with random weights;
each as it is and guided in several ways."""
from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.base_models import BASE_MODELS, BaseModel
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.demo.demo_model import load_demo
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.make_heads.fitter import BANDS, LEVELS
from readout_guidance_pack.nodes.references.reference import wrap
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.guidance.targets import Drag, Spatial
from readout_guidance_pack.rg_core.guidance.trajectories import renoised
from readout_guidance_pack.rg_core.guidance.updates import PUBLISHED, Move
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from readout_guidance_pack.rg_core.readout.linear_head import LinearHead, from_maps
from tools.random_weights.checkpoints import SD15_UNET, SDXL_UNET

ALL_THE_TIME = {"start": 0.0, "end": 1.0}  # when targets act in timed steps


@dataclass(frozen=True)
class Subject:
    model: comfy.model_patcher.ModelPatcher
    head: ReadoutHead
    conditioning: list  # the host's
    shape: tuple        # of the latents


def random_model(family: type, config: dict, on_gpu: torch.dtype) -> comfy.model_patcher.ModelPatcher:
    """The architecture of `family`, a class of comfy.supported_models, with random weights, on a CPU in float32. They are drawn in place: SDXL's
    are 10 GB then, and a second copy would not fit everywhere."""
    device = comfy.model_management.get_torch_device()
    model_config = family(config)
    model_config.set_inference_dtype(on_gpu if device.type == "cuda" else torch.float32, None)
    model = model_config.get_model({}, "", device=device)
    torch.manual_seed(0)
    for name, weight in model.diffusion_model.named_parameters():
        if weight.ndim > 1:  # what goes through keeps its size
            weight.data.normal_(std=weight[0].numel()**-0.5)
        else:
            weight.data.fill_(float(name.endswith(("weight", "scale"))))
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def random_unet(family: type, config: dict, base: BaseModel) -> Subject:
    """A UNet, and a random head of the published shape."""
    patcher = random_model(family, config, torch.float16)
    with torch.inference_mode(False):
        head = ReadoutHead("pose", taps.channels(patcher.model.diffusion_model), base_model=base.name).eval().requires_grad_(False)
    more = {"pooled_output": torch.randn(1, 1280), "width": 256, "height": 256}  # SDXL's own
    return Subject(patcher, head, [[torch.randn(1, 77, base.text_width), more]], (1, 4, 32, 32))


def demo(shape: tuple = (4, 3, 64, 64)) -> Subject:
    model, clip, _ = load_demo()
    return Subject(model, load_head(HEADS_FOLDER / "demo_pose.safetensors"), clip.encode_from_tokens_scheduled(clip.tokenize("room")), shape)


MODELS = {"demo": demo,
          "sd15": lambda: random_unet(comfy.supported_models.SD15, SD15_UNET, BASE_MODELS["sdv15"]),
          "sdxl": lambda: random_unet(comfy.supported_models.SDXL, SDXL_UNET, BASE_MODELS["sdxl"])}


@torch.inference_mode(False)
def spatial(head: ReadoutHead, **when: float) -> Spatial:
    """A target for a spatial head; `when` it acts, if not by default."""
    return Spatial(name=head.kind, head=head, image=torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), **when)


def linear(subject: Subject) -> LinearHead:
    """A head such as Fit Readout Head makes, with random weights, that reads at the same size as the subject's."""
    rng = torch.Generator().manual_seed(3)
    maps = [(torch.randn(sum(subject.head.channels), 3, generator=rng) * 1e-3, torch.zeros(3)) for _ in range(BANDS)]
    levels = torch.randn(LEVELS, taps.embedding_width(subject.model.model.diffusion_model), generator=rng)
    return from_maps("pose", subject.head.channels, maps, levels, stride=subject.head.stride)


@torch.inference_mode(False)
def drag(subject: Subject, cache_mb: int, head=None, **when: float) -> Drag:
    """A drag on a reference of noise, read by a random head as large as the subject's if no other is given."""
    clean, noise = (torch.randn(subject.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 0))  # the noise that `sample` takes
    sigma = float(subject.model.get_model_object("model_sampling").sigma_max)
    reference = wrap(subject.model, renoised(clean, clean + sigma * noise, sigma), subject.conditioning, cache_mb)
    torch.manual_seed(2)
    head = head or ReadoutHead("correspondence", subject.head.channels, projection_dim=subject.head.bottleneck_layers[0].conv3.out_channels,
                               emb_channels=None, out_channels=None, stride=subject.head.stride).eval().requires_grad_(False)
    return Drag(name="drag", head=head, reference=reference, paths=torch.tensor([[[0.3, 0.3], [0.6, 0.6]]]), **when)


def guided_by(subject: Subject, *targets, move: Move = Move(), recompute: str = "off"):
    """The subject's MODEL, guided; whether blocks are computed again does not depend on the memory that is free."""
    return guided("bench", subject.model, targets, move, recompute=recompute)


def steps(subject: Subject) -> dict:
    """The MODELs whose steps are compared, the plain one among them."""
    target = spatial(subject.head, **ALL_THE_TIME)
    return {"plain": subject.model, "default": guided_by(subject, target),
            "default, blocks computed again": guided_by(subject, target, recompute="on"),
            "fresh forward": guided_by(subject, target, move=Move(0.05, per_step=True, fresh=True)),
            "published": guided_by(subject, target, move=PUBLISHED),
            "fitted head": guided_by(subject, spatial(linear(subject), **ALL_THE_TIME)),
            "two targets": guided_by(subject, target, target),
            "drag, reference cached": guided_by(subject, drag(subject, 4096, **ALL_THE_TIME)),
            "drag without a head": guided_by(subject, drag(subject, 4096, AS_THEY_ARE, **ALL_THE_TIME)),
            "drag, reference carried along": guided_by(subject, drag(subject, 0, **ALL_THE_TIME))}


def images(subject: Subject) -> dict:
    """The MODELs whose whole images are compared, with targets that act when they do by default."""
    return {"plain": subject.model, "default": guided_by(subject, spatial(subject.head)), "fitted head": guided_by(subject, spatial(linear(subject))),
            "drag": guided_by(subject, drag(subject, 4096))}
