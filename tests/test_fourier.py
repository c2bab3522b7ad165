"""Single frequencies: their spectrum, their norm, and how they are added."""

import numpy as np
import pytest

from experiments.robustness import fourier

SHAPES = [(8, 8), (6, 8), (5, 8), (5, 7)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_spectrum_is_two_conjugate_entries_of_a_wave_of_unit_norm(shape):
    height, width = shape
    for row, column in np.ndindex(shape):
        wave = fourier.fourier_basis((row, column), shape)
        assert (wave.dtype, wave.shape) == (np.float64, shape)
        assert np.linalg.norm(wave) == pytest.approx(1, abs=1e-12)
        spectrum = np.fft.fft2(wave)
        expected = {(row, column), (-row % height, -column % width)}
        found = np.argwhere(np.abs(spectrum) > 1e-9)
        assert set(map(tuple, found.tolist())) == expected
        first, last = spectrum[tuple(found[0])], spectrum[tuple(found[-1])]
        assert first == pytest.approx(last.conj())


def test_phase_is_that_of_the_authors_spectrum():
    """They set the entry that comes first, zero frequency in the middle, to (1+i)/2."""
    spectrum = np.zeros((8, 8), complex)
    spectrum[4 - 2, 4 + 1] = 0.5 + 0.5j
    spectrum[4 + 2, 4 - 1] = 0.5 - 0.5j
    expected = 8 * np.fft.ifft2(np.fft.ifftshift(spectrum)).real
    wave = fourier.fourier_basis((2, -1), (8, 8))
    np.testing.assert_allclose(wave, expected, atol=1e-14)


def make_grey(num_images: int) -> np.ndarray:
    return np.full((num_images, 32, 32, 3), 0.5, np.float32)


def test_every_channel_gets_the_wave_with_a_sign_of_its_own():
    images = make_grey(2_000)
    noisy = fourier.add_fourier_noise(np.random.default_rng(0), images, (3, 4))
    assert (noisy.dtype, noisy.shape) == (np.float32, images.shape)
    wave = 4 * fourier.fourier_basis((3, 4), (32, 32))
    assert np.abs(wave).max() < 0.5  # nothing is clipped
    signs = np.einsum("nhwc,hw->nc", noisy - images, wave) / 16
    np.testing.assert_allclose(np.abs(signs), 1, atol=1e-5)
    expected = images + np.sign(signs)[:, None, None] * wave[..., None]
    np.testing.assert_allclose(noisy, expected, atol=1e-6)
    # Channels, and neighbours, within 4 standard errors of a fair, independent coin.
    signs = np.sign(signs)
    assert abs(signs.mean()) < 4 / signs.size**0.5
    draws = np.column_stack([signs[1:], signs[:-1]])
    assert np.abs(draws.T @ draws / len(draws) - np.eye(6)).max() < 4 / 2_000**0.5


def test_norm_is_that_of_a_channel():
    images = make_grey(4)
    for norm in (1.0, 4.0):
        noisy = fourier.add_fourier_noise(
            np.random.default_rng(0), images, (0, 7), norm=norm
        )
        norms = np.linalg.norm(noisy - images, axis=(1, 2))
        np.testing.assert_allclose(norms, norm, rtol=1e-5)


def test_result_is_clipped_to_the_range_of_images():
    images = np.random.default_rng(0).random((4, 32, 32, 3))
    noisy = fourier.add_fourier_noise(
        np.random.default_rng(0), images, (1, 2), norm=40.0
    )
    assert (noisy.min(), noisy.max()) == (0, 1)


def test_whole_numbers_are_refused():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(TypeError, match=r"^images.dtype=uint8: .*divide uint8 by 255"):
        fourier.add_fourier_noise(np.random.default_rng(0), images, (1, 2))
