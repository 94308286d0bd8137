"""What heads read of one reference during a run."""
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...rg_core.features.taps import Reading
from ...rg_core.guidance.targets import Target
from ...rg_core.images.regions import repeat
from ...rg_core.readout.head import ReadoutHead
from .calls.conditioning import GAP, uncovered
from .calls.inpainting import Inpainting, digest, rows
from .step import Step

NOT_READ = {"control", "hooks"}  # of a reference's conditioning: their models are loaded for the guided image alone


class Reader:
    """Reads one reference at the noise levels of a run, by the words that it was made with, and has the reference keep what
    was read; the reference's way does not depend on the image being made, so the next run need not read it again.

    `source` is the MODEL that it is kept for, `dtype` the type that it is kept and used in: at once, so that the first run
    equals the next ones. `inpainting` is what the run shows beside its latents, if it said so: guiders
    of other packs may sample in a way of their own. `node` is for messages.
    """

    def __init__(self, node: str, reference, source, dtype: torch.dtype, inpainting: Inpainting | None):
        self.node, self.reference, self.source, self.dtype = node, reference, source, dtype
        self.inpainting = inpainting or Inpainting(reference.trajectory.latents[0])
        self.used: set[tuple] = set()  # what this run needs of what the reference keeps
        self.conds: list[dict] | None = None
        self.images = 0  # as many as are read: where each of the batch has a mask of its own, the reference beside each
        self.shown_digest = ""     # what the model is shown of it

    def at_sigma(self, name: str, step: Step) -> tuple[Tensor, Tensor]:
        """The reference at this noise level and what a denoiser would predict there, [R, C, H, W] each; `name` is of the target
        that asks."""
        trajectory = self.reference.trajectory
        if trajectory.size != step.size:
            raise ValueError(f"{self.node}: the reference of the {name} target is {trajectory.size[1]}x{trajectory.size[0]} in latents, but the "
                             f"image being made is {step.x.shape[-1]}x{step.x.shape[-2]}. Make both the same size.")
        return tuple(part.to(step.x) for part in trajectory.segment(step.sigma))

    def readouts(self, name: str, step: Step, heads: dict[ReadoutHead, tuple[int, int]]) -> dict[ReadoutHead, Tensor]:
        """What each head reads [R, C, *size] of the reference, whose sizes (H, W) these are, by the reference's own words."""
        here = self.step_at_reference(name, step)
        keys = {head: (head, step.sigma, self.dtype, self.shown_digest) for head in heads}
        self.used.update(keys.values())
        known = self.reference.readouts.get(self.source, {})
        found = {head: known[key] for head, key in keys.items() if key in known}
        missing = {head: size for head, size in heads.items() if head not in found}
        if missing:
            acting = here.active_areas(self.conds)
            if not acting:
                raise ValueError(f"{self.node}: the reference of the {name} target was made with a conditioning that is not active at this noise "
                                 "level, so the reference cannot be read. Make the reference with a conditioning that is always active, or let the "
                                 "target end earlier.")
            if uncovered(acting, here.x) > GAP:
                step.log.warn(f"the reference of the {name} target was made with a conditioning that leaves out {uncovered(acting, here.x):.0%} of "
                              "the image, where nothing is read from the reference. Make the reference with a conditioning for the whole image.",
                              f"gap of {name}")
            for head, readout in self.read(here, self.conds, missing).items():
                found[head] = readout
                self.reference.keep(self.source, keys[head], readout, self.used)
        with torch.inference_mode(False):
            return {head: readout.to(step.x.device, torch.float32) for head, readout in found.items()}

    def readouts_for(self, conds: list[dict], name: str, step: Step, heads: dict[ReadoutHead, tuple[int, int]]) -> dict[ReadoutHead, Tensor]:
        """The same by other words than the reference's own; not kept."""
        here = self.step_at_reference(name, step)
        conds = self.inpainting.again(step.model, self.clean(here.x), conds)
        with torch.inference_mode(False):
            return {head: readout.float() for head, readout in self.read(here, conds, heads).items()}

    def read(self, step: Step, conds: list[dict], heads: dict[ReadoutHead, tuple[int, int]]) -> dict[ReadoutHead, Tensor]:
        with torch.no_grad():
            reading = step.read(conds, heads)
        return {head: read(head, reading, size).to(self.dtype) for head, size in heads.items()}

    def clean(self, like: Tensor) -> Tensor:
        """The reference without noise, as many images as there are in `like`."""
        return repeat(self.reference.trajectory.latents[0].to(like), len(like))

    def step_at_reference(self, name: str, step: Step) -> Step:
        """The step at the reference; makes its own conditioning ready, once for this run."""
        latent, _ = self.at_sigma(name, step)
        if self.conds is None:
            given = [[c, {k: v for k, v in more.items() if k not in NOT_READ}] for c, more in self.reference.conditioning]
            own = self.clean(repeat(latent, max(len(latent), len(self.inpainting.latent_image))))
            conds, more = self.inpainting.told(step.model, own, comfy.sampler_helpers.convert_cond(given))
            self.conds = comfy.samplers.process_conds(step.model, own, {"positive": conds}, own.device, **more)["positive"]
            self.images = rows(self.conds, len(latent))
            self.shown_digest = digest(self.conds, self.images)
        latent = repeat(latent, self.images)
        return step.at(self.inpainting.noisy(step.model, latent, self.clean(latent), step.sigma))


class Readers:
    """Those of one run, by reference. Arguments as of Reader; `inpainting` is known when sampling begins."""

    def __init__(self, node: str, source, dtype: torch.dtype):
        self.node, self.source, self.dtype = node, source, dtype
        self.inpainting: Inpainting | None = None
        self.known: dict[object, Reader] = {}

    def of(self, target: Target) -> Reader:
        if target.reference not in self.known:
            self.known[target.reference] = Reader(self.node, target.reference, self.source, self.dtype, self.inpainting)
        return self.known[target.reference]

    def at_sigma(self, target: Target, step: Step) -> tuple[Tensor, Tensor]:
        """See Reader.at_sigma."""
        return self.of(target).at_sigma(target.name, step)

    def read(self, step: Step, targets: list[Target], conds: list[dict] | None) -> list[Tensor | None]:
        """For each of `targets`, what its head reads of its reference at this noise level; None for those without one. By the
        reference's own words, or beside the unconditional branch by `conds`, as that one says."""
        found: list[Tensor | None] = [None] * len(targets)
        for reference in dict.fromkeys(t.reference for t in targets if t.reference is not None):
            mine = [i for i, t in enumerate(targets) if t.reference is reference]
            first, heads = targets[mine[0]], {targets[i].head: targets[i].size for i in mine}
            reader = self.of(first)
            readouts = reader.readouts(first.name, step, heads) if conds is None else reader.readouts_for(conds, first.name, step, heads)
            for i in mine:
                found[i] = step.select_batch(readouts[targets[i].head])
        return found


def read(head: ReadoutHead, reading: Reading, size: tuple[int, int], emb: Tensor | None = None) -> Tensor:
    """What `head` reads [B, C, *size] without gradients; `emb` [1, E], if given, is what it is told of the timestep instead of
    the model's own embedding."""
    with torch.inference_mode(False), torch.no_grad():
        emb = reading.emb if emb is None else emb
        return head([f.clone().float() for f in reading.of(head)], emb.clone().float(), size)
