"""One setting of the host on one device: full-size models with random weights, loaded as users load them, in guided steps.

`tools/gpu.py` starts a process of this for each setting, since ComfyUI takes its own when it is imported. It gets the setting as
JSON: `flags` of ComfyUI, `dynamic` for its dynamic VRAM, `cap` in GB of the card's memory, and `jobs`. Each job prints a line of JSON.
"""
import statistics
import time
import traceback
from contextlib import contextmanager

import torch

from tools.benchmarks.costs import peak_bytes
from tools.gpu_jobs.jobs import run_jobs

WIDTHS = {"sd15": 768, "sdxl": 2048}  # of conditionings
SIGMAS = torch.tensor([14.0, 5.0])    # one step, where all targets act


def conditioning(name: str, seed: int) -> list:
    rng = torch.Generator().manual_seed(seed)
    more = {"pooled_output": torch.randn(1, 1280, generator=rng), "width": 1024, "height": 1024}
    return [[torch.randn(1, 77, WIDTHS[name], generator=rng), more]]


def load(job: dict):
    """The MODEL of a job; `rounded` keeps it in float32 with the values that another type would give it."""
    import comfy.sd
    options = {"dtype": getattr(torch, job["dtype"])} if job.get("dtype") else {}
    model = comfy.sd.load_diffusion_model(job["file"], model_options=options)
    if job.get("rounded"):
        with torch.no_grad():
            for weight in model.model.diffusion_model.parameters():
                weight.data = weight.data.to(getattr(torch, job["rounded"])).float()
    if job.get("compiled"):
        from comfy_api.torch_helpers import set_torch_compile_wrapper
        model = model.clone(disable_dynamic=True)
        set_torch_compile_wrapper(model=model, backend="inductor")
    return model


@contextmanager
def partly(size: int | None):
    """Diffusion models are loaded up to `size` bytes; the other weights come for each operation."""
    from comfy.model_patcher import ModelPatcher
    whole = ModelPatcher.load

    def load(self, device_to=None, lowvram_model_memory=0, *more, **named):
        small = self.model_size() <= size  # a head
        return whole(self, device_to, lowvram_model_memory if small else size, *more, **named if small else named | {"full_load": False})

    ModelPatcher.load = load if size else whole
    try:
        yield
    finally:
        ModelPatcher.load = whole


class Trial:
    """A model with a pose target for it; samples of one step."""

    def __init__(self, job: dict):
        from readout_guidance_pack.heads import load_head
        from readout_guidance_pack.rg_core.guidance.targets import Spatial
        self.job, self.model = job, load(job)
        self.shape = (job.get("batch", 1), 4, *job["size"])
        with torch.inference_mode(False):
            self.target = Spatial(name="pose", head=load_head(job["head"]), start=0.0, end=1.0,
                                  image=torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        self.noise = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))

    def guided(self):
        from readout_guidance_pack.nodes.engine import guided
        from readout_guidance_pack.rg_core.guidance.updates import Move
        return guided("gpu", self.model, [self.target], Move(), recompute=self.job.get("recompute", "auto"))

    def sample(self, guided: bool, sigmas=SIGMAS, sampler: str = "euler") -> torch.Tensor:
        import comfy.samplers
        guider = comfy.samplers.CFGGuider(self.guided() if guided else self.model)
        guider.set_conds(*(conditioning(self.job["model"], seed) for seed in (1, 2)))
        guider.set_cfg(3.0)
        out = guider.sample(self.noise, torch.zeros(self.shape), comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return out.float().cpu()


def moves_of(action) -> list[torch.Tensor]:
    """The displacements of the guided steps that `action` takes."""
    from readout_guidance_pack.nodes.engine.run import Run
    measured, moves = Run.compute_shift, []

    def listen(self, *args):
        outs, displacement = measured(self, *args)
        moves.append(displacement.float().cpu())
        return outs, displacement

    Run.compute_shift = listen
    try:
        action()
    finally:
        Run.compute_shift = measured
    return moves


def move(trial: Trial) -> dict:
    """Where guidance moves the first step, saved to compare; and how far apart two such moves are."""
    guided: list[torch.Tensor] = []
    times = range(1 if "rounded" in trial.job else 2)
    moves = moves_of(lambda: guided.extend(trial.sample(True) for _ in times))  # before any plain step, which might load things
    again = moves[-len(moves) // len(times)]  # each run may make several
    plain = trial.sample(False)
    torch.save(moves[0], trial.job["save"])
    return {"computes_in": str(trial.model.model.get_dtype_inference()), "finite": bool(plain.isfinite().all() and guided[0].isfinite().all()),
            "again_apart": ((moves[0] - again).norm() / moves[0].norm()).item(),
            "pictures_apart": ((guided[0] - guided[-1]).norm() / (guided[0] - plain).norm()).item()}


def remembered():
    """Whether blocks are computed again, of each gradient from now on."""
    from readout_guidance_pack.nodes.engine.step import Step
    gradient, seen = Step.gradient, []

    def listen(self, conds, read_by, pull, recompute, witness):
        seen.append(recompute)
        return gradient(self, conds, read_by, pull, recompute, witness)

    Step.gradient = listen
    return seen


def cost(trial: Trial) -> dict:
    """Seconds and peak memory of a plain and a guided step, medians; a run's own begin and end, which come once, left out."""
    found, again, more = {}, remembered(), 5
    for guided in (False, True):
        trial.sample(guided)
        peak_bytes(reset=True)
        times = []
        for _ in range(trial.job.get("rounds", 3)):
            seconds = []
            for steps in (1, 1 + more):
                start = time.monotonic()
                trial.sample(guided, torch.linspace(14, 5, steps + 1))
                seconds.append(time.monotonic() - start)
            times.append((seconds[1] - seconds[0]) / more)
        found["guided" if guided else "plain"] = {"seconds": round(statistics.median(times), 4), "once": round(seconds[0] - times[-1], 3),
                                                  "peak_gib": round(peak_bytes() / 2**30, 2)}
    ratio = round(found["guided"]["seconds"] / found["plain"]["seconds"], 2)
    return {"ratio": ratio, **found, "again": sorted(set(again)), "weights_gib": round(trial.model.loaded_size() / 2**30, 2)}


def image(trial: Trial) -> dict:
    """Seconds of whole images, 20 steps of DPM++ 2M, that stay in the range in which targets act by default."""
    from dataclasses import replace

    import comfy.samplers
    trial.target = replace(trial.target, end=0.9)
    sigmas = comfy.samplers.calculate_sigmas(trial.model.get_model_object("model_sampling"), "karras", 20)
    found = {}
    for guided in (False, True):
        trial.sample(guided)
        start = time.monotonic()
        trial.sample(guided, sigmas, "dpmpp_2m")
        found["guided" if guided else "plain"] = round(time.monotonic() - start, 3)
    return found


def fit(trial: Trial) -> dict:
    """What it costs to fit a head to images of the trial's size."""
    from tools.benchmarks.fit_costs import fit_costs
    from tools.benchmarks.models import Subject
    return fit_costs(Subject(trial.model, trial.target.head, conditioning(trial.job["model"], 1), trial.shape), trial.job["images"])


def after_failure(trial: Trial) -> dict:
    """Whether the host can go on: a small plain and a small guided step."""
    trial.shape, trial.job = (1, 4, 32, 32), trial.job | {"recompute": "auto"}
    trial.noise = torch.randn(trial.shape, generator=torch.Generator().manual_seed(0))
    return {"afterwards": all(bool(trial.sample(guided).isfinite().all()) for guided in (False, True))}


ACTIONS = {"move": move, "cost": cost, "image": image, "fit": fit}


def run(job: dict) -> dict:
    trial, found = None, {}
    try:
        trial = Trial(job)
        with partly(job.get("partial")):
            found = ACTIONS[job["do"]](trial)
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
    if "error" in found and trial:
        try:
            found |= after_failure(trial)
        except Exception as error:
            found |= {"afterwards": f"{type(error).__name__}: {str(error)[:400]}"}
    return found


def main() -> None:
    run_jobs(run)
