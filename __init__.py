"""Readout Guidance for ComfyUI."""
import re

OLDEST = "0.18.2"  # of ComfyUI, as pyproject.toml says


def numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


try:
    from .nodes import comfy_entrypoint
except ImportError as error:
    try:
        from comfyui_version import __version__ as host
    except ImportError:
        host = "much older"
    if numbers(host) < numbers(OLDEST):
        raise ImportError(f"Readout Guidance needs ComfyUI {OLDEST} or newer, and this one is {host}. Update ComfyUI, for example with "
                          "ComfyUI-Manager.") from error
    raise

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
