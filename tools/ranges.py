"""How exactly targets are met by how long and how hard they act: `python run.py evaluate --ranges [--seeds N]`."""
from readout_guidance_pack.rg_core.updates import Move
from tools.control import CONTROLS, Bench, Setting, show

ENDS = (0.5, 0.65, 0.8, 0.9)
STRONGER = (0.12, 0.15)  # until 0.8


def ranges(seeds: int) -> dict:
    """Pose, depth, edges and pose with edges; `picture_ratio` is the time of the guided pictures over that of the unguided ones."""
    bench = Bench(seeds)
    bench.sample((), Setting(steps=1))  # warms up
    unguided = bench.measure((), Setting())
    results = {}
    for name in ("pose", "depth", "edge", "pose+edge"):
        results[name] = {"unguided": unguided}
        for strength, end in [*((Move.strength, end) for end in ENDS), *((strength, 0.8) for strength in STRONGER)]:
            label = f"{strength}, until {end}"
            kinds = CONTROLS.get(name) or tuple(name.split("+"))
            result = bench.measure(kinds, Setting(Move(strength), end))
            results[name][label] = result | {"picture_ratio": round(result["seconds"] / unguided["seconds"], 2)}
            show(name, label, results[name][label])
    return results
