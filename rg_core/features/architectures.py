"""Where diffusion models are tapped: a row for each architecture, UNets and transformers alike.

To add one: a row here, and a small model of it in tests/support/tiny_transformers.py, on which the tests then run.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn


class NoTaps(ValueError):
    """The diffusion model has no features that a head could read, or not those that it should."""


@dataclass
class Call:
    """One call of a diffusion model: itself, its input [B, C, H, W], its transformer_options, and what else it was given, by name."""
    model: nn.Module
    x: Tensor
    options: dict
    given: dict

    @property
    def patch(self) -> int:
        return architecture_of(self.model).patch_of(self.model)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in tokens; a model pads its input up to whole patches."""
        height, width = self.x.shape[-2:]
        return -(-height // self.patch), -(-width // self.patch)


Layout = Callable[[Tensor, Call], Tensor]  # from a block's output to its features [B, C, h, w]


def as_map(x: Tensor, call: Call) -> Tensor:
    """[B, C, h, w], as in UNets."""
    return x


def as_grid(x: Tensor, call: Call) -> Tensor:
    """[B, 1, h, w, C]."""
    return copied(x.squeeze(1).movedim(-1, 1))


def tokens(x: Tensor, call: Call, begin: int) -> Tensor:
    """[B, tokens, C], of which the image's begin there."""
    height, width = call.size
    return copied(x[:, begin:begin + height * width].mT.unflatten(2, (height, width)))


def copied(x: Tensor) -> Tensor:
    """The next blocks may add to what they are given in place, which would change the features after they were read."""
    return x.clone(memory_format=torch.contiguous_format)


def first(x: Tensor, call: Call) -> Tensor:
    """Tokens of the image, then those of references."""
    return tokens(x, call, 0)


def after_reference(x: Tensor, call: Call) -> Tensor:
    """Tokens of a reference, in the models that take one so (Wan's Fun Control), of the image, and of other references."""
    reference = None if call.model.ref_conv is None else call.given.get("reference_latent")
    return tokens(x, call, 0 if reference is None else math.prod(n // call.patch for n in reference.shape[-2:]))


def on_the_left(x: Tensor, call: Call) -> Tensor:
    """Tokens of the image, beside those of one that HiDream-E1 is given to edit: rows go through both."""
    height, width = call.size
    beside = call.given.get("image_cond")
    row = width if beside is None else -(-(call.x.shape[-1] + beside.shape[-1]) // call.patch)
    return copied(x[:, :height * row].mT.unflatten(2, (height, row))[..., :width])


def after_text(x: Tensor, call: Call) -> Tensor:
    """Tokens of the text, of which the options say how many they are, of the image, and of references."""
    if "img_slice" not in call.options:
        raise NoTaps("a block was not given img_slice, which says where the image begins")
    return tokens(x, call, call.options["img_slice"][0])


def last(x: Tensor, call: Call) -> Tensor:
    """Tokens of text and references, of the image, and what fills it up to a multiple."""
    height, width = call.size
    multiple = getattr(call.model, "pad_tokens_multiple", None) or 1
    return tokens(x, call, x.shape[1] - -(-height * width // multiple) * multiple)


@dataclass(frozen=True)
class Stream:
    """A list of blocks, each of which can be tapped: at `part`, a module in it, or as a whole; of several outputs at this one."""
    blocks: str
    layout: Layout
    output: int | None = None
    part: str = ""


@dataclass(frozen=True)
class Architecture:
    """`classes` are the ends of their full names. Paths lead from the model: `width` to the channels of its tokens, if those are
    of one width, `patch` to a side of a patch in latent pixels, if that is not a number. `before` are lists of blocks that the image
    passes first. A model that `overwrites` adds to its features in place. `embedding` is what makes one of the timestep alone, for
    heads to be told by. `edited` is by which name a conditioning has an image that passes the blocks beside the one being made."""
    classes: tuple[str, ...]
    streams: tuple[Stream, ...]
    width: str = "hidden_size"
    patch: str | int = "patch_size"
    before: tuple[str, ...] = ()
    overwrites: bool = False
    embedding: str = ""
    edited: str = "reference_latents"

    def patch_of(self, model: nn.Module) -> int:
        if isinstance(self.patch, int):
            return self.patch
        found = attrgetter(self.patch)(model)
        return found if isinstance(found, int) else found[-1]


TABLE = (
    # Luo et al., "Readout Guidance", CVPR 2024, section 3.1: the second convolution stack of each decoder block, before the residual sum.
    Architecture(("diffusionmodules.openaimodel.UNetModel",), (Stream("output_blocks", as_map, part="0.out_layers"),), "", 1,
                 embedding="time_embed"),
    Architecture(("flux.model.Flux", "chroma.model.Chroma", "chroma_radiance.model.ChromaRadiance", "hunyuan_video.model.HunyuanVideo"),
                 (Stream("double_blocks", first, 0), Stream("single_blocks", after_text)), overwrites=True),
    Architecture(("diffusionmodules.mmdit.MMDiT", "diffusionmodules.mmdit.OpenAISignatureMMDITWrapper"), (Stream("joint_blocks", first, 1),)),
    Architecture(("lumina.model.NextDiT", "lumina.model.NextDiTPixelSpace"), (Stream("layers", last),), "dim", before=("noise_refiner",)),
    Architecture(("qwen_image.model.QwenImageTransformer2DModel", "mage_flow.model.MageFlowTransformer2DModel"),
                 (Stream("transformer_blocks", first, 1),), "inner_dim"),
    Architecture(("joyimage.model.JoyImageTransformer3DModel",), (Stream("double_blocks", first, 0),), "img_in.out_channels"),
    Architecture(("aura.mmdit.MMDiT",), (Stream("double_layers", first, 1), Stream("single_layers", last)), "init_x_linear.out_features"),
    Architecture(("hidream.model.HiDreamImageTransformer2DModel",),
                 (Stream("double_stream_blocks", on_the_left, 0), Stream("single_stream_blocks", on_the_left)), "inner_dim",
                 edited="concat_latent_image"),
    Architecture(("hydit.models.HunYuanDiT", "pixart.pixartms.PixArtMS"), (Stream("blocks", first),)),
    Architecture(("cosmos.predict2.MiniTrainDIT", "anima.model.Anima"), (Stream("blocks", as_grid),), "model_channels", "patch_spatial"),
    Architecture(("wan.model.WanModel",), (Stream("blocks", after_reference),), "dim"),
    Architecture(("kandinsky5.model.Kandinsky5",), (Stream("visual_transformer_blocks", first),), "model_dim"),
    Architecture(("omnigen.omnigen2.OmniGen2Transformer2DModel",), (Stream("layers", last),), before=("noise_refiner",)),
    Architecture(("boogu.model.BooguTransformer2DModel",), (Stream("double_stream_layers", last, 0), Stream("single_stream_layers", last)),
                 before=("noise_refiner",)),
    Architecture(("ideogram4.model.Ideogram4Transformer2DModel",), (Stream("layers", last),), "input_proj.out_features", 1),
    Architecture(("ernie.model.ErnieImageModel",), (Stream("layers", first),)),
    Architecture(("krea2.model.SingleStreamDiT",), (Stream("blocks", after_text),), "first.out_features", "patch"),
    Architecture(("lens.model.LensTransformer2DModel",), (Stream("transformer_blocks", first, 1),), "inner_dim", 1),
    Architecture(("pixeldit.model.PixDiT_T2I",), (Stream("patch_blocks", first, 0),)),
)


def architecture_of(model: nn.Module) -> Architecture:
    """The row of `model`. Raises NoTaps."""
    name = class_name(model)
    found = next((row for row in TABLE if any(name.endswith(f".{known}") for known in row.classes)), None)
    if found is None:
        raise NoTaps(f"{name.rpartition('.')[2]} is not a supported architecture")
    return found


def class_name(model: nn.Module) -> str:
    """That of the host's class, where other packs have made one of their own from it; its relatives in the host work differently."""
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
    return next((kind for kind in kinds if kind.startswith("comfy.")), kinds[0])
