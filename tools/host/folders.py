"""Folders of images, and of what should be read of each: files of the same name, whatever the ending."""
import codecs
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

CAPTIONS = (".txt", ".caption")
MOST_NAMED = 5  # files in a message
DEEP = {"I": 65535, "F": 1}  # what is white in images whose mode begins so


class FolderError(ValueError):
    """A folder that cannot be trained on; the message names the files."""


def images(folder: Path) -> dict[str, Path]:
    """The image files of a folder by name without its ending, in the order of the alphabet. Raises FolderError."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in Image.registered_extensions() and path.is_file():
            if path.stem in found:
                raise FolderError(f"{folder} holds both {found[path.stem].name} and {path.name}. Leave one of them.")
            found[path.stem] = path
    if not found:
        raise FolderError(f"{folder} holds no pictures.")
    return found


def pairs(pictures_folder: Path, targets_folder: Path) -> list[tuple[Path, Path]]:
    """Each image, and what should be read of it. Raises FolderError; targets without an image are passed over."""
    shown, wanted = images(pictures_folder), images(targets_folder)
    missing = [path.name for stem, path in shown.items() if stem not in wanted]
    if missing:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise FolderError(f"{targets_folder} has no picture of the name of {', '.join(missing[:MOST_NAMED])}{more}. Make one for each, or take "
                          f"those out of {pictures_folder}.")
    return [(path, wanted[stem]) for stem, path in shown.items()]


def caption(image: Path) -> str:
    """What the text file beside an image says of it; nothing where there is none. Raises FolderError."""
    path = next((path for path in map(image.with_suffix, CAPTIONS) if path.exists()), None)
    if path is None:
        return ""
    text = path.read_bytes()
    try:
        return text.decode("utf-16" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise FolderError(f"{path} is no text in UTF-8 ({error}). Save it as such.") from error


def load(path: Path) -> Tensor:
    """An image as the host's IMAGE [1, H, W, 3], from 0 to 1, of 16 bits too, as depth maps often are; floats as they are. Raises
    FolderError."""
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            grey = image.mode[0] in DEEP
            values = np.array(image if grey else image.convert("RGB"), dtype=np.float32) / DEEP.get(image.mode[0], 255)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FolderError(f"{path} cannot be read as a picture ({error}).") from error
    values = torch.from_numpy(values)
    return (values[..., None].expand(-1, -1, 3) if grey else values)[None]
