"""Sampling, scoring, sweeping and explaining."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from glfa_jax.config.base import Guidance, MetricNames, Positive, Section, Seed, once


class Evaluation(Section):
    """Sampling and scoring (SPEC §4, §6)."""

    sampler: str = Field(
        default="dpm++",
        description="of the generator; unet3d: dpm++ or ddim, wan: unipc (default there) or euler",
    )
    sampling_steps: Positive = Field(default=25, description="wan: 30 when left out")
    guidance_scale: Guidance = Field(default=9.0, description="wan: 5 when left out")
    batch_size: Positive = 16
    test_maps: Literal["averaged", "z-scored", "rescaled"] = Field(
        default="rescaled",
        description="averages over repeats have a smaller amplitude than training maps. averaged: "
        "as they are; z-scored: every pixel anew, over all test maps of a subject; rescaled: by "
        "one number a subject, to the standard deviation of training maps",
    )
    clips: Positive | None = Field(
        default=None, description="test clips to decode; all when left out"
    )
    ways: tuple[Annotated[int, Field(ge=2)], ...] = Field(default=(2, 50), min_length=1)
    metrics: MetricNames = Field(
        default=("pixel", "colour", "motion", "embeddings", "features"),
        description="groups or single metrics of glfa_jax/metrics, besides n-way accuracy; motion "
        "takes most of the time, 0.3 s for a clip of 6 frames of 256x256",
    )
    consistency_gate: float = Field(
        default=0.6,
        description="CLIP-pcc, gated, is 0 for clips of no greater VIFI similarity; 0.6 is "
        "published, for ViFi-CLIP",
    )
    adapted_minutes: float | None = Field(
        default=None,
        ge=0,
        description="test subjects that were not trained on use the layer that train.adapt fitted "
        "to so many minutes, 0 of a method that needs no fMRI (anatomy); left out: none is fitted "
        "to them, zero-shot",
    )


class Sweep(Section):
    """Settings of sampling to compare; every combination is sampled and scored. What is left out is
    as in `evaluation`, and `seed`."""

    guidance_scales: tuple[Guidance, ...] | None = Field(default=None, min_length=1)
    sampling_steps: tuple[Positive, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1)
    checkpoints: tuple[Positive, ...] | None = Field(
        default=None,
        min_length=1,
        description="steps of stage 2 whose checkpoints are still kept; the finished model if left "
        "out",
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Sweep":
        for key in type(self).model_fields:
            once(key, getattr(self, key) or ())
        return self


class Explain(Section):
    """Which cortex decides: what is scored, and what is replaced by the training average."""

    scores: tuple[Literal["condition", "image", "caption", "video"], ...] | None = Field(
        default=None,
        min_length=1,
        description="what cortex contributes to (docs/explain.md); all that the run has if left "
        "out, but video, which takes far longer",
    )
    labels: tuple[Path, ...] | None = Field(
        default=None,
        description="two label GIFTI, left first, or one label CIFTI, whose areas are replaced; "
        "those of data.region if left out, squares where there are none",
    )
    patches: Positive = Field(
        default=60, description="about how many squares, where there are no areas"
    )
    steps: Positive = Field(
        default=10, description="in how many steps the cortex is deleted to test the maps"
    )
    orders: int = Field(
        default=20,
        ge=19,
        description="random orders to compare with; with fewer than 19 no map could be told from "
        "chance",
    )
    draws: Positive = Field(default=4, description="of noise and time, for score video")

    @model_validator(mode="after")
    def _files(self) -> "Explain":
        once("scores", self.scores or ())
        if self.labels is not None and len(self.labels) not in (1, 2):
            raise ValueError(f"labels: must be one or two files, got {len(self.labels)}")
        return self
