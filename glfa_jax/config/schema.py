"""The configuration of a run, and of a study of many."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from glfa_jax.config.base import Section, Seed, once
from glfa_jax.config.data import Data, Protocol
from glfa_jax.config.evaluation import Evaluation, Explain, Sweep
from glfa_jax.config.hardware import Hardware
from glfa_jax.config.model import Alignment, Conditioning, Encoder
from glfa_jax.config.of_generator import decided_by, left_out
from glfa_jax.config.stages import Adapt, Contrast, Cotrain, Lea, Pretrain
from glfa_jax.config.validating import overridden


class Config(Section):
    """Everything about a run: data, protocol, model, stages, evaluation, hardware.

    `load` reads one from YAML, `of` makes one of its options; every option is a field of a section.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    seed: Seed = 0
    run_dir: Path
    results_dir: Path | None = Field(
        default=None,
        description="where layers fitted to new subjects, samples, scores and reports go, if not "
        "to run_dir: a finished run may be read-only",
    )
    foundation: Path = Field(description="folder of pretrained generator, CLIP and classifiers")
    generator: str = Field(
        default="unet3d",
        description="what lies in its text-to-video; unet3d: ModelScope, zeroscope; wan: Wan 2.1 "
        "from text",
    )
    generator_folder: Path | None = Field(
        default=None,
        description="where the generator lies; left out: in the foundation's text-to-video. With "
        "it, generators share a foundation's CLIP and classifiers",
    )
    method: Literal["glfa", "lea"] = Field(
        default="glfa", description="stages 1 and 2, or a regression with nothing else trained"
    )
    data: Data
    protocol: Protocol
    encoder: Encoder = Encoder()
    alignment: Alignment = Alignment()
    conditioning: Conditioning = Conditioning()
    pretrain: Pretrain = Pretrain()
    contrast: Contrast = Contrast()
    cotrain: Cotrain = Cotrain()
    without: tuple[Literal["pretrain", "contrast"], ...] = Field(
        default=(),
        description="stages left out: the encoder starts at random (pretrain), stage 2 from the "
        "autoencoder's encoder with fresh conditioning (contrast)",
    )
    adapt: Adapt = Adapt()
    lea: Lea = Lea()
    evaluation: Evaluation = Evaluation()
    sweep: Sweep = Sweep()
    explain: Explain = Explain()
    hardware: Hardware = Hardware()

    @model_validator(mode="wrap")
    @classmethod
    def _of_generator(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """What is left out is as the generator has it; those of the default one stand here."""
        name = given.get("generator") if isinstance(given, dict) else None
        if not isinstance(name, str) or name == cls.model_fields["generator"].default:
            return build(given)
        missing = left_out(given, decided_by(name))
        made = build(
            given | {key: options | given.get(key, {}) for key, options in missing.items()}
        )
        for key, options in missing.items():  # still left out: another generator brings its own
            getattr(made, key).model_fields_set.difference_update(options)
        return made

    @property
    def aligned(self) -> bool:
        """Whether there is an alignment in front of the decoder."""
        return self.method == "glfa" and self.alignment.on

    @property
    def headed(self) -> bool:
        """Whether something was trained to bring fMRI into CLIP's joint space."""
        with_stage_one = "contrast" not in self.without or self.cotrain.encoder_from is not None
        return self.method == "lea" or with_stage_one

    @property
    def cotrains(self) -> bool:
        """Whether there is a stage 2: without one, the generator decodes as it is."""
        return self.method == "glfa" or self.lea.cotrain_generator

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        once("without", self.without)
        if self.method == "lea" and self.adapt.method is not None:
            raise ValueError(
                f"adapt.method: {self.adapt.method}, must be left out with method lea, which has "
                "no alignment"
            )
        if self.method == "lea" and self.without:
            raise ValueError(
                f"without: {list(self.without)}, must be left out with method lea, which needs the "
                "pretrained encoder and has no stage 1"
            )
        if self.sweep.checkpoints and not self.cotrains:
            raise ValueError(
                "sweep.checkpoints: must be left out with method lea, which has none without "
                "lea.cotrain_generator"
            )
        self._validate_layers_of_checkpoints()
        roles = ["train_subjects"]
        if self.protocol.test_store is None:
            roles.append("test_subjects")
        self._validate_layers_of_subjects()
        for role in roles:
            strangers = set(getattr(self.protocol, role)) - set(self.data.subjects)
            if strangers:
                raise ValueError(
                    f"protocol.{role}: {sorted(strangers)} not among data.subjects "
                    f"{list(self.data.subjects)}"
                )
        if self.data.map_size % self.encoder.patch_size:
            raise ValueError(
                f"data.map_size: {self.data.map_size} is no multiple of encoder.patch_size "
                f"{self.encoder.patch_size}"
            )
        for name in ("contrast", "cotrain"):
            size, fraction = getattr(self, name).batch_size, getattr(self, name).paired_fraction
            rows, left = divmod(size, len(self.protocol.train_subjects))
            if left:
                raise ValueError(
                    f"{name}.batch_size: {size} is no multiple of the number of "
                    f"protocol.train_subjects, {len(self.protocol.train_subjects)}"
                )
            if 0 < fraction < 1 and round(fraction * rows) in (0, rows):
                share = "all" if round(fraction * rows) else "none"
                raise ValueError(
                    f"{name}.paired_fraction: {fraction} of a batch of {rows} rows is {share} of "
                    f"them; must be {float(share == 'all')} to mean that, or the batch larger"
                )
        if self.encoder.width % self.conditioning.num_heads:
            raise ValueError(
                f"conditioning.num_heads: {self.conditioning.num_heads} is no divisor of "
                f"encoder.width {self.encoder.width}"
            )
        return self

    def _validate_layers_of_subjects(self) -> None:
        """Layers belong to subjects by name, and a name means another person in another store."""
        minutes, protocol = self.evaluation.adapted_minutes, self.protocol
        if minutes == 0 and self.adapt.method is None:
            raise ValueError(
                "evaluation.adapted_minutes: 0, must be above 0 unless adapt.method names a method "
                "that needs no fMRI, such as anatomy"
            )
        if protocol.test_store is not None:
            twice = [name for name in protocol.test_subjects if name in protocol.train_subjects]
            if twice and (self.alignment.per_subject or minutes is not None):
                raise ValueError(
                    f"protocol.test_subjects: {twice} of {protocol.test_store} have names of "
                    "protocol.train_subjects, whose layers would be taken for theirs "
                    "(alignment.per_subject, evaluation.adapted_minutes); prepare that store with "
                    "other names"
                )
        elif minutes is not None and protocol.kind() == "within-subject":
            raise ValueError(
                f"evaluation.adapted_minutes: {minutes:g}, but all of protocol.test_subjects "
                f"{list(protocol.test_subjects)} are trained on, so that no layer would be fitted; "
                "must be left out"
            )

    def _validate_layers_of_checkpoints(self) -> None:
        """A layer is fitted to the finished model, whose weights no other checkpoint has."""
        fitted = self.evaluation.adapted_minutes is not None
        asked, finished = self.sweep.checkpoints, self.cotrain.steps
        if fitted and asked and asked != (finished,):
            raise ValueError(
                f"sweep.checkpoints: {list(asked)}, but the layers of evaluation.adapted_minutes "
                f"were fitted to the finished model; must be left out or [{finished}]"
            )


class Study(Section):
    """Methods against each other: every method is trained and scored with every seed."""

    seeds: tuple[Seed, ...] = Field(min_length=1)
    methods: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="name to section.key=value, what it changes in `config`"
    )
    reference: str = Field(description="the method that the others are compared with")
    metrics: tuple[str, ...] = Field(
        (), description="by which methods are compared, of those measured; none names all"
    )
    config: Config

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        once("seeds", self.seeds)
        if self.reference not in self.methods:
            raise ValueError(
                f"reference: {self.reference} is none of methods, {', '.join(self.methods)}"
            )
        folders: dict[str, str] = {}
        for method in self.methods:
            if "=" in method or method.startswith("-") or not method.isprintable():
                raise ValueError(f"methods: {method!r}, must be one line without = or leading -")
            self._validate_method(method)
            folder = self.folder(method)
            alike = folder.lower()  # one folder on some disks
            if alike in folders:
                raise ValueError(
                    f"methods: {folders[alike]} and {method} would share the folder {folder}"
                )
            folders[alike] = method
        return self

    def _validate_method(self, method: str) -> None:
        """What would fail only after hours of training."""
        if not self.folder(method):
            raise ValueError(
                f"methods: {method!r}, must hold a letter from A to Z or a digit, for its folder"
            )
        for override in self.methods[method]:
            if (key := override.partition("=")[0]) in ("seed", "run_dir", "results_dir"):
                raise ValueError(
                    f"methods: {method}, must not set {key}, which the study gives every run"
                )
        own = self.cell(method, self.seeds[0])
        minutes, protocol = own.evaluation.adapted_minutes, own.protocol
        if minutes is not None and not own.aligned and own.adapt.method is None:
            raise ValueError(
                f"methods: {method}, has no alignment layer (method, alignment), so that none can "
                "be fitted; evaluation.adapted_minutes must be left out"
            )
        new = [name for name in protocol.test_subjects if name not in protocol.train_subjects]
        if own.aligned and own.alignment.per_subject and new and minutes is None:
            raise ValueError(
                f"methods: {method}, has no layer (alignment.per_subject) for {', '.join(new)}, "
                "who are decoded but not trained on; needs evaluation.adapted_minutes"
            )

    @staticmethod
    def folder(method: str) -> str:
        """The method's name as a folder can have it."""
        return re.sub(r"[^A-Za-z0-9]+", "-", method).strip("-")

    def cell(self, method: str, seed: int) -> Config:
        """One run: a folder of its own below that of `config`, and the same data."""
        run_dir = self.config.run_dir / self.folder(method) / f"seed{seed}"
        own = overridden(self.config, self.methods[method])
        return own.model_copy(update={"seed": seed, "run_dir": run_dir})
