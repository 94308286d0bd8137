"""A head in training on what the host's model shows of images: its steps, its file, its quality."""
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...heads import HeadFileError, load_head, load_training, save_head
from ...rg_core.features import taps
from ...rg_core.readout.head import ReadoutHead
from ...rg_core.training.processes import ALONE, Processes
from ...rg_core.training.recipes import Recipe
from ...rg_core.training.trainer import Diverged, Trainer
from ...rg_core.training.training import deviations, spatial_loss
from ..common import checks
from ..common.log import Log, log
from ..engine.reader import read
from ..engine.schedule.noise_levels import EMBEDDED
from .evaluation import Judge, Quality
from .training_set import BANDS, TrainingSet, single

MEASURED = 64  # images, for the sizes of their features
EVERY, AT_MOST = 300.0, 0.01  # seconds after which the file is written anew, and the share of the time that this may take
ROUNDING = 0.03  # relative, of what another card reads; half precision reads 0.004 otherwise than single
OTHERS = {"pictures": "other images, or the same in another order", "conditionings": "other conditionings, or the same in another order",
          "model": "something else on MODEL or conditioning, such as another LoRA, ControlNet or precision"}  # as TrainingSet.fingerprint has it


class Training:
    """A head in training by `recipe` on what MODEL's features show of the images, a fifth of which it never sees. Only the head gets
    gradients, in single precision; features are read anew in each step. Several `processes` train it together, each on a batch of the recipe's size;
    the first one writes."""

    def __init__(self, data: TrainingSet, recipe: Recipe, seed: int, processes: Processes = ALONE):
        self.data, self.recipe, self.seed, self.log, self.processes = data, recipe, seed, Log(data.node), processes
        self.device, self.fingerprint = data.model.load_device, data.fingerprint()
        self.rest, self.held = data.split(torch.Generator().manual_seed(seed))
        self.curve: list[float] = []  # the loss of each step
        self.written = False          # whether its file has the last of them
        with torch.inference_mode(False):
            self.head = new_head(data, recipe, seed).to(self.device)
            self.rescale()
            self.trainer = Trainer({"head": self.head}, self.losses, recipe.steps, lr=recipe.learning_rate, seed=seed, schedule=recipe.schedule,
                                   processes=processes)

    def rescale(self) -> None:
        """Has every channel count alike at first, but in UNets, whose heads are as their authors' are."""
        if taps.embedding_width(self.data.model.model.diffusion_model):
            return
        rng, some = torch.Generator().manual_seed(self.seed), self.rest[:MEASURED]
        found = deviations(reading for _, reading in self.data.read(some, rng, identity))
        for block, (mean, deviation) in zip(self.head.bottleneck_layers, found, strict=True):
            block.rescale(mean.to(self.device, copy=True), deviation.to(self.device, copy=True))

    @property
    def batch_size(self) -> int:
        """Of all processes."""
        return self.recipe.batch_size * self.processes.count

    def losses(self, rng: torch.Generator) -> Iterator[dict[str, Tensor]]:
        count = self.batch_size
        picked = [self.rest[i] for i in torch.randint(len(self.rest), (count,), generator=rng).tolist()]
        for some, reading in self.data.read(picked, rng, identity, processes=self.processes):
            wanted = torch.cat([self.data.wanted(example) for example in some]).to(self.device)
            loss = spatial_loss(self.head, plain(reading), wanted, self.data.kind in self.recipe.balanced)
            yield {"head": loss * (len(some) / count)}

    def run(self, path: Path) -> None:
        """To the last step; writes `path` now and then, for what ends without a word, such as a crash. Raises what interrupts it, between two
        steps."""
        progress, due = comfy.utils.ProgressBar(self.recipe.steps), time.monotonic() + EVERY
        while self.trainer.done < self.recipe.steps:
            if self.processes.any(comfy.model_management.processing_interrupted()):  # no one goes on alone
                comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
            self.step()
            progress.update_absolute(self.trainer.done)
            begin = time.monotonic()
            if begin >= due and self.processes.rank == 0:
                self.kept(path, "Training continues, and the file is written again later.")
                now = time.monotonic()
                due = now + max(EVERY, (now - begin) / AT_MOST)

    def step(self) -> None:
        with torch.inference_mode(False), torch.enable_grad(), repeatable():
            self.curve.append(self.trainer.step()["head"])

    def judged(self) -> Quality:
        """Ends the training; how well the head reads the images that it has not seen."""
        self.trainer.finish()
        judge, rng = Judge(BANDS, self.data.mean(self.rest)), torch.Generator().manual_seed(self.seed)
        for band in range(BANDS):
            for some, reading in self.data.read(self.held, rng, identity, band, BANDS):
                for i, example in enumerate(some):
                    readout = read(self.head, single(reading, i), self.data.size(example)).cpu()
                    judge.add(band, example, self.data.wanted(example), [readout])
        found = judge.quality(judge.best())
        self.head.start = found.start
        self.head.config |= {"trained_on": {"pictures": len(self.rest), "held_out": len(self.held)}, "explained": found.explained()}
        return found

    def settings(self) -> dict:
        """What a training must have in common with the one that it goes on with."""
        return {"kind": self.data.kind, "model": self.head.base_model, "taps": self.data.channels, "preset": self.recipe.name,
                "batch_size": self.batch_size, "learning_rate": self.recipe.learning_rate, "seed": self.seed,
                "pictures": len(self.data.given)}

    def save(self, path: Path) -> None:
        """Writes the head as it is and all that is needed to go on."""
        state = self.trainer.state() | {"curve": torch.tensor(self.curve, dtype=torch.float64)} | self.fingerprint
        save_head(self.head, path, torch.float32, state, training=self.settings() | {"done": self.trainer.done})

    def kept(self, path: Path, instead: str) -> bool:
        """Whether `path` could be written. If not a warning says so, each once, and what happens `instead`."""
        if self.processes.rank:
            return True
        try:
            self.save(path)
            self.written = True
        except HeadFileError as error:
            self.log.warn(f"{error} {instead}", instead)
            self.written = False
        return self.written

    def resume(self, path: Path) -> None:
        """Goes on where the training that wrote `path` was. Raises ValueError where that was another one."""
        head, (state, config) = load_head(path), load_training(path)
        known = config.get("training")
        known = known if isinstance(known, dict) else {}
        differ = [f"{name} {checks.shown(known.get(name))} instead of {value}" for name, value in self.settings().items() if known.get(name) != value]
        if not differ:  # the first alone: what the model reads depends on the others
            differ = [words for name, words in OTHERS.items() if not rows_close(state.get(name), self.fingerprint[name])][:1]
        if differ:
            raise ValueError(f"{path.name} was trained with {', '.join(differ)}. Use the same again to continue, or turn resume off to start over.")
        done, curve = known.get("done"), state.get("curve")
        if not isinstance(done, int) or done < 1 or curve is None or curve.shape != (done,):
            raise ValueError(f"{path.name} does not say correctly how far its training got. Turn resume off to start over.")
        if done > self.recipe.steps:
            raise ValueError(f"{path.name} was already trained for {done} steps, and steps is {self.recipe.steps}. Raise steps, or use the head as "
                             "it is.")
        with torch.inference_mode(False):
            self.head.load_state_dict(head.state_dict())
            self.trainer.restore(done, state)
        self.curve = curve.tolist()


def rows_close(one: Tensor | None, two: Tensor) -> bool:
    """Of each row [N, X], up to rounding."""
    return one is not None and one.shape == two.shape and bool(((one.float() - two).norm(dim=1) <= ROUNDING * two.norm(dim=1)).all())


def new_head(data: TrainingSet, recipe: Recipe, seed: int) -> ReadoutHead:
    embedding = taps.embedding_width(data.model.model.diffusion_model) or EMBEDDED
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # that of the CPU alone
        return ReadoutHead(data.kind, data.channels, projection_dim=recipe.projection_dim, emb_channels=embedding, hidden=recipe.hidden,
                           **data.about())


def identity(base_model, reading: taps.Reading) -> taps.Reading:
    return reading


def plain(reading: taps.Reading) -> taps.Reading:
    """Copies that autograd takes."""
    return replace(reading, emb=reading.emb.to(torch.float32, copy=True), features=[f.to(torch.float32, copy=True) for f in reading.features])


@contextmanager
def repeatable() -> Iterator[None]:
    """Convolutions on a GPU whose gradients do not differ from run to run."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def try_writing(node: str, path: Path) -> None:
    """Raises ValueError if nothing can be written at `path`: better before hours of training than after."""
    part = path.with_name(f"{path.name}.part")  # a head that is there already stays as it is
    try:
        part.write_bytes(bytes(4096))
    except OSError as error:
        raise ValueError(f"{node}: {path} cannot be written ({error}), so training did not start. Check its name, your write permission and the free "
                         "space.") from error
    finally:
        with suppress(OSError):
            part.unlink()


def trained(training: Training, path: Path, resume: bool) -> tuple[ReadoutHead, Quality, str]:
    """The head, how well it reads, and in words how it was made. It goes on from `path` if it should `resume`, and writes itself there now and
    then, at the end, and when it is interrupted or fails. Raises ValueError."""
    begin, node = time.monotonic(), training.data.node
    try:
        if resume:
            training.resume(path)
    except (ValueError, RuntimeError) as error:  # RuntimeError: torch on weights of other shapes than the file says
        raise ValueError(f"{node}: {error}") from error
    try_writing(node, path)
    before = training.trainer.done
    try:
        training.run(path)
        found = training.judged()
    except Diverged as error:
        raise ValueError(f"{node}: {error}. Lower learning_rate. If this happens at the very first step, the model itself "
                         "gives no usable numbers.") from error
    except BaseException:
        done = training.trainer.done
        lost = f"What was trained since it was last written, up to step {done}, is lost."
        if done and not training.processes.rank and not training.trainer.torn and training.kept(path, lost):
            log.warning("%s: stopped after %d of %d steps, saved in %s. Turn resume on to continue from there.", node, done,
                        training.recipe.steps, path.name)
        raise
    kept = training.kept(path, "The head is finished anyway: connect Save Readout Head and queue again.")
    ago = f" (the first {before} of them earlier)" if before else ""
    with torch.inference_mode(False):  # autograd runs through heads
        training.head.cpu()
    return training.head, found, (f"trained on {len(training.rest)} images for {training.trainer.done} steps{ago}, in {time.monotonic() - begin:.0f} "
                                  f"seconds, and {'saved in' if kept else 'not saved, because nothing could be written to'} {path.name}")
