"""Every family of models that the host knows: which can be tapped, and the taps of those that look like Stable Diffusion's, on the meta device."""
from collections import defaultdict

import comfy.model_base
import comfy.model_detection
import comfy.supported_models as families
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from readout_guidance_pack.rg_core.features import architectures, taps
from tools.random_weights.checkpoints import SD15_UNET, SDXL_UNET, unet

SD20_UNET = SD15_UNET | {"context_dim": 1024, "use_linear_in_transformer": True}
REFINER_UNET = SDXL_UNET | {"model_channels": 384, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
                            "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0], "transformer_depth_middle": 4, "context_dim": 1280,
                            "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0], "adm_in_channels": 2560}
FOUR_LEVELS, THREE_LEVELS = [1280] * 6 + [640] * 3 + [320] * 3, [1280] * 3 + [640] * 3 + [320] * 3
INPAINTING = {"in_channels": 9}
EVERY = {
    "SD 1.5": (families.SD15, SD15_UNET, FOUR_LEVELS),
    "SD 1.5 inpainting": (families.SD15, SD15_UNET | INPAINTING, FOUR_LEVELS),
    "SD 2": (families.SD20, SD20_UNET, FOUR_LEVELS),
    "SD 2 inpainting": (families.SD20, SD20_UNET | INPAINTING, FOUR_LEVELS),
    "SD 2.1 unCLIP": (families.SD21UnclipH, SD20_UNET | {"num_classes": "sequential", "adm_in_channels": 2048}, FOUR_LEVELS),
    "SDXL": (families.SDXL, SDXL_UNET, THREE_LEVELS),
    "SDXL inpainting": (families.SDXL, SDXL_UNET | INPAINTING, THREE_LEVELS),
    "SDXL refiner": (families.SDXLRefiner, REFINER_UNET, [1536] * 6 + [768] * 3 + [384] * 3),
}


@pytest.mark.parametrize("name", EVERY)
def test_taps_are_the_second_stacks_of_the_decoder_in_order(name):
    family, config, channels = EVERY[name]
    model = unet(family, config).diffusion_model
    # The host itself takes a file with these weights for this family, so the architecture is the real one.
    assert type(comfy.model_detection.model_config_from_unet(model.state_dict(), "")) is family
    assert list(taps.names(model)) == [f"output_blocks.{i}.0.out_layers" for i in range(len(channels))]
    assert taps.channels(model) == channels


# The host's classes that have no row in rg_core/features/architectures.py, by what they make.
WITHOUT_ROW = {
    "pictures, in layouts of their own": {"cascade.stage_b.StageB", "cascade.stage_c.StageC", "hidream_o1.model.HiDreamO1Transformer",
                                          "pixeldit.pid.PidNet", "seedvr.model.NaDiT"},
    "videos": {"cogvideo.model.CogVideoXTransformer3DModel", "cosmos.model.GeneralDIT", "genmo.joint_model.asymm_models_joint.AsymmDiTJoint",
               "lightricks.av_model.LTXAVModel", "lightricks.model.LTXVModel", "minimax.model.MiniMaxH3Model", "wan.ar_model.CausalWanModel",
               "wan.model.CameraWanModel", "wan.model.HumoWanModel", "wan.model.SCAILWanModel", "wan.model.SCAIL2WanModel",
               "wan.model.VaceWanModel", "wan.model.WanModel_S2V", "wan.model_animate.AnimateWanModel", "wan.model_animate2.WanAnimate2Model",
               "wan.model_wandancer.WanDancerModel"},
    "sounds": {"ace.ace_step15.AceStepConditionGenerationModel", "ace.model.ACEStepTransformer2DModel", "audio.dit.AudioDiffusionTransformer",
               "minimax_music.dit.MiniMaxMusic3DiT"},
    "shapes": {"hunyuan3d.model.Hunyuan3Dv2", "hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain", "trellis2.model.Trellis2",
               "triposplat.model.LatentSeqMMFlowModel"},
    "what is seen in a picture": {"depth_anything_3.model.DepthAnything3Net", "rt_detr.rtdetr_v4.RTv4", "sam3.detector.SAM3Model"},
}


def network(family) -> type:
    """The class of the diffusion model that the host builds for a family."""
    class Found(Exception):
        pass

    def init(self, model_config, model_type=None, device=None, unet_model=UNetModel):
        raise Found(unet_model)

    config = family({"in_channels": 4, "hidden_size": 64} | family.unet_config)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Found) as found:
        patch.setattr(comfy.model_base.BaseModel, "__init__", init)
        config.get_model(defaultdict(lambda: torch.zeros(1, 1)), "")
    return found.value.args[0]


@pytest.mark.parametrize("family", families.models, ids=lambda family: family.__name__)
def test_every_model_of_the_host_has_a_row_or_is_known_to_have_none(family):
    """Where it fails on a newer host, the model there is new: give it a row, or a place in WITHOUT_ROW, and in the README's table."""
    kind = network(family)
    without = f"{kind.__module__}.{kind.__name__}".removeprefix("comfy.ldm.") in set().union(*WITHOUT_ROW.values())
    model = kind.__new__(kind)
    if without:
        with pytest.raises(architectures.NoTaps, match=f"^{kind.__name__} is not a supported architecture$"):
            architectures.architecture_of(model)
    else:
        assert architectures.architecture_of(model)
