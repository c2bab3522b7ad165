"""Structured noise as a regularizer for Flax models."""

from sounddrop_jax import audio as audio
from sounddrop_jax import banks as banks
from sounddrop_jax import inject as inject
from sounddrop_jax import linen as linen
from sounddrop_jax import spectra as spectra
from sounddrop_jax import tracks as tracks
from sounddrop_jax.banks import NoiseBank as NoiseBank
from sounddrop_jax.banks import make_power_law_bank as make_power_law_bank
from sounddrop_jax.banks import make_recording_bank as make_recording_bank
from sounddrop_jax.inject import IntensityRange as IntensityRange
from sounddrop_jax.matching import make_matched_bank as make_matched_bank
from sounddrop_jax.modules import AphexNoiseLayer as AphexNoiseLayer
from sounddrop_jax.modules import BankVariable as BankVariable
from sounddrop_jax.modules import GaussianNoiseLayer as GaussianNoiseLayer
from sounddrop_jax.modules import IntensityVariable as IntensityVariable
from sounddrop_jax.modules import NoiseInjection as NoiseInjection
from sounddrop_jax.modules import WaterNoiseLayer as WaterNoiseLayer
from sounddrop_jax.sweeps import convolution as convolution
from sounddrop_jax.sweeps import ensembles as ensembles
from sounddrop_jax.sweeps import statistics as statistics

__version__ = "0.1.0"  # the one place: pyproject.toml reads it here
