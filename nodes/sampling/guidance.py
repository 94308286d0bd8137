"""What is attached to a MODEL, so that it is guided wherever it is sampled."""
from dataclasses import dataclass, field, replace

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...rg_core.targets import Target
from ...rg_core.updates import Move
from .. import checks
from .memory import managed
from .run import KEY, Run


@dataclass
class Trace:
    """What guidance did: a row for each target at each guided prediction."""
    rows: list[dict] = field(default_factory=list)

    def add(self, sigma: float, targets: list[Target], values: list[Tensor]) -> None:
        for target, value in zip(targets, values):
            self.rows.append({"sigma": sigma, "target": target.name, "energy": value.tolist()})


@dataclass(frozen=True, eq=False)
class Guidance:
    """The one wrapper of a guided MODEL, around each whole sampling of it (OUTER_SAMPLE), which makes a Run of its own."""
    node: str      # for messages
    source: object  # the MODEL as it was given
    targets: tuple[Target, ...]
    move: Move
    trace: Trace | None = None
    recompute: str = "auto"  # one of memory.CHOICES

    def __call__(self, executor, *args, **kwargs):
        Run(self, executor.class_obj).attach(executor.class_obj)
        return executor(*args, **kwargs)


def guided(node: str, model, targets: tuple[Target, ...], move: Move, trace: Trace | None = None, recompute: str = "auto"):
    """A clone of MODEL that is guided wherever it is sampled; the heads must fit its architecture. If MODEL is guided already,
    all targets act together, each with the strength that it came with."""
    checks.heads_fit(node, model, [target.head for target in targets])
    checks.references_fit(node, model, targets)
    guided_model, targets = model.clone(), tuple(t for t in targets if t.weight)
    if not move.strength or not targets:
        return guided_model
    for earlier in model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        if replace(earlier.move, strength=move.strength) != move:
            raise ValueError(f"{node}: the model is guided already, in another way than here. Connect the model from before "
                             f"{earlier.node}, and all targets to this node.")
        share = earlier.move.strength / move.strength
        targets = (*(replace(t, weight=t.weight * share) for t in earlier.targets), *targets)
    checks.one_background(node, targets)
    guided_model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    guided_model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY,
                                      Guidance(node, model, targets, move, trace, recompute))
    guided_model.set_additional_models(KEY, [managed(head) for head in dict.fromkeys(t.head for t in targets)])
    return guided_model
