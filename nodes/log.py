"""The pack's logger. Other packs silence the root's while they sample, as Ultimate SD Upscale does."""
import logging

log = logging.getLogger("readout_guidance")
log.setLevel(logging.getLogger().getEffectiveLevel())  # what ComfyUI was started with
