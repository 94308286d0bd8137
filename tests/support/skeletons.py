"""Skeletons as other programs draw them."""
import functools

import numpy as np
import torch
from comfy_extras.nodes_sdpose import KeypointDraw

from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.rg_core.images.control_images import HUES, LIMB_SHADE


@functools.cache
def skeleton(size, stick=4, dark=True):
    """Four people with sticks of so many pixels whatever the canvas, as OpenPose's drawers have them: by the host's own, [4, size, size, 3]. DWPose
    and controlnet_aux draw limbs in a darker shade."""
    drawn = []
    for points in world.draw(4, 64, 64, seed=0).keypoints:
        canvas, places, scores = np.zeros((size, size, 3), dtype=np.uint8), np.zeros((134, 2)), np.zeros(134)
        places[:18], scores[:18] = points[:, :2].numpy() / 64 * size, points[:, 2].numpy()
        shown = KeypointDraw().draw_wholebody_keypoints(canvas, places, scores, draw_hands=False, draw_face=False, draw_feet=False, stick_width=stick)
        shown = (shown * (LIMB_SHADE if dark else 1)).astype(np.uint8)
        for place, score, hue in zip(places, scores, HUES) if dark else ():
            if score > 0.3:
                KeypointDraw.circle(shown, (int(place[0]), int(place[1])), 4, hue)
        drawn.append(torch.from_numpy(shown))
    return torch.stack(drawn).float() / 255
