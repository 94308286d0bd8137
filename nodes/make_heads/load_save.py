"""Load and Save Readout Head."""
import platform
import re
from pathlib import Path, PureWindowsPath

import folder_paths
import torch
from comfy_api.latest import io

from ...heads import KINDS, kind_of, load_head, published, save_head
from ...heads.demo import HEADS_FOLDER
from ..common import checks
from ..common.types import CATEGORY, Head

FOLDER = "readout_heads"
FROM_FILE = "auto"  # the kind of a head
SUFFIXES = {".safetensors", ".pt"}


def folder() -> Path:
    """Where heads are put by hand."""
    return Path(folder_paths.models_dir) / FOLDER


def register_folder() -> None:
    """Adds models/readout_heads, saved heads and the bundled ones to the host's model folders; extra model paths stay."""
    for path in (folder(), Path(folder_paths.get_output_directory()) / FOLDER, HEADS_FOLDER):
        folder_paths.add_model_folder_path(FOLDER, str(path))
    folder_paths.folder_names_and_paths[FOLDER][1].update(SUFFIXES)


def save_paths(node: str, filename_prefix: str) -> tuple[Path, Path | None]:
    """Where the next head of this name goes in the host's output folder, and where the last one is, if there is any."""
    filename_prefix = checks.text(node, "filename_prefix", filename_prefix)
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory())
    except Exception as error:  # the host raises no other
        raise ValueError(f"{node}: filename_prefix is {checks.shown(filename_prefix)}, which is not a place in ComfyUI's output folder. Write a name "
                         f"such as {FOLDER}/mine.") from error
    number = re.compile(rf"{re.escape(name)}_(\d+)_\.safetensors")  # images of the name are counted too
    there = {int(found[1]): path for path in Path(folder).iterdir() if (found := number.fullmatch(path.name))}
    return Path(folder, f"{name}_{counter:05}_.safetensors"), there[max(there)] if there else None


def names() -> list[str]:
    """Of all heads that are there. The host's list of them fails when a folder that it listed is gone, as from an output folder that was cleared."""
    try:
        return folder_paths.get_filename_list(FOLDER)
    except OSError:
        folder_paths.filename_list_cache.pop(FOLDER, None)
        return folder_paths.get_filename_list(FOLDER)


def path_of(head_name: str | None) -> str | None:
    """Where a head of that name is; names may come from workflows of any system. None: another node will say the name."""
    if head_name is None:
        return None
    return folder_paths.get_full_path(FOLDER, head_name) or folder_paths.get_full_path(FOLDER, head_name.replace("\\", "/"))


def missing(head_name: str) -> str:
    """What to tell somebody whose workflow names a head that is not there, on whichever of several machines runs it."""
    stem = PureWindowsPath(head_name).stem  # in a workflow from any system
    there = names()
    said = f"Load Readout Head: there is no {head_name} in models/{FOLDER} of this machine ({platform.node()})."
    other = [name for name in there if PureWindowsPath(name).stem == stem]
    if other:
        return f"{said} Choose {' or '.join(other)}, which is there."
    if stem in published.HEADS:
        head = published.HEADS[stem]
        return (f"{said} It is a published head that reads {head.kind} for {head.base_model} (license: {head.license}). Download {head.file} from "
                f"{head.url} and put it into {folder()}.")
    kind = kind_of(stem)
    alike = ", ".join(name for name in there if kind in (None, kind_of(name))) or "none"
    files = [head.file for head in published.HEADS.values() if head.kind == kind]
    if not kind:
        files = [f"readout_{family}_*.pt" for family in published.FAMILIES]
    known = f"{', '.join(files)} (from {published.PAGE}, license: {published.LICENSE})" if files else "none"
    return (f"{said} Available heads{f' that read {kind}' if kind else ''}: {alike}. Published heads: {known}. Choose one, or put the file into "
            f"{folder()}.")


class LoadReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadReadoutHead", display_name="Load Readout Head", category=CATEGORY,
            search_aliases=["controlnet", "load head"],
            description="Loads a readout head: a small network that reads pose, depth or edges from a diffusion model's own features, or uses "
                        "them to find what is the same in two images.",
            inputs=[io.Combo.Input("head_name", options=names(),
                                   tooltip="A file in models/readout_heads. The demo_* heads work only with the demo model."),
                    io.Combo.Input("kind", options=[FROM_FILE, *dict.fromkeys(KINDS.values())], default=FROM_FILE, optional=True, advanced=True,
                                   tooltip="What the head reads. Leave it on auto. Set it only if the head's kind is detected wrongly.")],
            outputs=[Head.Output(display_name="head", tooltip="The readout head, for targets, Readout Estimate or Save Readout Head.")])

    @classmethod
    def validate_inputs(cls, head_name=None):
        """In place of the host's own check, which says no more than that the value is not in the list."""
        if head_name is None or path_of(head_name):  # None: another node will say
            return True
        return missing(head_name)

    @classmethod
    def execute(cls, head_name, kind=FROM_FILE):
        path = path_of(head_name)
        if path is None:
            raise ValueError(missing(head_name))
        return io.NodeOutput(load_head(path, None if kind == FROM_FILE else kind))

    @classmethod
    def fingerprint_inputs(cls, head_name, kind=FROM_FILE):
        path = path_of(head_name)
        return Path(path).stat().st_mtime if path else float("nan")  # a new one, which equals no other: the host runs the node


class SaveReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveReadoutHead", display_name="Save Readout Head", category=CATEGORY, is_output_node=True,
            search_aliases=["save head"],
            description="Saves a head as a safetensors file, for example to convert a published .pt file.",
            inputs=[Head.Input("head", tooltip="The readout head to save."),
                    io.String.Input("filename_prefix", default=f"{FOLDER}/head",
                                    tooltip=f"The path and file name in ComfyUI's output folder. Load Readout Head lists heads in {FOLDER}/ after "
                                    "you press R.")])

    @classmethod
    def execute(cls, head, filename_prefix):
        path, _ = save_paths("Save Readout Head", filename_prefix)
        save_head(head, path, dtype=torch.float32)
        return io.NodeOutput()
