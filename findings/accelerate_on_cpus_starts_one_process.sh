#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.11.0, on a machine without a GPU.
#
# `accelerate launch --cpu --num_processes 2` runs the script once, in no process group, and says nothing of it: what is trained has half of the batch
# that was asked for. `--multi_gpu`, where there is no GPU, does start two processes with RANK and WORLD_SIZE, which then may use gloo. Whoever tries
# training by several processes on CPUs, as on a CI machine, takes the second, or torchrun, and asks WORLD_SIZE for what came of it.
#
# Seen: "--cpu: 1 of None; --multi_gpu: 2 of 2". Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 accelerate==1.15.0
cat > "$folder/script.py" <<'PYTHON'
import os

with open(os.environ["SEEN"], "a") as file:
    file.write(f"{os.environ.get('WORLD_SIZE')}\n")
PYTHON
found=""
for option in --cpu --multi_gpu; do
    SEEN="$folder/seen$option" CUDA_VISIBLE_DEVICES="" "$folder/env/bin/accelerate" launch "$option" --num_processes 2 --num_machines 1 \
        --mixed_precision no --dynamo_backend no "$folder/script.py" > /dev/null 2> "$folder/said$option"
    found+="${found:+; }$option: $(wc -l < "$folder/seen$option") of $(sort -u "$folder/seen$option")"
done
echo "$found"
test "$found" = "--cpu: 1 of None; --multi_gpu: 2 of 2"
