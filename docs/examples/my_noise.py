"""Brown noise, power 1/f^2, along the rows of the maps."""

from experiments.training.regularizers import REGULARIZERS, Recipe
from sounddrop_jax import NoiseInjection

REGULARIZERS["brown"] = Recipe(
    "intensity",
    0.1,
    lambda strength: lambda shape: NoiseInjection(strength, exponent=2.0, axes=-2),
)
