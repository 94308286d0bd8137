"""ComfyUI as a process, and folders of pictures."""
