"""What a transformer and its conditioning can carry, under guidance: as test_host_features.py, whose checks and features these are where both
have them."""
import comfy.controlnet
import comfy.ldm.flux.controlnet
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.taesd.taesd
import nodes as host_nodes
import pytest
import torch
from comfy.cli_args import PerformanceFeature, args
from comfy.ldm.lumina.controlnet import ZImage_Control
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras import (
    nodes_context_windows,
    nodes_custom_sampler,
    nodes_edit_model,
    nodes_flux,
    nodes_model_advanced,
    nodes_model_patch,
    nodes_slg,
)

from host_features import FEATURES, SIZE, Graph, apply_control, hint, left_mask, patched, random_like
from kept import checked, close
from random_models import patcher_of
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.guidance.targets import Appearance
from tiny_transformers import FLUX, HERE, TINY, conditioning, drawn, random_weights, tiny_model, video_vae
from transformer_sampling import depth_head

pytestmark = pytest.mark.usefixtures("inference_mode")
CPU = torch.device("cpu")
# Features added to in place and text apart; text before the image, and filled up; latents of five dimensions.
NAMES = [name for name in ("flux", "z-image", "qwen-image") if name in HERE]


class Transformer(Graph):
    scheduler = "simple"

    def said(self, seed):
        return conditioning(self.name, seed)

    def image(self):
        return drawn(1, *TINY[self.name].shape[:-2], *SIZE, seed=9)

    def head(self):
        return depth_head(self.model)


def transformer(name: str, **changes) -> Transformer:
    return Transformer(tiny_model(name, **changes), name)


def first_layer(graph) -> tuple[str, torch.nn.Module]:
    """The first matrix of the first block that is read, and its name."""
    unet = graph.model.model.diffusion_model
    block = taps.names(unet)[0]
    return next((f"{block}.{name}", m) for name, m in unet.get_submodule(block).named_modules() if getattr(m, "weight", None) is not None
                and m.weight.ndim == 2)


def lora(graph):
    name, layer = first_layer(graph)
    out, inputs = layer.weight.shape
    key = f"lora_unet_{name.replace('.', '_')}"
    graph.model, _ = comfy.sd.load_lora_for_models(graph.model, None, {f"{key}.lora_up.weight": drawn(out, 4), f"{key}.lora_down.weight": drawn(
        4, inputs, seed=3)}, 1.0, 0)
    assert graph.model.patches


def small_vae() -> comfy.sd.VAE:
    """The tiny autoencoder of Flux.1's and SD3's latents, with random weights."""
    return comfy.sd.VAE(sd=random_like(comfy.taesd.taesd.TAESD(latent_channels=16).state_dict()))


def controlnet(graph):
    """One of Flux.1, of which others have the same way of adding to blocks."""
    net = comfy.ldm.flux.controlnet.ControlNetFlux(latent_input=True, control_latent_channels=16, operations=comfy.ops.disable_weight_init,
                                                   device=CPU, dtype=torch.float32, **FLUX)
    net.main_model_double, net.main_model_single = FLUX["depth"], FLUX["depth_single_blocks"]  # else the blocks of a tiny model are not reached
    control = comfy.controlnet.ControlNet(random_weights(net), compression_ratio=1, latent_format=comfy.latent_formats.Flux(), load_device=CPU,
                                          extra_conds=["y", "guidance"])
    control.vae = small_vae()
    apply_control(graph, control)
    for said in (graph.positive, graph.negative):
        said[0][1]["control"].vae = control.vae


def patched_by(graph, network, autoencoder):
    """`network` adds to the blocks' outputs in place, between one block and the next."""
    patch = patcher_of(random_weights(network))
    graph.model, = nodes_model_patch.QwenImageDiffsynthControlnet().diffsynth_controlnet(graph.model, patch, autoencoder, hint(), 0.5)


def zimage_patch(graph):
    patched_by(graph, ZImage_Control(dim=256, n_heads=4, n_kv_heads=4, multiple_of=32, n_control_layers=2, operations=comfy.ops.manual_cast),
               small_vae())


def qwen_patch(graph):
    net = nodes_model_patch.QwenImageBlockWiseControlNet(3, dim=64, operations=comfy.ops.manual_cast)
    patched_by(graph, net, video_vae())


def reference_latent(graph):
    graph.positive = nodes_edit_model.ReferenceLatent.execute(graph.positive, {"samples": drawn(*graph.image().shape[:-2], 8, 8, seed=5)})[0]


def two_reference_latents(graph):
    reference_latent(graph)
    graph.positive = nodes_edit_model.ReferenceLatent.execute(graph.positive, {"samples": graph.image()})[0]


def flux_guidance(graph):
    graph.positive = nodes_flux.FluxGuidance.execute(graph.positive, 8.0)[0]


def skipping_layers(graph):
    """The third pass, with layers left out, is not ours: it must not be taken for ours with blocks missing."""
    graph.model = nodes_slg.SkipLayerGuidanceDiT.execute(graph.model, 3.0, 0.0, 1.0, double_layers="0", single_layers="0,1")[0]


def distilled(graph):
    """One branch, few steps."""
    graph.guider = lambda model: nodes_custom_sampler.BasicGuider.execute(model, graph.positive)[0]
    graph.sigmas = torch.tensor([1.0, 0.7, 0.4, 0.0])


SHARED = ["areas side by side", "an area over the whole", "a small area", "masked conditionings", "default conditioning", "timestep ranges",
          "a gap in them", "inpainting mask", "img2img", "start and end steps", "dual CFG", "perpendicular negative", "basic guider", "cfg 1",
          "two pictures", "EasyCache", "rescaled CFG"]
OWN = {"LoRA": lora, "one branch and few steps": distilled,
       "another shift": patched(lambda *a: nodes_model_advanced.ModelSamplingSD3().patch(*a), 7.0)}
ONE_MODELS = {("flux", "ControlNet"): controlnet, ("flux", "guidance"): flux_guidance, ("flux", "layers left out"): skipping_layers,
              ("flux", "a reference latent"): reference_latent, ("flux", "two reference latents"): two_reference_latents,
              ("z-image", "a model patch"): zimage_patch, ("qwen-image", "a model patch"): qwen_patch,
              ("qwen-image", "a reference latent"): reference_latent, ("qwen-image", "two reference latents"): two_reference_latents}
# Areas in shares of latents with frames: the host finds no third number for them, guided or not.
NOT_IN_THE_HOST = {("qwen-image", "areas side by side")}
CASES = [*((name, what, FEATURES[what]) for name in NAMES for what in SHARED if (name, what) not in NOT_IN_THE_HOST),
         *((name, what, add) for name in NAMES for what, add in OWN.items()),
         *((name, what, add) for (name, what), add in ONE_MODELS.items() if name in NAMES)]
every_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def plain():
    with torch.inference_mode():
        yield {name: transformer(name).run() for name in NAMES}


@pytest.mark.parametrize("name,add", [pytest.param(name, add, id=f"{name}, {what}") for name, what, add in CASES])
def test_feature_and_guidance_keep_each_other(plain, name, add, caplog):
    graph = transformer(name)
    add(graph)
    assert not torch.equal(checked(graph), plain[name])
    assert "could not be applied" not in caplog.text


@every_model
@pytest.mark.parametrize("what", ["areas side by side", "masked conditionings", "LoRA", "two pictures", "ControlNet", "a model patch",
                                  "a reference latent"])
def test_a_move_is_the_same_with_blocks_computed_again(name, what):
    add = FEATURES[what] if what in SHARED else OWN.get(what) or ONE_MODELS.get((name, what))
    if add is None or (name, what) in NOT_IN_THE_HOST:
        pytest.skip("not of this model")
    moves = []
    for again in ("off", "on"):
        graph = transformer(name)
        add(graph)
        graph.recompute, graph.sigmas = again, torch.tensor([0.9, 0.5])
        moves.append(graph.run() - graph.run(False))
    assert (moves[0] - moves[1]).norm() <= 1e-5 * moves[0].norm()


@every_model
def test_the_same_words_in_two_masks_or_areas_are_the_same_words_once(plain, name):
    graph = transformer(name)
    graph.positive = [part for mask in (left_mask(), 1 - left_mask())
                      for part in host_nodes.ConditioningSetMask().append(graph.positive, mask, "default", 1.0)[0]]
    assert close(checked(graph), plain[name])
    if (name, "areas side by side") in NOT_IN_THE_HOST:
        return
    graph = transformer(name)
    half, = host_nodes.ConditioningSetAreaPercentage().append(graph.positive, 1.0, 1.0, 0.0, 0.0, 0.5)
    graph.positive = half + half
    assert close(checked(graph), plain[name])


@every_model
@pytest.mark.parametrize("dtype,cast", [(torch.bfloat16, None), (torch.float8_e4m3fn, torch.float32)], ids=["bf16", "fp8 weights"])
def test_narrow_types(name, dtype, cast):
    exact = {"guidance_embed": False} if name == "flux" else {}  # the host takes a guidance of 3.5 for 3.504 in bf16
    wide, narrow = transformer(name, **exact), transformer(name, dtype=dtype, cast=cast, **exact)
    checked(narrow)
    for weight in wide.model.model.diffusion_model.parameters():
        weight.data = weight.to(dtype).float()
    moves = []
    for graph in (narrow, wide):
        graph.sigmas = torch.tensor([0.9, 0.5])
        moves.append((graph.run() - graph.run(False)).flatten())
    assert torch.cosine_similarity(*moves, dim=0) > 0.9


def test_fast_products_in_fp8_rest_in_guided_steps(monkeypatch, caplog):
    """In the branches without a gradient too: cfg would multiply the difference."""
    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    models, product = [], comfy.ops.fp8_linear
    for fast in (set(), {PerformanceFeature.Fp8MatrixMultiplication}):
        monkeypatch.setattr(args, "fast", fast)
        models.append(transformer("qwen-image", dtype=torch.float8_e4m3fn, cast=torch.bfloat16))
        models[-1].sigmas = torch.tensor([0.9, 0.5])
    wide, narrow = models
    assert not torch.equal(wide.run(False), narrow.run(False))
    with caplog.at_level("INFO"):
        assert torch.equal(wide.run(), narrow.run())
    assert "fp8 op" not in caplog.text  # which the host says of each layer in which they fail
    assert comfy.ops.fp8_linear is product


@every_model
def test_weights_that_another_pack_has_packed(plain, name):
    """As ComfyUI-GGUF does; see test_host_features.py."""
    class Bytes(torch.Tensor):
        pass

    graph = transformer(name)
    _, layer = first_layer(graph)
    shape, bias = layer.weight.shape, layer.bias
    layer.weight = torch.nn.Parameter(layer.weight.data.view(torch.uint8).as_subclass(Bytes), False)

    def forward(x):
        assert type(layer.weight) is Bytes
        return torch.nn.functional.linear(x, layer.weight.as_subclass(torch.Tensor).view(torch.float32).view(shape), bias)

    layer.forward = forward
    assert close(checked(graph), plain[name])


@every_model
def test_torch_compile(plain, name):
    graph, compiled = transformer(name), []

    def backend(module, inputs):
        compiled.append(module)
        return module.forward

    graph.model = graph.model.clone()
    set_torch_compile_wrapper(graph.model, backend=backend)
    assert close(checked(graph), plain[name]) and compiled


@every_model
def test_context_windows(name):
    """Three images, the model seeing two at a time."""
    graph = transformer(name)
    graph.latent = {"samples": torch.cat([graph.latent["samples"]] * 3)}
    whole = checked(graph)
    graph.model = nodes_context_windows.ContextWindowsManualNode.execute(graph.model, 2, 1, "standard_static", 1, False, "pyramid", 0, False)[0]
    assert close(checked(graph), whole)  # these models look at each image by itself


@pytest.mark.skipif("flux2" not in HERE or not hasattr(nodes_flux, "FluxKVCache"), reason="this ComfyUI has no Flux KV Cache")
def test_a_cache_of_reference_latents_is_filled_and_used_by_unguided_steps_alone(caplog):
    """The first call of an image that is edited is a guided one, which may leave the model at the last tap."""
    graph = transformer("flux2", depth_single_blocks=4)
    reference_latent(graph)
    graph.latent, graph.options, graph.cfg = {"samples": graph.image()}, {"denoise": 0.6}, 1.0
    reference = ReadoutReference.execute(graph.model, graph.positive, graph.latent, 7, 0)[0]
    caching, whole = nodes_flux.FluxKVCache.execute(graph.model)[0], graph.model.clone()
    whole.object_patches = dict(caching.object_patches)  # how the model sees reference latents

    def both(end):
        graph.target = Appearance(name="appearance", head=AS_THEY_ARE, reference=reference, end=end)
        images = []
        for graph.model in (caching, whole):
            images.append(graph.run())
        return images

    assert not torch.equal(*both(0.5))  # the last step uses it
    graph.recompute = "on"
    assert torch.equal(*both(0.7))  # one unguided step, which fills it
    assert sum("Flux KV Cache is disabled in guided steps" in r.message for r in caplog.records) == 2  # in each run once
