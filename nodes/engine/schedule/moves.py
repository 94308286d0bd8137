"""In how many moves an image is guided at one noise level, and how long they are.

A level stands for the noise from halfway to the level before to halfway to the next one, for as long as targets act. Where that is
much, one long move by the gradient at the level would lead past what is wanted: so several short ones are made, each by a fresh
gradient. All but the last move the latent itself, under the same noise; the last one shifts what the model predicts for it. At the level
that ends without noise all of a shift would be seen, so all moves are of the latent, and the model predicts anew after them.
docs/measurements/moves.md has what chose this.
"""
import math
from dataclasses import dataclass

from torch import Tensor

from .landing import Landing
from .noise_levels import depth, latent_scale, noise_ratio, prediction_scale

A_MOVE = 0.28  # times the strength: the way that one move is made for, in units of the variance-preserving latent
SPARED = 0.3   # of a move, that no further one is made for
SHIFT = 2      # times as long as the moves before it the shift of the prediction is
MORE = 1.12    # times the fall is gone in few steps: 20 Euler steps go about so much beyond it
LEAST_NOISE = 0.3  # over the image: with less of it the model gives moves of the last latents back as they are
MANY = 20      # steps in which every level gets one move


@dataclass(frozen=True)
class Moves:
    """At one noise level: how many, 0 for none, and how long each is per strength: of the sampler's latents, and of a shift of the prediction, None
    where there is no such shift."""
    count: int
    latent: float
    prediction: float | None


def planned(model, landing: Landing, sigmas: Tensor, span: tuple[float, float], known: tuple[float, float], wanted: int) -> Moves:
    """Those at a prediction with this `landing`, in a run of `sigmas`, by targets that act from the first sigma of `span` down to the second, on a
    model that knows noise from the first of `known` down to the second; `wanted` 0 means as many as the fall of the noise asks for. Where
    a sampler makes short steps of its own, one is enough."""
    many, way = landing.short or len(sigmas) > MANY, MORE * fall(model, landing, span, known)
    count = 1 if many else max(1 if landing.after else 0, math.ceil(way / A_MOVE - SPARED))
    scale = latent_scale(model, landing.sigma)
    if not landing.after:
        possible = count and not many and noise_ratio(model, landing.start) >= LEAST_NOISE
        return Moves((wanted or count) if possible else 0, way / (wanted or count or 1) * scale, None)
    of_euler = landing.of_euler * prediction_scale(model, landing.start) / latent_scale(model, landing.after)
    if many:  # short steps, in which a shift goes as far as an Euler step lets it
        way = of_euler
    count = 1 if landing.short else wanted or count
    move = way / (count - 1 + SHIFT)
    return Moves(count, move * scale, prediction_scale(model, landing.start) * landing.gain * (SHIFT * move / of_euler))


def fall(model, landing: Landing, span: tuple[float, float], known: tuple[float, float]) -> float:
    """The part of the noise's fall that the level stands for which the step starts from; 0 or more. Where there is no level beside it, as much
    on that side as on the other, as far as targets act and the model knows noise: see `planned`."""
    (start, end), own = span, depth(model, landing.start)
    most = depth(model, min(start, known[0]))
    least = min(own, depth(model, max(end, known[1])))
    below = (own + depth(model, landing.after)) / 2 if landing.after else None
    if landing.before is None:
        above = own if below is None else min(2 * own - below, most)
        return above - (least if below is None else max(below, least))
    above = depth(model, landing.before)
    if landing.before <= start and prediction_scale(model, landing.before):  # else nothing is moved there, so its part is this one's too
        above = (above + own) / 2
    return min(above, most) - max(2 * own - above if below is None else below, least)
