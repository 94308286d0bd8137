"""The inputs that say how a guided step moves."""
from comfy_api.latest import io

from ...rg_core.guidance.updates import Move
from ..engine.memory import CHOICES

STRENGTH = io.Float.Input("strength", default=Move.strength, min=0.0, max=10.0, step=0.01,
                          tooltip="How far each step moves toward the targets. Higher values follow the targets more closely; on the demo "
                          "model the image gets rough from 0.2.")
RECOMPUTE = io.Combo.Input("recompute", options=CHOICES, default=CHOICES[0], optional=True, advanced=True,
                           tooltip="Whether guided steps recompute parts of the model to save memory, which takes about a third longer. auto "
                           "does so only when memory is short.")
MOVES = io.Int.Input("moves", default=Move.moves, min=0, max=50, optional=True, advanced=True,
                     tooltip="How many moves each guided step makes. 0 is automatic: one in runs of 20 steps or more, several in shorter "
                     "runs. More moves follow the targets more closely and take longer.")
