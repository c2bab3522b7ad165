"""A user's script with every public name, for type checkers: see test_typing.py."""

import tempfile
import wave
from pathlib import Path
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax.sharding import PartitionSpec

import sounddrop_jax
from sounddrop_jax import (
    AphexNoiseLayer,
    BankVariable,
    GaussianNoiseLayer,
    IntensityRange,
    IntensityVariable,
    NoiseBank,
    NoiseInjection,
    WaterNoiseLayer,
    audio,
    banks,
    convolution,
    ensembles,
    inject,
    linen,
    make_matched_bank,
    make_power_law_bank,
    make_recording_bank,
    spectra,
    statistics,
    tracks,
)

assert_type(sounddrop_jax.__version__, str)
key = jax.random.key(0)
maps = jnp.ones((2, 8, 8, 4))

# Spectra

field = spectra.power_law(key, (2, 8, 8, 4), exponent=2.0, axes=(-3, -2))
assert_type(field, jax.Array)
frequencies, power = spectra.periodogram(field, axes=(-3, -2))
assert_type(power, np.ndarray)
assert_type(spectra.fit_exponent(field, axes=(-3, -2)), float)
law: np.ndarray = spectra.power_at_frequencies((8, 8), exponent=2.0)

# Tracks and recordings

rain = tracks.make_track("rain", num_frames=4096)
surrogates: list[np.ndarray] = [
    tracks.randomize_phases(rain, seed=1),
    tracks.shuffle_samples(rain),
    tracks.reverse(rain),
]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "rain.wav")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 44_100, 0, "NONE", ""))
        file.writeframes((2000 * rain).astype("<i2").tobytes())
    track = audio.load_track(path, sample_rate=22_050, mono=True)
    recorded = AphexNoiseLayer(file_path=[path, str(path)], rngs=nnx.Rngs(0))
    by_linen = linen.AphexNoiseLayer(file_path=path)
    try:
        audio.load_track(Path(folder, "missing.wav"))
    except audio.AudioError as error:
        assert_type(error, audio.AudioError)
        assert "missing.wav" in str(error)

# Banks and the functions below the layers

bank = make_power_law_bank(0, (8, 4), exponent=1.0, num_entries=64)
assert_type(bank, NoiseBank)
recording: banks.NoiseBank = make_recording_bank(track, field_shape=(8, 8, 4))
matched: banks.NoiseBank = make_matched_bank([maps, field], num_entries=4)
window = banks.sample_window(key, bank, maps.shape)
noisy = inject.add_noise(maps, window, intensity=0.1, mode="relative")
noisy = inject.random_noise(key, noisy, intensity=jnp.array(0.1), bank=bank)
assert_type(noisy, jax.Array)
inject.check_settings(intensity=0.1, mode="additive", bank=bank)

# Layers for NNX, and their twins for Linen

rngs = nnx.Rngs(0)
conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)
water = WaterNoiseLayer(0.05, bank=bank, rngs=rngs)
aphex = AphexNoiseLayer(bank=recording, intensity=0.05, rngs=rngs)
white = GaussianNoiseLayer(0.1, broadcast_dims=(-1,), rngs=rngs)
ranged = NoiseInjection(IntensityRange(0.0, 0.2), bank=matched, rngs=rngs)
plane = NoiseInjection(lambda step: 1e-3 * step, exponent=2.0, axes=(-3, -2), rngs=rngs)
outputs = ranged(white(aphex(water(conv(maps), rngs=key))))
assert_type(plane(outputs, deterministic=False, step=1), jax.Array)
water.intensity = 0.1
water.bank = BankVariable(bank.values)
white.intensity = IntensityVariable(jnp.array(0.1))
evaluated = nnx.view(water, deterministic=True)
twins: list[nn.Module] = [
    linen.WaterNoiseLayer(0.05, bank=bank),
    linen.AphexNoiseLayer(bank=recording, deterministic=False),
    linen.GaussianNoiseLayer(IntensityRange(0.1, 0.2), channel_correlation=0.5),
]
twin = linen.NoiseInjection(0.1, exponent=2.0, axes=(-3, -2), mode="relative")


def add(layer: linen.NoiseInjection) -> jax.Array:
    return layer(maps, deterministic=False, rng=key)


nn.apply(add, twin)({})

# Many seeds, and how arms compare

mesh = ensembles.make_mesh(devices=jax.devices()[:1])


def train(seed: jax.Array, scale: jax.Array) -> jax.Array:
    return scale * jax.random.normal(jax.random.key(seed), (3,)).mean()


seeds, scale = jnp.arange(5), jnp.ones(())
run = ensembles.map_seeds(train, in_axes=(0, None), seeds_at_once=2, mesh=mesh)
scores: np.ndarray = ensembles.gather(run(seeds, scale))
padded = ensembles.pad_seeds(seeds, mesh=mesh)
placed = ensembles.place(padded, mesh=mesh, spec=PartitionSpec("seeds"))
agreed: np.ndarray = ensembles.exchange(len(placed), mesh=mesh)
at_once, program = ensembles.fit_seeds_at_once(
    lambda num: jax.jit(jax.vmap(train, (0, None))).lower(seeds[:num], scale).compile(),
    len(seeds),
    memory=ensembles.free_memory(jax.devices()[0]),
)
assert_type(at_once, int)
assert_type(ensembles.required_memory(program), int)
convolved = convolution.conv_general_dilated(
    maps,
    conv.kernel[...],
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)
assert_type(convolved, jax.Array)

compared = statistics.compare_pairs(scores, np.zeros(5), method="t")
assert_type(compared, statistics.PairedComparison)
assert_type(compared.mean_difference, float)
interval: statistics.MeanInterval = statistics.mean_interval(scores, np.zeros(5))
better: statistics.Improvement = statistics.improvement_probability(scores, -scores)
p_values = statistics.sign_flip_test(np.stack([scores, scores], 1), np.zeros((5, 2)))
corrected: np.ndarray = statistics.holm(p_values)
assert_type(statistics.smallest_p_value(8), float)
assert_type(statistics.smallest_detectable_effect(8, 1.0, num_comparisons=2), float)
