"""The whole configuration schema: every option, its default, its unit.

A YAML file gives what differs from the defaults; `--set section.key=value` overrides it. Unknown
keys, wrong types and duplicate keys are rejected before anything else happens.
"""

from glfa_jax.config.base import (
    ConfigError,
    Count,
    Fraction,
    Positive,
    Rate,
    Section,
    Seed,
    Subject,
    present_names,
)
from glfa_jax.config.cleaning import Censor, Cleaning, Confounds
from glfa_jax.config.data import (
    VISUAL_AREAS,
    Data,
    Protocol,
    Region,
    RunNumbers,
    Surfaces,
)
from glfa_jax.config.evaluation import Evaluation, Explain, Sweep
from glfa_jax.config.films import Films, Shown, Split
from glfa_jax.config.hardware import Hardware, MeshSize, Processes
from glfa_jax.config.loading import differences, dump, flat, load, of
from glfa_jax.config.model import Alignment, Conditioning, Encoder
from glfa_jax.config.schema import Config, Study
from glfa_jax.config.simulation import Simulation
from glfa_jax.config.stages import (
    PRESETS,
    STARTS,
    Adapt,
    AdaptEncoder,
    Contrast,
    Cotrain,
    Descent,
    Lea,
    Lora,
    Pretrain,
    Stage,
    called,
)
from glfa_jax.config.validating import MOST_TOLD, overridden

__all__ = [
    "MOST_TOLD",
    "PRESETS",
    "STARTS",
    "VISUAL_AREAS",
    "Adapt",
    "AdaptEncoder",
    "Alignment",
    "Censor",
    "Cleaning",
    "Conditioning",
    "Config",
    "ConfigError",
    "Confounds",
    "Contrast",
    "Cotrain",
    "Count",
    "Data",
    "Descent",
    "Encoder",
    "Evaluation",
    "Explain",
    "Films",
    "Fraction",
    "Hardware",
    "Lea",
    "Lora",
    "MeshSize",
    "Positive",
    "Pretrain",
    "Processes",
    "Protocol",
    "Rate",
    "Region",
    "RunNumbers",
    "Section",
    "Seed",
    "Shown",
    "Simulation",
    "Split",
    "Stage",
    "Study",
    "Subject",
    "Surfaces",
    "Sweep",
    "called",
    "differences",
    "dump",
    "flat",
    "load",
    "of",
    "overridden",
    "present_names",
]
