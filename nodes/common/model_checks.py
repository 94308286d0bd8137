"""What a model must have for heads and targets."""
from collections.abc import Iterable

from ...heads import base_models
from ...rg_core.features import taps
from ...rg_core.features.architectures import NoTaps
from ...rg_core.guidance.targets import heads


def references_fit(node: str, model, targets: Iterable) -> None:
    """The references of `targets` must have been made with a model of this family."""
    name = type(model.model.model_config).__name__
    for target in targets:
        if target.reference is not None and target.reference.family != name:
            raise ValueError(f"{node}: the reference of the {target.name} target was made with another model ({target.reference.family}) than this "
                             f"one ({name}). Make the reference with the model you sample with.")


def one_background(node: str, targets: Iterable) -> None:
    """Where targets keep the rest of the image as a reference is, it must be the same one."""
    kept = [t for t in targets if t.edit_mask is not None]
    if len({id(t.reference) for t in kept}) > 1:
        raise ValueError(f"{node}: the {' and '.join(t.name for t in kept)} targets have masks and different references, but the background can "
                         "follow only one reference. Use one reference, or disconnect one of the masks.")


def can_shift(node: str, per_step: bool, targets: Iterable) -> None:
    """The published procedure moves latents by what heads read, and nothing else."""
    without = [t.name for t in targets if t.head is None]
    if per_step and without:
        raise ValueError(f"{node}: the published procedure needs a head for every target, and the {without[0]} target has none. Use KSampler "
                         "(Readout Guidance), or remove that target.")


def targets_fit(node: str, model, targets: tuple) -> None:
    """`model` must have what `targets` are compared with."""
    if heads(targets):
        heads_fit(node, model, heads(targets))
    made = model.get_model_object("latent_format")
    for target in targets:
        if target.channels not in (None, made.latent_channels) or target.channels and made.latent_dimensions == 1:
            raise ValueError(f"{node}: the input of the {target.name} target was encoded to {target.channels} channels in 2 dimensions, but this "
                             f"model ({type(model.model.model_config).__name__}) needs {made.latent_channels} channels in {made.latent_dimensions}. "
                             "Connect the VAE that belongs to the model.")


def heads_fit(node: str, model, heads: Iterable) -> None:
    """`model` must have features to read, and each head must have been trained on ones like them."""
    name, network = type(model.model.model_config).__name__, model.model.diffusion_model
    try:
        taps.channels(network)
    except NoTaps as error:
        raise ValueError(f"{node}: this model ({name}) cannot be guided by its features: {error}. Use one of the models in the README's table, "
                         "such as Stable Diffusion 1.5, SDXL or Flux.") from error
    for head in heads:
        about = getattr(head, "config", {})  # modules of other packs say nothing of themselves
        made_on = about.get("model")
        if made_on and made_on != taps.fingerprint(network):
            raise ValueError(f"{node}: the {head.kind} head was made on {head.base_model} with the features of a {made_on}, but this model ({name}) "
                             f"is a {taps.fingerprint(network)}. Load a head that was made on the model you sample with, or make one with Fit "
                             "Readout Head.")
        try:
            channels = taps.channels(network, head.taps)
        except NoTaps as error:
            raise ValueError(f"{node}: the {head.kind} head does not fit this model ({name}): {error}. Load a head that was made on the model you "
                             "sample with, or make one with Fit Readout Head.") from error
        if head.channels is not None and head.channels != channels:
            raise ValueError(f"{node}: the {head.kind} head was trained on {head.base_model or 'another model'} with features of {head.channels} "
                             f"channels, but this model ({name}) has {channels}. Load a head that was trained on the model you sample with.")
        base = base_models.named(head.base_model)  # some have taps of the same channels
        width = base.text_width if base else about.get("text_width")
        if width is not None and model.model.model_config.unet_config.get("context_dim") != width:
            raise ValueError(f"{node}: the {head.kind} head was trained on {head.base_model}, but this model is from another family ({name}). Load a "
                             "head that was trained on the model you sample with.")
