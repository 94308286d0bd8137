"""Apply Readout Guidance (Ray): guidance for the workers of Raylight, which load their models themselves."""
import importlib
import importlib.util
import sys
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...rg_core.guidance.updates import Move
from ..common.types import CATEGORY, Guidance
from ..engine.memory import CHOICES
from . import description
from .move_inputs import MOVES, RECOMPUTE, STRENGTH

NODE = "Apply Readout Guidance (Ray)"
PACK = Path(__file__).parents[2]
RayActors = io.Custom("RAY_ACTORS")  # Raylight's: {"workers": handles of its actors}
SAMPLE = {"common_ksampler", "custom_sampler", "custom_sampler_advanced"}  # methods of its actors


def is_installed() -> bool:
    """Whether Raylight is among the custom nodes; it may be loaded later than this pack."""
    folders, spec = [Path(path) for path in folder_paths.get_folder_paths("custom_nodes")], importlib.util.find_spec("ray")
    there = spec is not None and spec.origin  # a folder of that name alone, as where Ray keeps its sessions, would be taken for a package
    return bool(there) and any(path.is_dir() for folder in folders for path in folder.glob("*/src/raylight"))


def put_on(model, folder: str, described: dict):
    """In a worker: its MODEL, guided. Ray sends this function by its code, so that it knows nothing of the modules here."""
    import importlib.util
    import sys
    name = "readout_guidance_pack"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    guided = importlib.import_module(f"{name}.nodes.samplers.description").guided_by(model, described)
    guided.unguided_model = model
    return guided


def take_off(model):
    """In a worker: its MODEL as it was."""
    return getattr(model, "unguided_model", model)


class GuidedWorker:
    """One of Raylight's actors whose samplings are guided. Its model is so for as long as one takes: whoever has the actor without this node finds it
    as it was."""

    def __init__(self, ray, actor, described):
        self.ray, self.actor, self.described = ray, actor, described

    def __getattr__(self, name: str):
        return GuidedMethod(self, name) if name in SAMPLE else getattr(self.actor, name)

    def put_on(self) -> None:
        """Raises what goes wrong there."""
        self.ray.get(self.actor.model_function_runner.remote(put_on, str(PACK), self.described))

    def take_off(self) -> None:
        self.actor.model_function_runner.remote(take_off)  # after what it was told before


class GuidedMethod:
    def __init__(self, worker: GuidedWorker, name: str):
        self.worker, self.name = worker, name

    def remote(self, *args, **kwargs):
        self.worker.put_on()
        found = getattr(self.worker.actor, self.name).remote(*args, **kwargs)
        self.worker.take_off()
        return found


def refuse_split_models(told: dict) -> None:
    """`told` is Raylight's parallel_dict. A guided step differentiates a whole model in one process."""
    ways = {"FSDP": told.get("is_fsdp"), "PipeFusion": told.get("pipefusion_enabled"), "CFG parallel": told.get("cfg_degree", 1) > 1,
            "sequence parallel (ulysses_degree, ring_degree)": max(told.get("ulysses_degree", 1), told.get("ring_degree", 1)) > 1}
    split = [name for name, on in ways.items() if on]
    if split:
        raise ValueError(f"{NODE}: Raylight shares one image among its workers here, by {' and '.join(split)}, and guidance needs the whole model in "
                         "each. Set FSDP off and ulysses_degree, ring_degree and cfg_degree to 0 or 1: then each worker makes images of its own.")


class ApplyReadoutGuidanceRay(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyReadoutGuidanceRay", display_name=NODE, category=CATEGORY, search_aliases=["raylight", "multi gpu", "controlnet"],
            description="Attaches targets to the models of Raylight's workers. Each worker makes images of its own, guided by all targets.",
            inputs=[RayActors.Input("ray_actors", tooltip="From Load Diffusion Model (Ray), or from Raylight's nodes behind it."),
                    Guidance.Input("guidance", tooltip="One target or a chain of targets, for the whole image."),
                    STRENGTH, RECOMPUTE, MOVES],
            outputs=[RayActors.Output(display_name="ray_actors", tooltip="The same workers, guided, for Raylight's samplers.")])

    @classmethod
    def execute(cls, ray_actors, guidance, strength, recompute=CHOICES[0], moves=Move.moves):
        import ray
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        workers = ray_actors["workers"]
        refuse_split_models(ray.get(workers[0].get_parallel_dict.remote()))
        described = ray.put(description.describe(NODE, guidance, Move(strength, moves=moves), recompute))
        guided = [GuidedWorker(ray, worker, described) for worker in workers]
        for worker in guided:  # what does not fit their models is said here
            worker.put_on()
            worker.take_off()
        return io.NodeOutput(ray_actors | {"workers": guided})
