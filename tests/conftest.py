"""Before any test file is read: ComfyUI's modules and the pack become importable."""
import tools  # noqa: F401
