"""What heads are made from, as the model reads it: images at random noise levels, and what should be read of them."""
from collections.abc import Callable, Iterator
from dataclasses import replace

import comfy.model_management
import torch
from torch import Tensor

from ...heads.config import CONTROL_RANGES, DEFAULT_RANGE
from ...rg_core.features import taps
from ...rg_core.fitting import ridge
from ...rg_core.images.control_images import fit_for, to_range
from ...rg_core.images.resize import resize
from ...rg_core.training.processes import ALONE, Processes
from ..common.latents import family
from ..engine.calls.inpainting import holes_of, with_holes
from ..engine.read_features import read_features, sigma_at
from ..engine.reader import read
from . import held_out
from .examples import Example, batches

BANDS = 5         # of noise, in which heads are fitted and judged
FEW = 64          # values that stand for all of a tensor


def stride_for(model) -> int:
    """What readouts of MODEL are smaller by than its latents: where these are pixels, reading at half their size is fine enough."""
    return 2 if model.get_model_object("latent_format").spacial_downscale_ratio == 1 else 1


def fold_for(model) -> int:
    """How many values, along a side, a fitted head of MODEL reads in each place of its taps."""
    return max(1, taps.patch(model.model.diffusion_model) // stride_for(model))


def readout_size(latents: Tensor, stride: int) -> tuple[int, int]:
    """(H, W) of a readout of latents [B, C, h, w]."""
    return tuple(max(1, n // stride) for n in latents.shape[-2:])


def of_model(model) -> dict:
    """What any head for MODEL says of itself, as keyword arguments; `config` is to be added to."""
    return {"base_model": family(model), "stride": stride_for(model),
            "taps": taps.names(model.model.diffusion_model),
            "config": {"text_width": model.model.model_config.unet_config.get("context_dim"), "model": taps.fingerprint(model.model.diffusion_model)}}


def solving_device(model, features: int) -> torch.device:
    """Where equations of so many unknowns are solved, with room made for them: on a GPU that has it, for most CPUs take minutes for
    10,000."""
    device, room = model.load_device, 4 * 8 * features**2
    if device.type == "cuda":  # others may have no numbers of 64 bits
        comfy.model_management.free_memory(room, device)
        if comfy.model_management.get_free_memory(device) > room:
            return device
    return torch.device("cpu")


def check_finite(node: str, band: int, features: Tensor) -> None:
    """What a model makes of an image in this band of noise must be finite."""
    if not torch.isfinite(features).all():
        raise ValueError(f"{node}: the model's features are NaN or infinite between percent {band / BANDS:.1f} and {(band + 1) / BANDS:.1f}. Run the "
                         "model in another precision, such as --bf16-unet or --fp32-unet.")


class TrainingSet:
    """The images `given`, for a head that reads a map of `kind` on MODEL. `node` is for messages."""

    outputs, pooled = 3, False

    def __init__(self, node: str, model, given: list[Example], kind: str):
        self.node, self.model, self.given, self.kind = node, model, given, kind
        self.channels = taps.channels(model.model.diffusion_model)
        self.fold = 1 if self.pooled else fold_for(model)
        self.known: dict[Example, Tensor] = {}

    @property
    def control_range(self) -> tuple[float, float]:
        return CONTROL_RANGES.get(self.kind, DEFAULT_RANGE)

    def about(self) -> dict:
        """What a head says of itself, as keyword arguments; `config` is to be added to."""
        return {"control_range": self.control_range} | of_model(self.model)

    def split(self, rng: torch.Generator) -> tuple[list[int], list[int]]:
        """The places of the images to learn from, and of those to judge by, at random."""
        rest, held = [], []
        for group in self.groups():
            parts = held_out.split(self.node, held_out.distinct([self.given[i].latent for i in group]), rng)
            rest, held = (before + [group[i] for i in part] for before, part in zip((rest, held), parts))
        return rest, held

    def groups(self) -> list[list[int]]:
        """The places of images that differ in what should be read of them; some of each are held out."""
        return [list(range(len(self.given)))]

    def size(self, example: Example) -> tuple[int, int]:
        """(H, W) of the readout of it."""
        return readout_size(example.latent, stride_for(self.model))

    def wanted(self, example: Example) -> Tensor:
        """What should be read of it, [1, outputs, H, W], in the control range."""
        if example not in self.known:
            self.known[example] = to_range(fit_for(self.kind, example.image, self.size(example)), self.control_range)
        return self.known[example]

    def pairs(self, example: Example, reading: taps.Reading) -> tuple[Tensor, Tensor]:
        """The features [P, F] of each of P places, and what should be read there [P, O]."""
        wanted = self.wanted(example)
        if self.fold > 1:
            x, y = ridge.folded(reading.features, wanted, self.fold)
        else:
            x, y = ridge.rows(reading.features, self.size(example)), wanted.flatten(2).mT
        return x[0], y[0]

    def readout(self, head, example: Example, reading: taps.Reading) -> Tensor:
        """What `head` reads of it, shaped as `wanted`."""
        return read(head, reading, self.size(example))

    def fingerprint(self) -> dict[str, Tensor]:
        """What tells these images [N, 4], their conditionings [N, FEW] and how the model reads the first of them [taps, FEW] from others, up
        to the last bits, which a VAE or another card may give otherwise tomorrow. Asks the model once."""
        images = [torch.stack([f(x.float().cpu()) for x in (e.latent, e.image) for f in (torch.mean, torch.std)]) for e in self.given]
        said = [few(torch.cat([part.flatten() for part, _ in e.positive])) for e in self.given]
        (_, seen), = self.read([0], torch.Generator().manual_seed(0), lambda base_model, reading: [few(f) for f in reading.features])
        return {"pictures": torch.stack(images), "conditionings": torch.stack(said), "model": torch.stack(seen)}

    def mean(self, places: list[int]) -> Tensor:
        """What should be read of those at `places` on average, [1, 3, H, W], of the first one's size."""
        wanted = [self.wanted(self.given[i]) for i in places]
        return torch.stack([resize(x, wanted[0].shape[-2:]) for x in wanted]).mean(0)

    def read(self, places: list[int], rng: torch.Generator, use: Callable, band: int = 0, bands: int = 1,
             processes: Processes = ALONE) -> Iterator[tuple[list[Example], object]]:
        """For each part of the images at `places` that the model can be asked about at a time: its examples, and what
        `use(base_model, reading)` makes of the taps, at noise levels at random in this one of `bands` equal parts of the schedule. Of several
        `processes`, each is given its share of a part, with the numbers at random that it would have with one."""
        given = [self.given[i] for i in places]
        for part in batches(given):
            some = [given[i] for i in part]
            samples = torch.cat([e.latent for e in some])
            percents = (band + torch.rand(len(some), generator=rng)) / bands
            levels = torch.tensor([sigma_at(self.model, p) for p in percents.tolist()])
            noise = torch.randn(samples.shape, generator=rng)
            with torch.inference_mode():
                positive = with_holes(self.model, some[0].positive, samples, rng, len(some))
                mine = processes.share(range(len(some)))
                if not mine:
                    continue
                if len(mine) < len(some):
                    some, positive = [some[i] for i in mine], holes_of(positive, mine)
                    samples, noise, levels = samples[mine], noise[mine], levels[mine]
                found = read_features(self.node, self.model, positive, samples, noise, levels, use)
            yield some, found


def few(x: Tensor) -> Tensor:
    """FEW of its values [FEW], evenly spread."""
    x = x.flatten()
    return x[torch.arange(FEW, device=x.device) * (len(x) - 1) // (FEW - 1)].float().cpu()


def single(reading: taps.Reading, i: int) -> taps.Reading:
    """Image i of it alone."""
    return replace(reading, emb=reading.emb[i:i + 1], features=[f[i:i + 1] for f in reading.features])
