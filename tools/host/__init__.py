"""ComfyUI as a process, and folders of images."""
