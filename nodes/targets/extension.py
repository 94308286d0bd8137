"""What other packs build targets of their own on: docs/own_targets.md. They reach it as an attribute of a node class in the host's
registry, because the name that the host imports this pack by is that of its folder, and packs are loaded in no order."""
from ...rg_core.features.raw_features import AS_THEY_ARE, Features
from ...rg_core.guidance.energies import masked_mean
from ...rg_core.guidance.targets import Target
from ...rg_core.images.control_images import fit
from ...rg_core.images.regions import repeat

__all__ = ["AS_THEY_ARE", "Features", "Target", "fit", "masked_mean", "repeat"]
