"""The noise schedule of a diffusion: how a clean latent becomes noise, and what the generator must
predict."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from glfa_jax.errors import InputError

# A diffusers file may carry these; only the value written here is implemented.
_FIXED: dict[str, tuple[Any, ...]] = {
    "trained_betas": (None,),
    "clip_sample": (False,),
    "thresholding": (False,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "algorithm_type": ("dpmsolver++",),
    "solver_order": (2,),
    "solver_type": ("midpoint",),
    "euler_at_final": (False,),
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False,),
    "lambda_min_clipped": (float("-inf"), "-inf", "-Infinity"),
}
# These change nothing while the options above have the values above.
_WITHOUT_EFFECT = {
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "clip_sample_range",
    "flow_shift",
    "time_shift_type",
    "skip_prk_steps",
}
_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear"),
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": (None, "linspace", "leading", "trailing"),
    "final_sigmas_type": ("zero", "sigma_min"),
}
_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("num_train_timesteps", "steps_offset"), (int, "a whole number")),
    **dict.fromkeys(("beta_start", "beta_end"), (int | float, "a number")),
    **dict.fromkeys(
        ("set_alpha_to_one", "rescale_betas_zero_snr", "lower_order_final"), (bool, "true or false")
    ),
}
# Models are trained with a thousand; their tables are computed before anything else.
MOST_STEPS = 100_000
_REQUIRED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
_CLIPS_BY_DEFAULT = ("DDIMScheduler", "DDPMScheduler")


class ScheduleError(InputError):
    """A noise schedule that is not implemented; the message names option, value and choices."""


@jax.tree_util.register_static
@dataclass(frozen=True)
class Schedule:
    """DDPM noise schedule: x_t = sqrt(ᾱ_t) x + sqrt(1 − ᾱ_t) noise for t = 0 ... T − 1.

    Fields and their defaults are those of a diffusers `scheduler_config.json`. Hashable and without
    leaves, so it may be closed over by a jitted function or handed to it.
    `timestep_spacing`: None leaves it to the sampler: DPM-Solver++ then takes "linspace", DDIM
        "leading", as diffusers does for a file that does not name it.
    `set_alpha_to_one`: DDIM only. `lower_order_final`, `final_sigmas_type`: DPM-Solver++ only.
    """

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: Literal["linear", "scaled_linear"]
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["linspace", "leading", "trailing"] | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False
    lower_order_final: bool = True
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ScheduleError(
                    f"scheduler option {key}: {getattr(self, key)!r:.60} is not supported, "
                    f"only {', '.join(map(repr, choices))}"
                )
        for key, (kind, wanted) in _KINDS.items():
            value = getattr(self, key)
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise ScheduleError(f"scheduler option {key}: {value!r:.60} must be {wanted}")
        least = 2 if self.rescale_betas_zero_snr else 1
        if not least <= self.num_train_timesteps <= MOST_STEPS:
            raise ScheduleError(
                f"scheduler option num_train_timesteps: {self.num_train_timesteps!r:.60} must "
                f"lie in {least} to {MOST_STEPS:,}"
            )
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ScheduleError(
                f"scheduler options beta_start, beta_end: {self.beta_start}, {self.beta_end} must "
                "satisfy 0 < beta_start <= beta_end < 1"
            )
        if not 0 <= self.steps_offset < self.num_train_timesteps:
            raise ScheduleError(
                f"scheduler option steps_offset: {self.steps_offset} must lie in 0 to "
                f"{self.num_train_timesteps - 1}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Schedule":
        """Reads the contents of a diffusers `scheduler_config.json`, of whatever scheduler class.

        Raises ScheduleError with every option that is missing, unknown or not implemented.
        """
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        if config.get("_class_name") in _CLIPS_BY_DEFAULT:
            options.setdefault("clip_sample", True)  # what diffusers assumes when it is left out
        known = known_options(
            options,
            fields=cls.__dataclass_fields__,
            fixed=_FIXED,
            without_effect=_WITHOUT_EFFECT,
            required=_REQUIRED,
        )
        return cls(**known)

    def to_config(self) -> dict[str, Any]:
        """The contents of a `scheduler_config.json` that diffusers and `from_config` read."""
        config: dict[str, Any] = {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": self.num_train_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "trained_betas": None,
            "prediction_type": self.prediction_type,
            "clip_sample": False,
            "thresholding": False,
            "set_alpha_to_one": self.set_alpha_to_one,
            "steps_offset": self.steps_offset,
            "rescale_betas_zero_snr": self.rescale_betas_zero_snr,
        }
        # Written only where they say something: a named spacing would bind both samplers, and the
        # last two are unknown to diffusers' DDIMScheduler.
        for key in ("timestep_spacing", "lower_order_final", "final_sigmas_type"):
            if getattr(self, key) != self.__dataclass_fields__[key].default:
                config[key] = getattr(self, key)
        return config

    def rescale_zero_terminal_snr(self) -> "Schedule":
        """The same schedule, its last step moved to pure noise (arXiv 2305.08891, algorithm 1)."""
        return replace(self, rescale_betas_zero_snr=True)

    @property
    def betas(self) -> np.ndarray:
        """Noise variance added by each training step, float64 (T,)."""
        return _tables(self)[0]

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """ᾱ: what is left of the clean latent's variance after each step, float64 (T,)."""
        return _tables(self)[1]

    @property
    def _signal_to_noise(self) -> np.ndarray:
        return self.alphas_cumprod / (1 - self.alphas_cumprod)

    def signal_to_noise(self, t: Int[Array, "*t"]) -> Float[Array, "*t"]:
        """Variance of the clean latent over that of the noise after step `t`, float32."""
        return jnp.asarray(self._signal_to_noise, jnp.float32)[t]

    def signal_and_noise(
        self, t: Int[Array, "*t"]
    ) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        """The factors sqrt(ᾱ_t) of the clean latent and sqrt(1 − ᾱ_t) of the noise, float32."""
        signal, noise = (
            jnp.asarray(np.sqrt(table), jnp.float32)
            for table in (self.alphas_cumprod, 1 - self.alphas_cumprod)
        )
        return signal[t], noise[t]

    def add_noise(
        self, x: Float[Array, "b ..."], *, noise: Float[Array, "b ..."], t: Int[Array, "..."]
    ) -> Float[Array, "b ..."]:
        """Noises clean latents to step `t`, one step for all or one per clip."""
        signal, spread = self._factors(x, t)
        return signal * x + spread * noise

    def target(
        self, x: Float[Array, "b ..."], *, noise: Float[Array, "b ..."], t: Int[Array, "..."]
    ) -> Float[Array, "b ..."]:
        """What the generator should predict from `add_noise(x, noise, t)`: noise or velocity."""
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self._factors(x, t)
        return signal * noise - spread * x

    def min_snr_weight(self, t: Int[Array, "*t"], *, gamma: float) -> Float[Array, "*t"]:
        """Weight of the squared error at step `t`: min(SNR, gamma) / SNR for predicted noise.

        For predicted velocity the divisor is SNR + 1 (arXiv 2303.09556). Steps with little noise
        then no longer outweigh those that decide what an image shows.
        """
        snr = self._signal_to_noise
        if self.prediction_type == "epsilon":
            weight = gamma / np.maximum(snr, gamma)  # the same, and defined at zero SNR
        else:
            weight = np.minimum(snr, gamma) / (snr + 1)
        return jnp.asarray(weight, jnp.float32)[t]

    def to_clean(
        self, x_t: Float[Array, "b ..."], *, prediction: Float[Array, "b ..."], t: Int[Array, "..."]
    ) -> Float[Array, "b ..."]:
        """The clean latent that a prediction at step `t` implies."""
        signal, spread = self._factors(x_t, t)
        if self.prediction_type == "v_prediction":
            return signal * x_t - spread * prediction
        if self.rescale_betas_zero_snr:
            raise ScheduleError(
                "to_clean: predicted noise says nothing about the clean latent at zero terminal "
                "SNR; use prediction_type v_prediction"
            )
        return (x_t - spread * prediction) / signal

    def _factors(self, x: Array, t: Array) -> tuple[Array, Array]:
        return self.signal_and_noise(per_clip(t, x))


# As published with ModelScope text-to-video 1.7b and zeroscope_v2_576w.
MODELSCOPE = Schedule(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    steps_offset=1,
    set_alpha_to_one=False,
)


def known_options(
    options: Mapping[str, Any],
    *,
    fields: Container[str],
    fixed: Mapping[str, tuple[Any, ...]],
    without_effect: Container[str],
    required: Iterable[str],
) -> dict[str, Any]:
    """The options of a scheduler's file that are `fields` of a schedule.

    fixed: options that may be there, with the values implemented. Raises ScheduleError with every
    option that is missing, unknown or not implemented.
    """
    problems = [f"{key} is missing" for key in required if key not in options]
    known = {}
    for key, value in options.items():
        if key in fields:
            known[key] = value
        elif key in fixed:
            if value not in fixed[key]:
                problems.append(f"{key}: {value!r:.60} is not supported, only {fixed[key][0]!r}")
        elif key not in without_effect:
            problems.append(f"{key!r:.60}: unknown option (given {value!r:.60})")
    if problems:
        raise ScheduleError("scheduler configuration: " + "; ".join(problems))
    return known


def per_clip(t: Num[Array, "..."], x: Float[Array, "b ..."]) -> Num[Array, "..."]:
    """Times, one for all clips or one for each, in a shape that goes with the clips `x`."""
    t = jnp.asarray(t)
    if t.ndim and t.shape != x.shape[:1]:
        raise ValueError(f"timesteps: shape {t.shape} must be () or one per clip, {x.shape[:1]}")
    return t.reshape(t.shape + (1,) * (x.ndim - 1)) if t.ndim else t


def noise_like(
    key: Key[Array, ""], latents: Float[Array, "b f h w c"], *, offset_strength: float
) -> Float[Array, "b f h w c"]:
    """Standard normal noise plus `offset_strength` times one more draw per clip and channel.

    Offset noise lets a generator learn brightness: the draw is shared by all frames and pixels of a
    clip's channel, ε = ε₀ + s·δ with δ of shape (b, 1, 1, 1, c). Not rescaled: variance 1 + s².
    A strength of 0 gives the plain noise of the same key.
    """
    key_noise, key_offset = jax.random.split(key)
    noise = jax.random.normal(key_noise, latents.shape, latents.dtype)
    if not offset_strength:
        return noise
    b, *_, c = latents.shape
    return noise + offset_strength * jax.random.normal(key_offset, (b, 1, 1, 1, c), latents.dtype)


@lru_cache(maxsize=64)
def _tables(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Betas and ᾱ in float64, read-only."""
    count = schedule.num_train_timesteps
    if schedule.beta_schedule == "scaled_linear":
        betas = np.linspace(schedule.beta_start**0.5, schedule.beta_end**0.5, count) ** 2
    else:
        betas = np.linspace(schedule.beta_start, schedule.beta_end, count)
    alphas_cumprod = np.cumprod(1 - betas)
    if schedule.rescale_betas_zero_snr:
        signal = np.sqrt(alphas_cumprod)
        # Linear in sqrt(ᾱ): the first value stays, the last becomes exactly zero.
        signal = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
        alphas_cumprod = signal**2
        betas = 1 - alphas_cumprod / np.concatenate([[1.0], alphas_cumprod[:-1]])
    for table in (betas, alphas_cumprod):
        table.setflags(write=False)
    return betas, alphas_cumprod
