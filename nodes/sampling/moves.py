"""In how many moves a picture is guided at one noise level, and how long they are.

A level stands for the noise from halfway to the level before to halfway to the next one, for as long as targets act. Where that is
much, one long move by the gradient at the level would lead past what is wanted: so several short ones are made, each by a fresh
gradient. All but the last move the latent itself, under the same noise; the last one shifts what the model predicts for it. At the level
that ends without noise all of a shift would be seen, so all moves are of the latent, and the model predicts anew after them.
docs/moves.md has what chose this.
"""
import math
from dataclasses import dataclass

from torch import Tensor

from .landing import Landing
from .noise import depth, latent_scale, noise_ratio, prediction_scale

A_MOVE = 0.33  # times the strength: what one move goes, in units of the variance-preserving latent
SPARED = 0.1   # of a move, that no further one is made for
LEAST_NOISE = 0.3  # over the picture: with less of it the model gives moves of the last latents back as they are
MANY = 20      # steps in which every level gets one move


@dataclass(frozen=True)
class Moves:
    """At one noise level: how many, 0 for none, and how long each is per strength: of the sampler's latents, and of a shift of the prediction, None
    where there is no such shift."""
    count: int
    latent: float
    prediction: float | None


def planned(model, landing: Landing, sigmas: Tensor, end: float, wanted: int) -> Moves:
    """Those at a prediction with this `landing`, in a run of `sigmas`, by targets that act down to the sigma `end`; `wanted` 0 means as many as
    the fall of the noise asks for."""
    start, after, many = landing.start, landing.after, len(sigmas) > MANY
    way = fall(model, start, after, sigmas, end)
    if not after:
        count = 0 if many or noise_ratio(model, start) < LEAST_NOISE else moves_of(way)
        return Moves(wanted if wanted and count else count, way / max(1, wanted or count) * latent_scale(model, landing.sigma), None)
    count = 1 if many else max(1, moves_of(way))
    of_euler = landing.of_euler * prediction_scale(model, start) / latent_scale(model, after)
    if many:  # short steps, in which a shift goes as far as an Euler step lets it
        way = of_euler
    count = wanted or count
    return Moves(count, way / count * latent_scale(model, landing.sigma), prediction_scale(model, start) * landing.gain * (way / of_euler) / count)


def moves_of(way: float) -> int:
    return math.ceil(way / A_MOVE - SPARED)


def fall(model, start: float, after: float, sigmas: Tensor, end: float) -> float:
    """The part of the noise's fall that the level `start` stands for, before one at `after`; 0 or more. Where there is no level beside
    it, as much on that side as on the other, as far as the model knows noise."""
    own, before = depth(model, start), [float(s) for s in sigmas if s > start]
    below = (own + depth(model, after)) / 2 if after else None
    if not before and not after:
        return own - min(own, depth(model, end))
    if not before:
        above = min(2 * own - (own if below is None else below), depth(model, float(model.model_sampling.sigma_max)))
    elif prediction_scale(model, before[-1]):
        above = (depth(model, before[-1]) + own) / 2
    else:  # nothing can be moved at the level before, so its part is this one's too
        above = depth(model, before[-1])
    return above - max(2 * own - above if below is None else below, min(own, depth(model, end)))
