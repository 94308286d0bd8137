"""What a MODEL or its conditioning can carry, put on a graph: the host's own features, by name in FEATURES."""
import tempfile
from types import SimpleNamespace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.gligen
import comfy.hooks
import comfy.model_patcher
import comfy.ops
import comfy.samplers
import comfy.sd
import nodes as host_nodes
import torch
from comfy.t2i_adapter.adapter import Adapter
from comfy_extras import (
    nodes_custom_sampler,
    nodes_easycache,
    nodes_freelunch,
    nodes_hypernetwork,
    nodes_model_advanced,
    nodes_pag,
    nodes_perpneg,
    nodes_sag,
    nodes_tomesd,
)

from random_models import MODELS, SMALL, conditioning, random_model
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

SIZE, SEED = (16, 24), 3
CPU = torch.device("cpu")


def make_head(name, kind="pose"):
    _, config, channels = MODELS[name]
    torch.manual_seed(0)
    with torch.inference_mode(False):
        head = ReadoutHead(kind, channels, emb_channels=4 * config["model_channels"], projection_dim=128,
                           out_channels=3 if kind == "pose" else None)
        return head.eval().requires_grad_(False)


class Graph:
    """A model, its conditionings, and how they are sampled; a feature changes some of these."""

    scheduler, sampler = "normal", "euler"
    move = Move(moves=1)  # what is looked at is a step

    def __init__(self, model=None, name="small"):
        self.name, self.model = name, model or random_model(name)
        self.positive, self.negative = self.said(1), self.said(2)
        self.latent = {"samples": torch.zeros_like(self.image())}
        self.cfg, self.options, self.recompute = 3.0, {}, "off"
        self.guider = self.sigmas = None
        self.target = Spatial(name="pose", head=self.head(), end=0.9,
                              image=torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(4)))

    def said(self, seed: int) -> list:
        """A conditioning."""
        return conditioning(MODELS[self.name][1]["context_dim"], seed)

    def image(self) -> torch.Tensor:
        """Latents of one."""
        return torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(9))

    def head(self):
        """One that reads this model's features."""
        return make_head(self.name)

    def run(self, guides: bool = True) -> torch.Tensor:
        model = guided("test", self.model, (self.target,), self.move, recompute=self.recompute) if guides else self.model
        if self.guider is None and self.sigmas is None:
            return host_nodes.common_ksampler(model, SEED, 4, self.cfg, self.sampler, self.scheduler, self.positive, self.negative,
                                              self.latent, **self.options)[0]["samples"]
        guider = self.guider(model) if self.guider else nodes_custom_sampler.CFGGuider.execute(model, self.positive, self.negative,
                                                                                              self.cfg)[0]
        sigmas = self.sigmas if self.sigmas is not None else comfy.samplers.calculate_sigmas(
            model.get_model_object("model_sampling"), self.scheduler, 4)
        noise = nodes_custom_sampler.RandomNoise.execute(SEED)[0]
        return nodes_custom_sampler.SamplerCustomAdvanced.execute(
            noise, guider, comfy.samplers.sampler_object("euler"), sigmas, self.latent)[0]["samples"]


def random_like(weights: dict, size: float = 1.0) -> dict:
    rng = torch.Generator().manual_seed(5)
    return {k: torch.randn(v.shape, generator=rng) * size * (v[0].numel()**-0.5 if v.ndim > 1 else 0.1) for k, v in weights.items()}


def lora_file(seed: int = 6) -> dict:
    """LoRA weights for two attention projections and a convolution, under the usual names."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, out, inputs in (("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 32, 32),
                              ("lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 128, 768)):
        weights[f"{name}.lora_up.weight"] = torch.randn(out, 4, generator=rng)
        weights[f"{name}.lora_down.weight"] = torch.randn(4, inputs, generator=rng)
    name = "lora_unet_up_blocks_1_resnets_0_conv1"
    weights[f"{name}.lora_up.weight"] = torch.randn(128, 4, 1, 1, generator=rng)
    weights[f"{name}.lora_down.weight"] = torch.randn(4, 256, 3, 3, generator=rng) * 0.1
    return weights


def bypassing_lora(graph):
    graph.model, _ = comfy.sd.load_bypass_lora_for_models(graph.model, None, lora_file(), 1.0, 0)


def hint() -> torch.Tensor:
    return torch.rand(1, SIZE[0] * 8, SIZE[1] * 8, 3, generator=torch.Generator().manual_seed(7))


def lora(graph):
    graph.model, _ = comfy.sd.load_lora_for_models(graph.model, None, lora_file(), 1.0, 0)


def make_controlnet():
    config = {k: v for k, v in SMALL.items() if k not in ("out_channels", "adm_in_channels", "use_temporal_attention",
                                                         "transformer_depth_output")}
    net = comfy.cldm.cldm.ControlNet(**config, num_heads=8, hint_channels=3, operations=comfy.ops.disable_weight_init, device=CPU)
    net.load_state_dict(random_like(net.state_dict(), size=0.5))
    return comfy.controlnet.ControlNet(net, load_device=CPU)


def make_adapter():
    torch.manual_seed(0)
    adapter = Adapter(cin=3 * 64, channels=[32, 64, 128, 128], nums_rb=2, ksize=1, sk=True, use_conv=False, xl=False)
    return comfy.controlnet.T2IAdapter(adapter, 3, 8, "nearest-exact", CPU)


def apply_control(graph, control):
    graph.positive, graph.negative = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
        graph.positive, graph.negative, control, hint(), 1.0, 0.0, 1.0)


def controlnet(graph):
    apply_control(graph, make_controlnet())


def t2i_adapter(graph):
    apply_control(graph, make_adapter())


def controlnet_and_t2i_adapter(graph):
    apply_control(graph, make_controlnet())
    apply_control(graph, make_adapter())


def gligen_boxes(graph):
    net = comfy.gligen.Gligen([comfy.gligen.GatedSelfAttentionDense(width, 768, 8, width // 8) for width in
                               (32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 64, 64, 64, 32, 32, 32)],
                              comfy.gligen.PositionNet(768, 768), 768)
    net.load_state_dict(random_like(net.state_dict()) | {k: torch.tensor(0.5) for k in net.state_dict() if "alpha" in k})
    patcher = comfy.model_patcher.ModelPatcher(net, load_device=CPU, offload_device=CPU)
    said = torch.randn(1, 768, generator=torch.Generator().manual_seed(7))
    clip = SimpleNamespace(tokenize=str, encode_from_tokens=lambda *_, **__: (None, said))  # its real weights tell nothing here
    graph.positive, = host_nodes.GLIGENTextBoxApply().append(graph.positive, clip, patcher, "a hat", 64, 64, 32, 16)


def hypernetwork(graph):
    rng = torch.Generator().manual_seed(7)
    layer = {f"linear.{i}.{k}": torch.randn(shape, generator=rng) * 0.05 for i in (0, 1) for k, shape in (("weight", (768, 768)), ("bias", 768))}
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"activation_func": "relu", 768: (layer, layer)}, f"{folder}/net.pt")
        patch = nodes_hypernetwork.load_hypernetwork_patch(f"{folder}/net.pt", 1.0)
    graph.model = graph.model.clone()
    graph.model.set_model_attn2_patch(patch)


def patch_of_another_pack(graph):
    """It overwrites what it has computed with, and multiplies by a tensor that was made in inference mode."""
    share = torch.rand(2, 1, 1, generator=torch.Generator().manual_seed(7))[1:]

    def patch(out, _options):
        wave = out.sin()
        out *= share
        return out + wave * share

    graph.model = graph.model.clone()
    graph.model.set_model_attn2_output_patch(patch)


def half_areas(graph):
    other = graph.said(8)
    left, right = (host_nodes.ConditioningSetAreaPercentage().append(c, 0.6, 1.0, x, 0.0, 1.0)[0]
                   for c, x in ((graph.positive, 0.0), (other, 0.4)))
    graph.positive = left + right


def area_over_the_whole(graph):
    other = host_nodes.ConditioningSetArea().append(graph.said(8), 64, 96, 40, 24, 0.7)[0]
    graph.positive = graph.positive + other


def a_small_area(graph):
    """Of a height that the UNet does not halve evenly."""
    graph.positive = graph.positive + host_nodes.ConditioningSetArea().append(graph.said(8), 72, 72, 40, 24, 0.7)[0]


def left_mask() -> torch.Tensor:
    mask = torch.zeros(1, *SIZE)
    mask[..., :12] = 1
    return mask


def masks(graph):
    other = graph.said(8)
    graph.positive = (host_nodes.ConditioningSetMask().append(graph.positive, left_mask(), "default", 1.0)[0]
                      + host_nodes.ConditioningSetMask().append(other, 1 - left_mask(), "default", 0.8)[0])


def default_conditioning(graph):
    masked = comfy.hooks.set_mask_for_conditioning(graph.said(8), left_mask(), "default", 1.0)
    graph.positive, = comfy.hooks.set_default_conds_and_combine([masked], [graph.positive])


def timestep_ranges(graph):
    set_range = host_nodes.ConditioningSetTimestepRange().set_range
    graph.positive = set_range(graph.positive, 0.0, 0.4)[0] + set_range(graph.said(8), 0.4, 1.0)[0]


def gap_in_the_timestep_ranges(graph):
    graph.positive = host_nodes.ConditioningSetTimestepRange().set_range(graph.positive, 0.3, 1.0)[0]


def lora_hook(seed: int = 6, keyframes=()):
    group = comfy.hooks.create_hook_lora(lora_file(seed), 1.0, 0)
    if keyframes:
        frames = comfy.hooks.HookKeyframeGroup()
        for at, strength in keyframes:
            frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=at))
        group.set_keyframes_on_hooks(frames)
    return group


def hooked_lora(graph):
    graph.positive = comfy.hooks.set_hooks_for_conditioning(graph.positive, lora_hook())


def scheduled_lora(graph):
    graph.positive = comfy.hooks.set_hooks_for_conditioning(graph.positive, lora_hook(keyframes=((0.0, 0.2), (0.3, 1.5))))


def two_hooked_loras_with_masks(graph):
    one = comfy.hooks.set_hooks_for_conditioning(graph.positive, lora_hook(6))
    two = comfy.hooks.set_hooks_for_conditioning(graph.said(8), lora_hook(9))
    graph.positive = (host_nodes.ConditioningSetMask().append(one, left_mask(), "default", 1.0)[0]
                      + host_nodes.ConditioningSetMask().append(two, 1 - left_mask(), "default", 1.0)[0])


def lora_hooks_in_turn(graph):
    set_range = host_nodes.ConditioningSetTimestepRange().set_range
    one = comfy.hooks.set_hooks_for_conditioning(graph.positive, lora_hook(6))
    two = comfy.hooks.set_hooks_for_conditioning(graph.said(8), lora_hook(9))
    graph.positive = set_range(one, 0.0, 0.4)[0] + set_range(two, 0.4, 1.0)[0]


def inpainting_mask(graph):
    graph.latent = {"samples": graph.image(), "noise_mask": left_mask()[None]}


def img2img(graph):
    graph.latent, graph.options = {"samples": graph.image()}, {"denoise": 0.6}


def start_and_end_steps(graph):
    graph.latent, graph.options = {"samples": graph.image()}, {"start_step": 1, "last_step": 3, "force_full_denoise": False}


def custom_sigmas(graph):
    graph.sigmas = torch.tensor([12.0, 5.0, 4.9, 1.0, 0.3, 0.0])


def dual_cfg(graph):
    graph.guider = lambda model: nodes_custom_sampler.DualCFGGuider.execute(model, graph.positive, graph.said(8), graph.negative,
                                                                            3.0, 2.0, "regular")[0]


def perpendicular_negative(graph):
    graph.guider = lambda model: nodes_perpneg.PerpNegGuider.execute(model, graph.positive, graph.negative, graph.said(8), 3.0,
                                                                     1.0)[0]


def basic_guider(graph):
    graph.guider = lambda model: nodes_custom_sampler.BasicGuider.execute(model, graph.positive)[0]


def cfg_1(graph):
    graph.cfg = 1.0


def patched(node, *arguments):
    def feature(graph):
        graph.model = node(graph.model, *arguments)[0]
    return feature


def two_images(graph):
    graph.latent = {"samples": torch.cat([graph.latent["samples"]] * 2)}


FEATURES = {
    "LoRA": lora, "LoRA in bypass mode": bypassing_lora, "ControlNet": controlnet, "T2I-Adapter": t2i_adapter,
    "ControlNet and T2I-Adapter": controlnet_and_t2i_adapter,
    "GLIGEN boxes": gligen_boxes, "hypernetwork": hypernetwork, "a patch of another pack": patch_of_another_pack,
    "areas side by side": half_areas, "an area over the whole": area_over_the_whole, "a small area": a_small_area, "masked conditionings": masks,
    "default conditioning": default_conditioning, "timestep ranges": timestep_ranges, "a gap in them": gap_in_the_timestep_ranges,
    "LoRA hook": hooked_lora, "LoRA hook with keyframes": scheduled_lora, "two LoRA hooks, masked": two_hooked_loras_with_masks,
    "LoRA hooks in turn": lora_hooks_in_turn,
    "inpainting mask": inpainting_mask, "img2img": img2img, "start and end steps": start_and_end_steps, "custom sigmas": custom_sigmas,
    "dual CFG": dual_cfg, "perpendicular negative": perpendicular_negative, "basic guider": basic_guider, "cfg 1": cfg_1,
    "two pictures": two_images,
    "perturbed attention": patched(nodes_pag.PerturbedAttentionGuidance.execute, 2.0),
    "self-attention guidance": patched(nodes_sag.SelfAttentionGuidance.execute, 0.5, 2.0),
    "token merging": patched(nodes_tomesd.TomePatchModel.execute, 0.4),
    "EasyCache": patched(nodes_easycache.EasyCacheNode.execute, 3.0, 0.0, 0.95, False),
    "FreeU": patched(nodes_freelunch.FreeU_V2.execute, 1.3, 1.4, 0.9, 0.2),
    "flow sampling": patched(lambda *a: nodes_model_advanced.ModelSamplingSD3().patch(*a), 3.0),
    "v-prediction": patched(lambda *a: nodes_model_advanced.ModelSamplingDiscrete().patch(*a), "v_prediction", False),
    "zero terminal SNR": patched(lambda *a: nodes_model_advanced.ModelSamplingDiscrete().patch(*a), "v_prediction", True),
    "rescaled CFG": patched(lambda *a: nodes_model_advanced.RescaleCFG().patch(*a), 0.7),
}
