"""The noise schedule of a flow: a straight line from clean latents to noise (arXiv 2210.02747)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from glfa_jax.diffusion.schedule import MOST_STEPS, ScheduleError, known_options, per_clip

_UNIPC, _EULER = "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
# What the classes call the shift; the other's word may be there and says nothing.
_SHIFT = {_UNIPC: "flow_shift", _EULER: "shift"}
# Without these, diffusers' UniPC would walk through a diffusion.
_REQUIRED = {_UNIPC: ("use_flow_sigmas", "prediction_type"), _EULER: ()}
# A diffusers file may carry these; only the value written here is implemented.
_FIXED: dict[str, tuple[Any, ...]] = {
    "use_flow_sigmas": (True,),
    "prediction_type": ("flow_prediction",),
    "predict_x0": (True,),
    "thresholding": (False,),
    "solver_order": (2,),
    "solver_type": ("bh2",),
    "solver_p": (None,),
    # A second-order step to where no noise is left is infinite.
    "lower_order_final": (True,),
    "final_sigmas_type": ("zero",),
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_dynamic_shifting": (False,),
    "shift_terminal": (None,),
    "invert_sigmas": (False,),
    "stochastic_sampling": (False,),
}
# These change nothing while the options above have the values above.
_WITHOUT_EFFECT = {
    *("shift", "flow_shift"),
    *("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
    *("timestep_spacing", "steps_offset", "time_shift_type", "sigma_min", "sigma_max"),
    *("dynamic_thresholding_ratio", "sample_max_value"),
    *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
}


@jax.tree_util.register_static
@dataclass(frozen=True)
class FlowSchedule:
    """Flow matching: x_t = (1 − σ) x + σ noise with σ = t / T, for t in (0, T].

    The generator predicts the velocity, noise − x. Its times are spread evenly over σ and then
    moved towards the noise by `shift`: σ ← shift σ / (1 + (shift − 1) σ), the more the larger a
    video is (arXiv 2403.03206, section 5.3.2). Hashable and without leaves, as `Schedule`.

    num_train_timesteps: T, the noise's time. disable_corrector: UniPC only, steps (counted from 0)
        after which the latent stays as it was predicted.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    disable_corrector: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        total = self.num_train_timesteps
        if type(total) is not int or not 2 <= total <= MOST_STEPS:
            raise ScheduleError(
                f"scheduler option num_train_timesteps: {total!r:.60} must be a whole number in 2 "
                f"to {MOST_STEPS:,}"
            )
        if type(self.shift) not in (int, float) or not 0 < self.shift < math.inf:
            raise ScheduleError(
                f"scheduler option shift: {self.shift!r:.60} must be a number above 0"
            )
        steps = self.disable_corrector
        if not isinstance(steps, list | tuple) or any(type(step) is not int for step in steps):
            raise ScheduleError(
                f"scheduler option disable_corrector: {steps!r:.60} must be a list of whole numbers"
            )
        object.__setattr__(self, "disable_corrector", tuple(steps))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "FlowSchedule":
        """Reads the contents of the `scheduler_config.json` of one of diffusers' classes
        UniPCMultistepScheduler (with flow sigmas) and FlowMatchEulerDiscreteScheduler.

        Either file serves both samplers. Raises ScheduleError with every option that is missing,
        unknown or not implemented.
        """
        name = config.get("_class_name")
        if name not in (_UNIPC, _EULER):
            raise ScheduleError(
                f"scheduler configuration: it is of the class {name!s:.60}, a flow must be of "
                f"{_UNIPC} or {_EULER}"
            )
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        known = known_options(
            options,
            fields=("num_train_timesteps", "disable_corrector"),
            fixed=_FIXED,
            without_effect=_WITHOUT_EFFECT,
            required=_REQUIRED[name],
        )
        return cls(**known, shift=options.get(_SHIFT[name], 1.0))

    def to_config(self) -> dict[str, Any]:
        """The contents of a `scheduler_config.json` that diffusers and `from_config` read."""
        return {
            "_class_name": _UNIPC,
            "num_train_timesteps": self.num_train_timesteps,
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": self.shift,
            "solver_order": 2,
            "solver_type": "bh2",
            "predict_x0": True,
            "lower_order_final": True,
            "final_sigmas_type": "zero",
            "disable_corrector": list(self.disable_corrector),
        }

    def shifted(self, sigma: Float[Array | np.ndarray, "*t"]) -> Any:
        """Shares of noise that are spread evenly, moved towards the noise."""
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def times(self, key: Key[Array, ""], clips: int) -> Float[Array, " b"]:
        """Draws times for training: of a logit-normal share of noise, shifted.

        As Wan was trained (arXiv 2503.20314); with it, steps in the middle, where prediction is
        hardest, come more often (arXiv 2403.03206, section 3.1).
        """
        share = jax.nn.sigmoid(jax.random.normal(key, (clips,)))
        return self.num_train_timesteps * self.shifted(share)

    def add_noise(
        self, x: Float[Array, "b ..."], *, noise: Float[Array, "b ..."], t: Float[Array, "..."]
    ) -> Float[Array, "b ..."]:
        """Noises clean latents to time `t`, one time for all or one per clip."""
        sigma = per_clip(t, x) / self.num_train_timesteps
        return (1 - sigma) * x + sigma * noise

    def target(
        self, x: Float[Array, "b ..."], *, noise: Float[Array, "b ..."]
    ) -> Float[Array, "b ..."]:
        """What the generator should predict, at every time: the velocity."""
        return noise - x
