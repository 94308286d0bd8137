"""Targets: what an image is steered towards, compared with what heads read of it, or with the predicted image itself."""
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ..features.taps import Head
from ..images import control_images
from ..images.regions import WHOLE, Box, boxed, mask_at, moved, of_images, repeat
from ..images.resize import size_of
from ..readout import views
from ..readout.estimates import from_range
from ..readout.head import ReadoutHead
from ..readout.linear_head import LinearHead
from . import energies

NEARLY = 0.3  # what is left of a drag (energies.undone) from which on it pulls less; docs/measurements/relations.md
Compared = TypeVar("Compared", bound=Tensor | None)  # how a target's energy gets the reference's readout: not, or always


@dataclass(frozen=True, eq=False, kw_only=True)
class Target(Generic[Compared]):
    """Something to steer towards, and when it acts. Its subclasses say what is compared with what; docs/own_targets.md is for those of
    other packs.

    The defaults of `start` and `end`, here and in the subclasses, are those of the nodes: docs/measurements/moves.md and
    docs/measurements/relations.md have the measurements that chose them.
    """
    name: str               # in the trace and in messages; see numbered
    head: Head | None = None  # what is read; None: the prediction of the denoised latent, as VAE Decode takes it
    weight: float = 1.0
    start: float = 0.0      # share of the noise schedule at which it begins to act
    end: float = 0.9        # and at which it stops
    reference: Any = None   # what the caller reads with the same head, for targets that compare with another image
    size: tuple[int, int] | None = None  # (H, W) of the readout, once known
    published_weight: ClassVar[float] = 1.0  # of its energy among others, in the authors' configurations
    same_noise: ClassVar[bool] = False       # whether an image should begin with the noise of its reference
    BATCHED: ClassVar[tuple[str, ...]] = ("image", "known", "mask", "reference_mask", "points")  # fields with something for each image

    def select(self, places: Tensor) -> "Target[Compared]":
        """The same target for the images at these `places` [P] of the batch alone."""
        def own(x):
            return tuple(map(own, x)) if isinstance(x, tuple) else of_images(x, places)
        return replace(self, **{name: own(x) for name in self.BATCHED if (x := getattr(self, name, None)) is not None})

    def prepared(self, size: tuple[int, int], device: torch.device) -> "Target[Compared]":
        """The same target made ready for latents of `size` (H, W)."""
        stride = 1 if self.head is None else self.head.stride
        size = max(1, size[0] // stride), max(1, size[1] // stride)
        return replace(self, size=size, **self.resized(size, device))

    def resized(self, size: tuple[int, int], device: torch.device) -> dict[str, Any]:
        """What changes of the target when it is compared with readouts of `size` (H, W)."""
        return {name: mask_at(mask, size, device) for name in ("mask", "reference_mask")
                if (mask := getattr(self, name, None)) is not None}

    def cropped_share(self, size: tuple[int, int]) -> float:
        """The share of what the target was given that does not fit into an image of the shape of `size` (H, W)."""
        return 0.0

    @property
    def count(self) -> int:
        """How many images it has something for, its reference aside; of a larger batch the next ones have the same again."""
        return max((len(x) for name in self.BATCHED if isinstance(x := getattr(self, name, None), Tensor)), default=1)

    @property
    def channels(self) -> int | None:
        """Of the latents that it can be compared with; None: any."""
        return None

    def energy(self, readout: Tensor, span: Tensor, reference: Compared) -> Tensor:
        """[B], lower is better, of `readout` [B, C, H, W], each image by itself; `reference` is the reference's readout, likewise.
        Without a head it is 0 where nothing is left to do, and never less."""
        raise NotImplementedError

    def published(self, readout: Tensor, span: Tensor, reference: Compared) -> Tensor:
        """The energy of the published procedure."""
        return self.energy(readout, span, reference)

    def view(self, readout: Tensor, reference: Compared) -> tuple[Tensor | None, Tensor | None]:
        """What is wanted and what is read, to be looked at; see views.View. None for what there is no image of."""
        return None, None

    def pull_share(self, energy: Tensor) -> Tensor | float:
        """How hard it pulls at the energies [B], from 0 to 1; its weight is for 1."""
        return 1.0

    @property
    def edit_mask(self) -> Tensor | None:
        """Where the image may leave the target's reference, [M, 1, h, w], 0 to 1, of any size; elsewhere the caller keeps the
        reference, at all noise levels. None: everywhere."""
        return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Spatial(Target[None]):
    """An image of what the head should read."""
    head: ReadoutHead | LinearHead = field()  # needed, for its control range
    end: float = 0.8            # docs/measurements/moves.md
    image: Tensor               # [N, 3, h, w], 0 to 1
    known: Tensor | None = None  # [N, 1, h, w], 0 to 1: where the image says something; everywhere if None
    mask: Tensor | None = None  # [M, 1, h, w], 0 to 1: where; everywhere if None
    published_weight: ClassVar[float] = 0.5

    def cropped_share(self, size):
        return cut_off(self.image, size)

    def resized(self, size, device):
        image, known = self.image.float(), self.known
        if known is not None:  # what is not known is not mixed into what is
            image, known = control_images.fit(image * known, size), control_images.fit(known, size)
            image = image / known.clamp(min=1e-6)
        image = control_images.to_range(control_images.fit_for(self.head.kind, image, size), self.head.control_range)
        known = None if known is None else known.to(device)
        return super().resized(size, device) | {"image": image.to(device), "known": known}

    def energy(self, readout, span, reference):
        batch = len(readout)
        image, mask, known = repeat(self.image, batch), repeat(self.mask, batch), repeat(self.known, batch)
        if known is not None:
            mask = known if mask is None else mask * known
        return energies.spatial(readout, image, span, self.head.control_range, mask)

    def view(self, readout, reference):
        return from_range(self.image, self.head.control_range), from_range(readout, self.head.control_range)


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribute(Target[None]):
    """More of something, or less, in the image or in a part of it, as a pooled head tells it: classifier guidance (Dhariwal and Nichol,
    arXiv 2105.05233, section 4) whose classifier is linear in the model's own features."""
    level: float                # what the head should tell at least, or at most if it is negative: 1 of images with it, -1 of those without
    mask: Tensor | None = None  # [M, 1, h, w], 0 to 1: where; everywhere if None

    def energy(self, readout, span, reference):
        told = energies.masked_mean(readout, repeat(self.mask, len(readout)))[:, 0]
        return (self.level - told if self.level > 0 else told - self.level).clamp(min=0).square()

    def view(self, readout, reference):
        """From white, what images with it are told, to black, those without."""
        wanted = torch.full_like(readout, self.level)
        return (1 + wanted.clamp(-1, 1)) / 2, (1 + readout.clamp(-1, 1)) / 2

    def pull_share(self, energy):
        return energy.sqrt().clamp(max=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Likeness(Target[Tensor]):
    """What is in a reference, or in a part of it, should be in the image, or in a part of it."""
    mask: Tensor | None = None            # [M, 1, h, w], 0 to 1: where in the image being made
    reference_mask: Tensor | None = None  # and where in the reference
    box: Box = WHOLE                      # likewise
    reference_box: Box = WHOLE


@dataclass(frozen=True, eq=False, kw_only=True)
class Appearance(Likeness):
    """The looks of the reference, pixel by pixel; its box is laid over the image's."""

    def view(self, readout, reference):
        """Where they are alike, white."""
        return None, views.agreement(readout, moved(reference, self.reference_box, self.box))

    def energy(self, readout, span, reference):
        mask, other = (repeat(x, len(readout)) for x in (self.mask, self.reference_mask))
        if self.box != self.reference_box:
            reference = moved(reference, self.reference_box, self.box)
            other = None if other is None else moved(other, self.reference_box, self.box)
        if other is not None:
            mask = other if mask is None else mask * other
        return energies.appearance(readout, reference, span, boxed(mask, self.box, readout))


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(Likeness):
    """Who is in the reference, wherever they stand."""
    start: float = 0.15  # what an identity head reads of more noise is chance

    def energy(self, readout, span, reference):
        mask, other = (repeat(x, len(readout)) for x in (self.mask, self.reference_mask))
        return energies.identity(readout, reference, span, boxed(mask, self.box, readout),
                                 boxed(other, self.reference_box, reference))

    def view(self, readout, reference):
        """Where the image is like who is in the reference, white."""
        other = boxed(repeat(self.reference_mask, len(readout)), self.reference_box, reference)
        return None, views.agreement(readout, energies.masked_mean(reference, other)[..., None, None])


@dataclass(frozen=True, eq=False, kw_only=True)
class Drag(Target[Tensor]):
    """Points of the reference should be elsewhere; it lets go as they come there, for what pulls at nothing leaves specks."""
    paths: Tensor                       # [K, F, 2]: (x, y) in shares of the image, from where a point is to where it goes
    stops: tuple[float, ...] = (1.0,)   # for each image of the batch, how far along the paths it goes
    mask: Tensor | None = None          # [M, 1, h, w], 0 to 1: what may change; everything if None
    points: tuple[Tensor, ...] = ()     # start, end [N, K, 2] and counts [N, K], once ready
    same_noise: ClassVar[bool] = True

    def resized(self, size, device):
        ends = torch.stack([along(self.paths, stop) for stop in self.stops])
        start = self.paths[:, 0].expand_as(ends)
        counts = ((ends - start).norm(dim=-1) > 0).float()
        return {"points": tuple(p.to(device) for p in (start, ends, counts))}

    @property
    def count(self):
        return max(super().count, len(self.stops))

    @property
    def edit_mask(self):
        return self.mask

    def energy(self, readout, span, reference):
        return energies.bounded_correspondence(readout, reference, *self.drags(readout))

    def published(self, readout, span, reference):
        return energies.correspondence(readout, reference, *self.drags(readout))

    def drags(self, readout: Tensor) -> list[Tensor]:
        return [repeat(p, len(readout)) for p in self.points]

    def pull_share(self, energy):
        return (energy / NEARLY).clamp(max=1)

    def view(self, readout, reference):
        """Dots where the dragged points should go, and where each is found: the place that is most like it."""
        start, end, counts = self.drags(readout)
        found, size = views.found(readout, energies.at(reference, start)), size_of(readout)
        return views.dots(end, counts, size), views.dots(found, counts, size)


@dataclass(frozen=True, eq=False, kw_only=True)
class Color(Target[None]):
    """The coarse colors of an image, given as its latents."""
    end: float = 0.75           # docs/measurements/color.md
    image: Tensor               # [N, C, h, w], as VAE Encode gives them
    cells: int = 8              # along the shorter side of the image, each of which has one color
    mask: Tensor | None = None  # [M, 1, h, w], 0 to 1: where; everywhere if None

    @property
    def channels(self):
        return self.image.shape[1]

    def cropped_share(self, size):
        return cut_off(self.image, size)

    def resized(self, size, device):
        return super().resized(size, device) | {"image": control_images.fit(self.image.float(), size).to(device)}

    def energy(self, readout, span, reference):
        return energies.color(readout, repeat(self.image, len(readout)), self.cells, repeat(self.mask, len(readout)))

    def view(self, readout, reference):
        return energies.coarse(self.image, self.cells), energies.coarse(readout, self.cells)


def heads(targets: Iterable[Target]) -> list[Head]:
    """Those that `targets` have, each once; targets on the predicted image have none."""
    return list(dict.fromkeys(t.head for t in targets if t.head is not None))


def numbered(targets: Iterable[Target], taken: Iterable[str] = ()) -> tuple[Target, ...]:
    """`targets`, each with a name of its own that is not among those `taken`: beside a "pose" another one is "pose 2"."""
    names, named = set(taken), []
    for target in targets:
        name, number = target.name, 1
        while name in names:
            number += 1
            name = f"{target.name} {number}"
        names.add(name)
        named.append(target if name == target.name else replace(target, name=name))
    return tuple(named)


def cut_off(image: Tensor, size: tuple[int, int]) -> float:
    """The share of `image` [N, C, h, w] that control_images.fit leaves out at `size` (H, W)."""
    shape = size[0] / size[1] * image.shape[-1] / image.shape[-2]
    return 1 - min(shape, 1 / shape)


def along(paths: Tensor, share: float) -> Tensor:
    """Where the points [K, 2] are after this share of the steps of `paths` [K, F, 2]."""
    place = share * (paths.shape[1] - 1)
    step = min(int(place), paths.shape[1] - 2)
    return torch.lerp(paths[:, step], paths[:, step + 1], place - step)
