"""Which part of the image each recorded call of the diffusion model was for."""
from typing import TYPE_CHECKING

from ...rg_core.features import taps
from ..common.latents import one_frame
from .autograd import obstacles
from .batches import tiles
from .calls.conditioning import nonzero_areas

if TYPE_CHECKING:
    from .step import Step


def features_by_area(step: "Step", readings: list[taps.Reading], areas: dict) -> list[tuple]:
    """The features in `readings` with the parts of the image that they are of; `areas` are those that were asked for, by
    label. Raises ValueError where they are not all there, once."""
    labels = [label for reading in readings for label in reading.options.get("uuids", ())]
    complete = readings and all(len(r.features) == len(r.names) for r in readings)
    as_asked = all(len(r.x) == len(step.x) * len(r.options.get("uuids", ())) for r in readings)
    if complete and as_asked and len(set(labels)) == len(labels) and not nonzero_areas({k: part for k, part in areas.items() if k not in labels}):
        return [(features, areas[label]) for r in readings
                for features, label in zip(zip(*(f.chunk(len(r.options["uuids"])) for f in r.features)), r.options["uuids"]) if label in areas]
    part, = areas.values() if len(areas) == 1 else [None]
    if complete and part and part.area is None:
        whole = step.model.model_sampling.calculate_input(step.timestep, one_frame(step.x.detach())).to(readings[0].x.dtype)
        tiled = tiles.match_tiles(readings, whole)
        if tiled:
            return tiled
    what = ("was not called" if not readings else "was skipped in part" if not complete else
            "was called more than once, or for something other than the image")
    raise ValueError(obstacles.message(step.log.node, what, step.model, step.options))
