"""Taps: the features of a diffusion model that readout heads read, wherever its row in architectures.py says that they are."""
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Call, NoTaps, Stream, architecture_of, class_name

# Where transformers are tapped if nobody says where: between these shares of their depth, at so many blocks, or fewer of wide ones, for heads are
# fitted by the products of all channels with each other.
SHARE, MOST_TAPS, MOST_CHANNELS = (0.25, 0.65), 5, 12288


class Head(Protocol):
    """What is asked of all that reads taps; docs/own_targets.md says what each of these means. They are properties because nobody sets them: a
    head's own types may be narrower."""
    @property
    def kind(self) -> str: ...
    @property
    def taps(self) -> Sequence[str] | None: ...
    @property
    def channels(self) -> Sequence[int] | None: ...
    @property
    def base_model(self) -> str: ...
    @property
    def stride(self) -> int: ...
    def __call__(self, features: Sequence[Tensor], emb: Tensor, size: tuple[int, int], /) -> Tensor: ...


class Tap(NamedTuple):
    name: str           # of the module in the model
    module: nn.Module   # whose output it is
    stream: Stream


def all_taps(model: nn.Module) -> list[Tap]:
    """All that `model` has, in the order in which it computes them. Raises NoTaps."""
    found = []
    for stream in architecture_of(model).streams:
        for place, _ in enumerate(getattr(model, stream.blocks, ())):
            name = ".".join(filter(None, (stream.blocks, str(place), stream.part)))
            try:
                found.append(Tap(name, model.get_submodule(name), stream))
            except AttributeError as error:
                raise NoTaps(f"this {type(model).__name__} has no module {name} to read features from") from error
    if not found:
        raise NoTaps(f"this {type(model).__name__} has no blocks to read features from")
    return found


def select_taps(model: nn.Module, names: Collection[str] | None = None) -> list[Tap]:
    """Those with these names, in order; the default ones of `model` for None. Raises NoTaps."""
    known, row = all_taps(model), architecture_of(model)
    if names is not None:
        missing = [name for name in names if name not in {tap.name for tap in known}]
        if missing:
            raise NoTaps(f"this {type(model).__name__} has no module {missing[0]} to read features from")
        return [tap for tap in known if tap.name in names]
    if not row.width:
        return known
    count = min(MOST_TAPS, max(2, MOST_CHANNELS // attrgetter(row.width)(model)))
    places = torch.linspace(*SHARE, count) * (len(known) - 1)
    return [known[place] for place in dict.fromkeys(places.round().int().tolist())]


def names(model: nn.Module) -> tuple[str, ...]:
    """Those of the default taps."""
    return tuple(tap.name for tap in select_taps(model))


def channels(model: nn.Module, names: Sequence[str] | None = None) -> list[int]:
    """Channels of each tap, for example [1280] * 6 + [640] * 3 + [320] * 3 for Stable Diffusion 1.5."""
    width = architecture_of(model).width
    return [attrgetter(width)(model) if width else attrgetter("out_channels")([*tap.module.children()][-1]) for tap in select_taps(model, names)]


def fingerprint(model: nn.Module) -> str:
    """What tells models apart that a head cannot be taken from one to the other of: class, depth and widths."""
    widths = zip((tap.stream.blocks for tap in all_taps(model)), channels(model, [tap.name for tap in all_taps(model)]))
    runs = [f"{len(list(run))}x{width}" for (_, width), run in groupby(widths)]
    return f"{class_name(model).rpartition('.')[2]} {'+'.join(runs)}"


def embedding_width(model: nn.Module) -> int | None:
    """Of the embedding of timesteps that `model` makes; None if it makes none that heads are told."""
    row = architecture_of(model)
    return attrgetter(row.embedding)(model)[-1].out_features if row.embedding else None


class Selection(NamedTuple):
    """Taps of a model that are read, and its default ones, in order."""
    read: list[Tap]
    default: list[Tap]


def select(model: nn.Module, names: Collection[str] | None = None) -> Selection:
    """As `select_taps`. Raises NoTaps."""
    return Selection(select_taps(model, names), select_taps(model))


def select_for(model: nn.Module, heads: Iterable[Head]) -> Selection:
    """The taps that any of `heads` reads. Raises NoTaps."""
    return select(model, {name for head in heads for name in head.taps or names(model)})


def tokens(model: nn.Module, shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Of a transformer: the tokens of a latent of `shape` [..., H, W], their width, and how many blocks they pass up to the last of the default
    taps. None for models that have none."""
    row = architecture_of(model)
    if not row.width:
        return None
    side, places = patch(model), [tap.name for tap in all_taps(model)]
    before = sum(len(getattr(model, name)) for name in row.before)
    return math.prod(-(-n // side) for n in shape[-2:]), attrgetter(row.width)(model), before + places.index(names(model)[-1]) + 1


def patch(model: nn.Module) -> int:
    """Latent pixels along a side of one place of the features: mostly 1 or 2, 16 where latents are pixels."""
    return architecture_of(model).patch_of(model)


@dataclass
class Reading:
    """What one call of a diffusion model left at the taps with these `names`, among which are `default` ones if any head needs those."""
    emb: Tensor | None                                    # [B, E], of the timestep without any label, or of the noise level; None before it is known
    features: list[Tensor] = field(default_factory=list)  # each [B, C_l, H_l, W_l]
    options: dict = field(default_factory=dict)           # the call's transformer_options
    x: Tensor | None = None                               # its input [B, C, H, W]
    names: tuple[str, ...] = ()
    default: tuple[str, ...] = ()

    def embedding(self) -> Tensor:
        """`emb`, for heads to be told by. Raises NoTaps where it is not known."""
        if self.emb is None:
            raise NoTaps("nothing tells heads its noise level")
        return self.emb

    def places(self, head: Head) -> list[int]:
        """Which of the features `head` reads."""
        wanted = head.taps or self.default
        return [self.names.index(name) for name in wanted] if wanted else list(range(len(self.features)))

    def of(self, head: Head) -> list[Tensor]:
        """The features that `head` reads."""
        return [self.features[i] for i in self.places(head)]


class StopForward(Exception):
    """All taps are read, and the prediction is not wanted."""


def blocks(model: nn.Module) -> list[nn.Module]:
    """The parts of `model` to compute again in a backward pass where memory is short (see recompute.computed_again): none is
    inside another, and taps are outputs of theirs."""
    row, found = architecture_of(model), []
    if not any(stream.part for stream in row.streams):
        return [block for name in (*row.before, *(stream.blocks for stream in row.streams)) for block in getattr(model, name)]
    for module in model.modules():
        if hasattr(module, "out_layers"):
            found += [module.in_layers, module.out_layers]
        found += getattr(module, "transformer_blocks", ())
    return found


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile wrapped `module`, or compiled it in place. (Its class is in a part of torch that takes long to import.)"""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


class Recorder:
    """Hooks that make a Reading of each call of `model`, of the `selection`; see record."""

    def __init__(self, model: nn.Module, selection: Selection, only: bool):
        self.model, self.only, self.readings = model, only, []
        self.tapped, self.default = selection
        self.call: Call | None = None
        self.gradients, self.fresh = True, True

    def hooks(self) -> list:
        embedding, model = architecture_of(self.model).embedding, self.model
        found = [model.register_forward_pre_hook(self.begin, with_kwargs=True), model.register_forward_hook(self.end), *map(self.at, self.tapped)]
        return [*found, attrgetter(embedding)(model).register_forward_hook(self.embedded)] if embedding else found

    def begin(self, _module, args, kwargs) -> None:
        x = args[0] if args else kwargs.get("x")
        self.call = Call(self.model, x.squeeze(2) if x.ndim == 5 else x, kwargs.get("transformer_options", {}), kwargs)
        self.gradients, self.fresh = torch.is_grad_enabled(), True

    def end(self, _module, _args, _out) -> None:
        torch.set_grad_enabled(self.gradients)

    def call_under_way(self) -> Call:
        if self.call is None:
            raise NoTaps("its forward was called directly, where its features cannot be read")
        return self.call

    def reading(self) -> Reading:
        """Of the call under way."""
        call = self.call_under_way()
        if self.fresh:
            names, default = (tuple(tap.name for tap in taps) for taps in (self.tapped, self.default))
            self.readings.append(Reading(None, [], call.options, call.x, names, default))
        self.fresh = False
        return self.readings[-1]

    def embedded(self, _module, _args, out: Tensor) -> None:
        self.reading().emb = out

    def at(self, tap: Tap):
        def seen(_module, _args, kwargs, out) -> None:
            own, call = self.reading(), self.call_under_way()
            here = replace(call, options=kwargs.get("transformer_options") or call.options)
            own.features.append(tap.stream.layout(out if tap.stream.output is None else out[tap.stream.output], here))
            if tap is self.tapped[-1]:
                if self.only:
                    raise StopForward
                torch.set_grad_enabled(False)
        return tap.module.register_forward_hook(seen, with_kwargs=True)


@contextmanager
def record(model: nn.Module, selection: Selection | None = None, only: bool = False) -> Iterator[list[Reading]]:
    """Collects one Reading for each call of `model` made inside the context, of a `selection` of its taps or the default ones. Nothing after the
    last one gets a graph; if readings are the `only` thing wanted, nothing after it is computed, and the call raises StopForward."""
    recorder = Recorder(model, selection or select(model), only)
    hooks = recorder.hooks()
    try:
        yield recorder.readings
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def calls(unet: nn.Module) -> Iterator[list[dict]]:
    """Collects the transformer_options of each call of `unet` made inside the context."""
    found: list[dict] = []
    hook = unet.register_forward_pre_hook(lambda _module, _args, kwargs: found.append(kwargs.get("transformer_options", {})), with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def blocks_run(model: nn.Module) -> Iterator[list[set[int]]]:
    """Collects, for each call of `model` made inside the context, which of its blocks computed anything with their layers. Of compiled blocks
    nobody sees the layers."""
    found: list[set[int]] = []
    hooks = [model.register_forward_pre_hook(lambda *_: found.append(set()))]
    for number, block in enumerate(blocks(model)):
        layers = [block] if is_compiled(block) else [layer for layer in block.modules() if layer._parameters]
        hooks += [layer.register_forward_hook(lambda *_, number=number: found[-1].add(number) if found else None) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, eq=False)
class Part:
    """The part of an image that one conditioning paints."""
    weight: Tensor                               # [B, 1, h, w], its share of the prediction at each place of its area
    area: tuple[int, int, int, int] | None = None  # height, width, top, left in the latent, which the UNet saw; all if None


def blended(pieces: Sequence[tuple[Sequence[Tensor], Part]], size: tuple[int, int]) -> list[Tensor]:
    """The features of a whole image with a latent of `size` (H, W), from those of the parts that conditionings paint.

    They are weighted as the predictions are. A place of a tap's map covers a power of two of the latent's pixels along a side, or what else patches
    make of that, such as Deep Shrink: then maps are resized to where they lie.
    """
    if len(pieces) == 1 and pieces[0][1].area is None:
        return list(pieces[0][0])
    areas = [part.area or (*size, 0, 0) for _, part in pieces]
    largest = max(range(len(areas)), key=lambda i: math.prod(areas[i][:2]))
    maps = []
    for layer in range(len(pieces[0][0])):
        steps = [pixels_of_a_place(n, cells) for n, cells in zip(areas[largest], pieces[largest][0][layer].shape[-2:])]
        height, width = [math.ceil(n / step) for n, step in zip(size, steps)]
        whole = 0
        for (features, part), area in zip(pieces, areas):
            tap = features[layer]
            (top, high), (left, wide) = [covered(*along) for along in zip(area[2:], area[:2], steps, tap.shape[-2:], (height, width))]
            if tap.shape[-2:] != (high, wide):
                tap = F.interpolate(tap, size=(high, wide), mode="bilinear")
            piece = tap * F.adaptive_avg_pool2d(part.weight, (high, wide)).to(tap.dtype)
            whole = whole + F.pad(piece, (left, width - left - wide, top, height - top - high))
        maps.append(whole)
    return maps


def pixels_of_a_place(pixels: int, places: int) -> float:
    """How many of the latent's `pixels` one of `places` covers: a power of two, with odd numbers halved upwards, if it can be."""
    power = 2 ** math.ceil(math.log2(pixels / places))
    return power if math.ceil(pixels / power) == places else pixels / places


def covered(begin: int, pixels: int, step: float, places: int, most: int) -> tuple[int, int]:
    """Of an area that has `pixels` from `begin` on, and `places` in its own map: where it begins in the whole map, of `most` places with `step`
    pixels each, and how many it has there."""
    count = places if math.ceil(pixels / step) == places else min(most, max(1, round(pixels / step)))
    return min(int(begin // step), most - count), count
