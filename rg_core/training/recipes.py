"""How heads are trained: the published way, and one for handfuls of images."""
from dataclasses import dataclass

from .trainer import Schedule, constant, cosine


@dataclass(frozen=True)
class Recipe:
    name: str
    projection_dim: int
    hidden: tuple[int, int]    # channels between the convolutions at a spatial head's end
    steps: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    balanced: tuple[str, ...]  # kinds whose empty ground counts as much as all the rest; see training.spatial_loss


# Luo et al.: the architecture of section 3.2 and the figures of the training code that they published with it (google-research/readout_guidance,
# readout_training: configs/train_spatial.yaml, train_spatial.py and dataset.py), there for the 17,000 images of PASCAL VOC with the empty prompt.
# As there: the rate stays what it is, and nothing decays. Not as there: Adam in single precision, where they keep its state in 8 bits; a noise level
# for each image of a batch, where they take one for all; targets resized smoothly, where they take the nearest pixels; images drawn one by
# one, where they go through all before any comes again; no random square cut of an image.
PUBLISHED = Recipe("published", 384, (128, 32), 5000, 8, 1e-3, constant, ("pose", "edge"))
# That of the shipped demo heads.
SMALL = Recipe("small", 128, (32, 16), 1000, 16, 1e-3, cosine, ())
RECIPES = {recipe.name: recipe for recipe in (SMALL, PUBLISHED)}
