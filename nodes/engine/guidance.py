"""What is attached to a MODEL, so that it is guided wherever it is sampled."""
from dataclasses import dataclass, field, replace
from functools import cached_property

from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...rg_core.guidance.targets import Target, heads, numbered
from ...rg_core.guidance.updates import Move
from ..common import checks, latents, model_checks
from .batches.crops import SamplingHistory
from .live_view import LiveView
from .memory import head_patcher
from .run import KEY, Run
from .schedule import start
from .trace import Trace


@dataclass(frozen=True, eq=False)
class Guidance:
    """The one wrapper of a guided MODEL, around each whole sampling of it (OUTER_SAMPLE), which makes a Run of its own."""
    node: str      # for messages
    source: object  # the MODEL as it was given
    targets: tuple[Target, ...]
    move: Move
    trace: Trace
    recompute: str = "auto"  # one of memory.CHOICES
    runs: list[Run] = field(default_factory=list)  # under way

    @cached_property
    def history(self) -> SamplingHistory:
        return SamplingHistory(self.node)

    def __call__(self, executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *args, **kwargs):
        model = executor.class_obj.model_patcher
        latents.no_video(self.node, latent_image, model)
        checks.noise_levels(self.node, sigmas)
        sampling = self.history.add(latent_image, noise)
        model.set_additional_models(KEY, [head_patcher(head, model) for head in heads(self.targets) if list(head.parameters())])
        run = Run(self, executor.class_obj, self.history.log, sampling.reached)
        if len(sigmas) > 1 and sigmas[-1] > sigmas[0]:
            run.disable()
        run.attach(executor.class_obj)
        run.targets.warn_of_batch_mismatch(len(latent_image))
        if not self.runs:
            self.trace.clear()
        callback = LiveView(self.trace, model, run.log).wrap_callback(callback, len(sigmas) - 1)
        self.runs.append(run)
        try:
            out = executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs)
            run.shifter.check_finite()
        finally:
            self.runs.remove(run)
            run.known.let_go()
            run.shifter.weights.plain.clear()
            self.trace.settle()
        sampling.keep(out)
        if len(sigmas) > 1:
            run.warn_if_unguided(executor.class_obj, float(sigmas[-1]))
        return out

    def attended(self, patcher) -> None:
        """At the begin of each sampling: the host must have called this wrapper."""
        if self.runs:
            return
        if patcher.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
            raise ValueError(f"{self.node}: the guided MODEL from this node is used beside another model that is sampled, as for model_negative of "
                             "Dual Model CFG Guider, so its targets would not act. Give that input the MODEL from before guidance.")
        raise ValueError(f"{self.node}: another pack has replaced the wrappers of the guided MODEL from this node, so its targets would not act. "
                         "Connect this node after that pack's node, as the last one before the sampler.")


def guided(node: str, model, targets: tuple[Target, ...], move: Move, trace: Trace | None = None, recompute: str = "auto"):
    """A clone of MODEL that is guided wherever it is sampled; the heads must fit its architecture. If MODEL is guided already,
    all targets act together, each with the strength that it came with."""
    checks.targets(node, targets)
    earlier = model.get_attachment(KEY)  # others may have replaced the wrapper
    targets = numbered(targets, [t.name for t in earlier.targets] if earlier else ())
    checks.number(node, "strength", move.strength)
    model_checks.can_shift(node, move.per_step, targets)
    model_checks.targets_fit(node, model, targets)
    model_checks.references_fit(node, model, targets)
    guided_model, targets = model.clone(), tuple(t for t in targets if t.weight)
    start.attach(guided_model)
    if not move.strength or not targets:
        return guided_model
    if earlier:
        moves = max(earlier.move.moves, move.moves)
        if replace(earlier.move, strength=move.strength, moves=move.moves) != move:
            raise ValueError(f"{node}: the model is already guided, with other settings than here. Connect the model from before {earlier.node}, and "
                             "all targets to this node.")
        share = earlier.move.strength / move.strength
        move = replace(move, moves=moves)
        targets = (*(replace(t, weight=t.weight * share) for t in earlier.targets), *targets)
    model_checks.one_background(node, targets)
    guidance = Guidance(node, model, targets, move, trace or Trace(), recompute)
    unguide(guided_model)
    guided_model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, guidance)
    guided_model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, guidance.attended)
    guided_model.set_attachments(KEY, guidance)
    return guided_model


def unguide(model) -> None:
    """Takes from MODEL, in place, the guidance that it may have."""
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    model.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, KEY)
    model.remove_attachments(KEY)
