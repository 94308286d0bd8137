"""A tiny model with random weights for every row of rg_core/features/architectures.py but the UNet's, of the host's own classes."""
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import comfy.ops
import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.chroma_radiance.model import ChromaRadianceParams
from torch import Tensor, nn

from random_models import patcher_of
from tools.random_weights.checkpoints import drawn as drawn_weights
from tools.random_weights.transformer_checkpoints import vae

WORDS, WIDTH, POOLED = 5, 48, 32  # of conditionings


class Tiny(NamedTuple):
    """A class of the host's and what it is built with; the latents [B, C, H, W] or [B, C, 1, H, W] that it takes, of an odd size where it can;
    `call(model, x, t, options, **more)` asks it about latents at the noise level t [B], 0 to 1."""
    module: str
    name: str
    config: dict
    shape: tuple[int, ...]
    call: Callable


def drawn(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def words(x: Tensor, width: int = WIDTH, count: int = WORDS) -> Tensor:
    return drawn(1, count, width).repeat(len(x), 1, 1)


def pooled(x: Tensor) -> Tensor:
    return drawn(1, POOLED, seed=3).repeat(len(x), 1)


FLUX = {"in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED, "context_in_dim": WIDTH, "hidden_size": 64, "mlp_ratio": 2.0,
        "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2, "qkv_bias": True,
        "guidance_embed": True, "txt_ids_dims": []}
FLUX2 = FLUX | {"in_channels": 128, "out_channels": 128, "vec_in_dim": None, "mlp_ratio": 3.0, "axes_dim": [8, 8, 8, 8], "theta": 2000,
                "patch_size": 1, "qkv_bias": False, "guidance_embed": False, "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True,
                "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0}
CHROMA = {key: value for key, value in FLUX.items() if key not in ("in_channels", "out_channels", "guidance_embed")} | {
    "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "in_dim": 64, "out_dim": 64, "hidden_dim": 32, "n_layers": 2}
SD3 = {"input_size": None, "patch_size": 2, "in_channels": 16, "depth": 2, "num_blocks": 3, "adm_in_channels": POOLED,
       "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128}}, "pos_embed_max_size": 8,
       "num_patches": 64, "qk_norm": "rms", "x_block_self_attn_layers": [0]}
LUMINA = {"patch_size": 2, "in_channels": 16, "dim": 96, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 1,
          "axes_dims": [8, 12, 12], "axes_lens": [64, 64, 64], "rope_theta": 10000.0, "ffn_dim_multiplier": 1.0, "multiple_of": 32, "qk_norm": True,
          "cap_feat_dim": WIDTH}
ZIMAGE = LUMINA | {"dim": 256, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "rope_theta": 256.0, "z_image_modulation": True,
                   "time_scale": 1000.0, "pad_tokens_multiple": 32}
ZIMAGE_PIXEL = ZIMAGE | {"in_channels": 3, "patch_size": 8, "decoder_hidden_size": 32, "decoder_num_res_blocks": 1, "decoder_max_freqs": 4}
QWEN = {"num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": WIDTH, "axes_dims_rope": (8, 12, 12)}
MAGE = QWEN | {"in_channels": 128, "out_channels": 128}
JOY = {"hidden_size": 128, "num_attention_heads": 1, "num_layers": 3, "text_dim": WIDTH, "mlp_width_ratio": 1.0}
AURA = {"in_channels": 4, "out_channels": 4, "dim": 64, "n_layers": 4, "n_double_layers": 2, "n_heads": 2, "global_conddim": 64,
        "cond_seq_dim": WIDTH, "max_seq": 64}
PIXART = {"input_size": 8, "hidden_size": 96, "depth": 3, "num_heads": 2, "caption_channels": WIDTH, "model_max_length": WORDS,
          "micro_condition": False}
HYDIT = {"input_size": None, "hidden_size": 96, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0, "text_states_dim": 1024, "text_states_dim_t5": 64,
         "text_len": 7, "text_len_t5": 9}
HIDREAM = {"patch_size": 2, "in_channels": 16, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
           "caption_channels": [WIDTH, 40], "text_emb_dim": POOLED, "num_routed_experts": 2, "num_activated_experts": 1,
           "axes_dims_rope": (8, 12, 12), "max_resolution": (16, 16), "llama_layers": [0, 1, 2, 2]}
COSMOS = {"max_img_h": 32, "max_img_w": 32, "max_frames": 4, "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
          "model_channels": 64, "num_blocks": 3, "num_heads": 2, "mlp_ratio": 2.0, "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d",
          "use_adaln_lora": True, "adaln_lora_dim": 16}
WAN = {"model_type": "t2v", "dim": 96, "ffn_dim": 96, "num_heads": 2, "num_layers": 3, "text_dim": WIDTH, "freq_dim": 32}
HUNYUAN = {"in_channels": 64, "out_channels": 64, "vec_in_dim": None, "context_in_dim": WIDTH, "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2,
           "depth": 2, "depth_single_blocks": 2, "axes_dim": [16, 16], "theta": 256, "patch_size": [1, 1], "qkv_bias": True, "guidance_embed": False,
           "byt5": False, "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False}
KANDINSKY = {"in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": WIDTH, "in_text_dim2": POOLED, "time_dim": 32, "model_dim": 64, "ff_dim": 64,
             "visual_embed_dim": 64, "num_text_blocks": 1, "num_visual_blocks": 3, "axes_dims": (8, 12, 12)}
OMNIGEN = {"hidden_size": 96, "num_layers": 3, "num_refiner_layers": 1, "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 32,
           "axes_dim_rope": (8, 12, 12), "axes_lens": (64, 64, 64), "text_feat_dim": WIDTH}
BOOGU = {"hidden_size": 96, "num_layers": 2, "num_double_stream_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 3, "num_kv_heads": 1,
         "multiple_of": 32, "axes_dim_rope": (8, 12, 12), "axes_lens": (64, 64, 64), "instruction_feat_dim": WIDTH}
ERNIE = {"hidden_size": 64, "num_attention_heads": 2, "num_layers": 3, "ffn_hidden_size": 64, "in_channels": 16, "out_channels": 16, "patch_size": 1,
         "text_in_dim": WIDTH, "rope_axes_dim": (8, 12, 12)}
KREA = {"features": 64, "tdim": 32, "txtdim": 32, "heads": 2, "kvheads": 1, "multiplier": 2, "layers": 3, "patch": 2, "channels": 16, "txtlayers": 2,
        "txtheads": 2, "txtkvheads": 2}
LENS = {"in_channels": 16, "out_channels": 4, "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 2, "enc_hidden_dim": 24,
        "axes_dims_rope": (8, 12, 12), "selected_layer_index": (0, 1)}
IDEOGRAM = {"in_channels": 16, "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 48, "intermediate_size": 64, "adaln_dim": 16,
            "llm_features_dim": WIDTH, "mrope_section": (8, 8, 8)}
PIXELDIT = {"num_groups": 2, "hidden_size": 64, "pixel_hidden_size": 4, "pixel_attn_hidden_size": 32, "pixel_num_groups": 2, "patch_depth": 3,
            "pixel_depth": 1, "patch_size": 4, "txt_embed_dim": WIDTH, "txt_max_length": 8}
RADIANCE = {key: value for key, value in (FLUX | {
    "in_channels": 3, "out_channels": 3, "vec_in_dim": None, "in_dim": 64, "out_dim": 64, "hidden_dim": 32, "n_layers": 2, "patch_size": 16,
    "nerf_hidden_size": 8, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4, "nerf_tile_size": 8, "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32, "use_x0": True, "use_sequential_txt_ids": False}).items()
    if key in ChromaRadianceParams.__dataclass_fields__}  # which are fewer on older hosts


def by_words(m, x, t, options, **more):
    return m(x, t, words(x), transformer_options=options, **more)


def by_counted_words(m, x, t, options, **more):
    return m(x, t, words(x), WORDS, transformer_options=options, **more)


def in_thousands(m, x, t, options, **more):
    return m(x, 1000 * t, words(x), transformer_options=options, **more)


def flux(m, x, t, options, **more):
    return m(x, t, words(x), pooled(x), torch.full_like(t, 3.5), transformer_options=options, **more)


def chroma(m, x, t, options, **more):
    return m(x, t, words(x), torch.zeros_like(t), transformer_options=options, **more)


def hydit(m, x, t, options):
    one = torch.ones
    return m(x, 1000 * t, words(x, 1024, 7), one(len(x), 7), words(x, 64, 9), one(len(x), 9), transformer_options=options)


def hidream(m, x, t, options, **more):
    return m(x, 1000 * t, pooled(x), words(x), drawn(1, 3, 6, 40).repeat(len(x), 1, 1, 1), transformer_options=options, **more)


TINY = {
    "flux": Tiny("flux.model", "Flux", FLUX, (16, 7, 6), flux),
    "flux2": Tiny("flux.model", "Flux", FLUX2, (128, 3, 4),
                  lambda m, x, t, o, **more: m(x, t, words(x), None, None, transformer_options=o, **more)),
    "chroma": Tiny("chroma.model", "Chroma", CHROMA, (16, 7, 6), chroma),
    "chroma-radiance": Tiny("chroma_radiance.model", "ChromaRadiance", RADIANCE, (3, 64, 48), chroma),
    "sd3": Tiny("modules.diffusionmodules.mmdit", "OpenAISignatureMMDITWrapper", SD3, (16, 7, 6),
                lambda m, x, t, o: m(x, 1000 * t, words(x), pooled(x), transformer_options=o)),
    "lumina2": Tiny("lumina.model", "NextDiT", LUMINA, (16, 7, 6), by_counted_words),
    "z-image": Tiny("lumina.model", "NextDiT", ZIMAGE, (16, 7, 6), by_counted_words),
    "z-image-pixel": Tiny("lumina.model", "NextDiTPixelSpace", ZIMAGE_PIXEL, (3, 30, 24), by_counted_words),
    "qwen-image": Tiny("qwen_image.model", "QwenImageTransformer2DModel", QWEN, (16, 1, 7, 6), by_words),
    "mage-flow": Tiny("mage_flow.model", "MageFlowTransformer2DModel", MAGE, (128, 3, 4), by_words),
    "joyimage": Tiny("joyimage.model", "JoyImageTransformer3DModel", JOY, (16, 1, 7, 6), in_thousands),
    "auraflow": Tiny("aura.mmdit", "MMDiT", AURA, (4, 7, 6), by_words),
    "pixart": Tiny("pixart.pixartms", "PixArtMS", PIXART, (4, 64, 48), lambda m, x, t, o: m(x, 1000 * t, words(x))),
    "hunyuan-dit": Tiny("hydit.models", "HunYuanDiT", HYDIT, (4, 8, 6), hydit),
    "hidream": Tiny("hidream.model", "HiDreamImageTransformer2DModel", HIDREAM, (16, 8, 6), hidream),
    "cosmos-predict2": Tiny("cosmos.predict2", "MiniTrainDIT", COSMOS, (16, 1, 7, 6), by_words),
    "wan": Tiny("wan.model", "WanModel", WAN, (16, 1, 7, 6), in_thousands),
    "wan-fun-control": Tiny("wan.model", "WanModel", WAN | {"in_dim_ref_conv": 16}, (16, 1, 7, 6), in_thousands),
    "hunyuan-image": Tiny("hunyuan_video.model", "HunyuanVideo", HUNYUAN, (64, 4, 3), in_thousands),
    "kandinsky5": Tiny("kandinsky5.model", "Kandinsky5", KANDINSKY, (16, 8, 6),
                       lambda m, x, t, o: m(x, 1000 * t, words(x), pooled(x), transformer_options=o)),
    "omnigen2": Tiny("omnigen.omnigen2", "OmniGen2Transformer2DModel", OMNIGEN, (16, 7, 6), by_counted_words),
    "boogu": Tiny("boogu.model", "BooguTransformer2DModel", BOOGU, (16, 7, 6), by_counted_words),
    "ernie-image": Tiny("ernie.model", "ErnieImageModel", ERNIE, (16, 4, 3), in_thousands),
    "krea2": Tiny("krea2.model", "SingleStreamDiT", KREA, (16, 1, 7, 6), lambda m, x, t, o: m(x, t, words(x, 64), transformer_options=o)),
    "lens": Tiny("lens.model", "LensTransformer2DModel", LENS, (16, 4, 3), by_words),
    "ideogram4": Tiny("ideogram4.model", "Ideogram4Transformer2DModel", IDEOGRAM, (16, 4, 3), by_words),
    "pixeldit": Tiny("pixeldit.model", "PixDiT_T2I", PIXELDIT, (3, 16, 12), in_thousands),
}


def kind(name: str) -> type | None:
    """The host's class; None on a host that has it not yet."""
    try:
        return getattr(import_module(f"comfy.ldm.{TINY[name].module}"), TINY[name].name)
    except (ImportError, AttributeError):
        return None


def random_weights(model: nn.Module) -> nn.Module:
    """`model` with weights that keep the size of what goes through."""
    rng = torch.Generator().manual_seed(0)
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if weight.is_floating_point() and weight.numel() and weight.ndim > 1:
            weight.data.copy_(torch.randn(weight.shape, generator=rng) * weight[0].numel()**-0.5)
        elif isinstance(weight, nn.Parameter):
            weight.data.fill_(float(name.endswith(("weight", "scale"))))
    return model.eval().requires_grad_(False)


def build(name: str) -> nn.Module:
    return random_weights(kind(name)(**TINY[name].config, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init))


# The host's families of models, whole: what it makes of a conditioning is theirs too. (Ideogram 4's words are of 53,248 channels.)
FAMILIES = {"flux": "Flux", "flux2": "Flux2", "chroma": "Chroma", "chroma-radiance": "ChromaRadiance", "sd3": "SD3", "lumina2": "Lumina2",
            "z-image": "ZImage", "z-image-pixel": "ZImagePixelSpace", "qwen-image": "QwenImage",
            "auraflow": "AuraFlow", "pixart": "PixArtAlpha", "hunyuan-dit": "HunyuanDiT", "hidream": "HiDream",
            "cosmos-predict2": "CosmosT2IPredict2", "wan": "WAN21_T2V", "hunyuan-image": "HunyuanImage21", "kandinsky5": "Kandinsky5Image",
            "omnigen2": "Omnigen2", "mage-flow": "MageFlow", "joyimage": "JoyImage", "boogu": "Boogu",
            "ernie-image": "ErnieImage", "krea2": "Krea2", "lens": "Lens", "pixeldit": "PixelDiTT2I"}
HERE = {name: family for name, family in FAMILIES.items() if kind(name) and hasattr(comfy.supported_models, family)}


def tiny_model(name: str, dtype: torch.dtype = torch.float32, cast: torch.dtype | None = None, **changes):
    """A MODEL with weights in `dtype`, computing in `cast` if that is another; `changes` are of its config."""
    config = getattr(comfy.supported_models, FAMILIES[name])(TINY[name].config | changes)
    config.latent_format.latent_channels = TINY[name].shape[0]  # some are narrower than their family's
    config.set_inference_dtype(dtype, cast)
    model = config.get_model({}, "", device=torch.device("cpu"))
    random_weights(model.diffusion_model)
    return patcher_of(model)


def video_vae() -> comfy.sd.VAE:
    """Of the kind that qwen-image and wan take latents of: to it a batch is one video."""
    return comfy.sd.VAE(sd=drawn_weights(vae("qwen_image_vae").state_dict()))


def conditioning(name: str, seed: int) -> list:
    width, more = {"krea2": 64, "hunyuan-dit": 1024}.get(name, WIDTH), {"pooled_output": drawn(1, POOLED, seed=seed)}
    if name in ("omnigen2", "boogu"):
        more["attention_mask"] = torch.ones(1, WORDS, dtype=torch.int)
    if name == "hunyuan-dit":
        more |= {"attention_mask": torch.ones(1, 7), "conditioning_mt5xl": drawn(1, 9, 64, seed=seed), "attention_mask_mt5xl": torch.ones(1, 9)}
    if name == "hidream":
        more["conditioning_llama3"] = drawn(1, 3, 6, 40, seed=seed)
    return [[drawn(1, 7 if name == "hunyuan-dit" else WORDS, width, seed=seed), more]]
