"""The taps of every UNet family that the host knows and that looks like Stable Diffusion's, on the meta device."""
import comfy.model_detection
import comfy.supported_models as families
import pytest

from readout_guidance_pack.rg_core import taps
from tools.checkpoints import SD15_UNET, SDXL_UNET, unet

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
