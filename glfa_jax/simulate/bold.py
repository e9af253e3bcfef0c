"""From activity to BOLD: the haemodynamic response and noise."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import root_scalar
from scipy.signal import lfilter
from scipy.sparse import csr_array
from scipy.stats import gamma

NOISE_SCALE = 4.0  # mm, Gaussian standard deviation of the smoothing of noise
NOISE_MEMORY = 0.4  # correlation of noise over one second


def haemodynamic_response(seconds: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """Canonical double-gamma response to an impulse: peak near 5 s, undershoot at 15 s, area 1."""
    return (gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6) / (1 - 1 / 6)


def convolution(
    onsets: Float[ndarray, " f"], volumes: Float[ndarray, " t"], *, duration: float
) -> Float[ndarray, "t f"]:
    """BOLD at the times of the volumes for frames of unit activity at `onsets`; all in seconds."""
    lag = volumes[:, None] - (onsets[None, :] + duration / 2)
    return haemodynamic_response(lag) * duration


def correlated_noise(
    rng: np.random.Generator, smoother: csr_array, *, volumes: int, repetition_time: float
) -> Float[ndarray, "t r"]:
    """Unit-variance noise, AR(1) in time and smooth over the cortex."""
    memory = NOISE_MEMORY**repetition_time
    fresh = rng.standard_normal((smoother.indptr.size - 1, volumes), dtype=np.float32)
    fresh[:, 1:] *= np.float32(np.sqrt(1 - memory**2))  # stationary from the first volume on
    noise = np.asarray(lfilter([1.0], [1.0, -memory], fresh, axis=1), np.float32)
    return (smoother @ noise).T


def noise_for(reliability: float, *, power: Float[ndarray, " r"]) -> float:
    """The noise's standard deviation with which repeats of one volume correlate as asked for.

    At a vertex they correlate by power / (power + noise^2); `reliability` is the mean over
    vertices. power: variance of the noiseless signal, above 0 somewhere.
    """

    def excess(log_noise: float) -> float:
        return float(np.mean(power / (power + np.exp(2 * log_noise)))) - reliability

    middle = 0.5 * np.log(power.mean())
    found = root_scalar(excess, bracket=(middle - 20, middle + 20))
    return float(np.exp(found.root))
