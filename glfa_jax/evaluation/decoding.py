"""The test clips of a finished run, and how they are decoded: shared by sampling and sweeping."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from glfa_jax import config, system
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.evaluation.amplitude import Rescaling, rescalings
from glfa_jax.evaluation.models import validate_folders
from glfa_jax.files import read_object, write_atomically
from glfa_jax.protocol import decoded_store
from glfa_jax.subject_alignment import average_window, encoder_for, validate_layer
from glfa_jax.trained.model import Model, load_model, validate_finished
from glfa_jax.trained.sampler import VideoSampler
from glfa_jax.training.loop import check_unchanged, use_compilation_cache
from glfa_jax.training.sharding import make_mesh

# Options that change no sample.
SCORING = frozenset({"evaluation.ways", "evaluation.metrics", "evaluation.consistency_gate"})


@dataclass(frozen=True)
class HeldOut:
    """trained, store: what was trained on, and what is decoded; mostly the same."""

    settings: config.Config
    trained: Store
    store: Store

    def clips(self, subject: str) -> list[int]:
        """HeldOut clips to decode: all that the subject has, or the first of them."""
        return np.flatnonzero(self._present(subject))[: self.settings.evaluation.clips].tolist()

    def unscanned(self, subject: str) -> list[int]:
        """Test clips of the store that the subject has no fMRI of."""
        return np.flatnonzero(~self._present(subject)).tolist()

    def _present(self, subject: str) -> Bool[np.ndarray, " clips"]:
        return self.store.present("test", subjects=[subject])[:, 0]

    def batches(self, subject: str) -> Iterator[list[int]]:
        clips, size = self.clips(subject), self.settings.evaluation.batch_size
        for start in range(0, len(clips), size):
            yield clips[start : start + size]

    def sampler(self, *, step: int | None = None) -> VideoSampler:
        """The finished model, or a checkpoint of stage 2."""
        make_mesh(self.settings.hardware.mesh)  # rejected before anything is loaded
        model, beside = self._model(step)
        return VideoSampler(model, self.settings, **beside)

    def load(self, sampler: VideoSampler, *, step: int | None) -> None:
        """Puts the finished model, or a checkpoint, in place of the one that the sampler has."""
        model, beside = self._model(step)
        sampler.load(model, **beside)

    def _model(self, step: int | None) -> tuple[Model, dict[str, Any]]:
        """The model, and beside it the test subjects' encoders and the average to guide away
        from."""
        settings, model = self.settings, load_model(self.settings, step=step)
        negative = average_window(settings, model.encoder, store=self.trained)
        return model, {"encoders": self.encoders(model), "negative": negative}

    def encoders(self, model: Model) -> dict[str, Pretrained]:
        """The model's encoder for each test subject."""
        return {
            subject: encoder_for(self.settings, model.encoder, subject=subject)
            for subject in self.settings.protocol.test_subjects
        }

    def tokens(self, clips: Sequence[int]) -> Int[np.ndarray, "b n"]:
        """CLIP's, of the captions of some clips."""
        captions = self.store.attributes.captions["test"]
        return system.tokenizer(self.settings)([captions[clip] for clip in clips])

    @property
    def shown(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        data = self.settings.data
        return (data.frames, *data.resolution)

    def maps(self, subject: str, clips: list[int]) -> Float[np.ndarray, "b w height width"]:
        """Windows of some clips, of the amplitude that `evaluation.test_maps` asks for."""
        return self._rescalings[subject](self.store.fmri("test", clips, subjects=[subject])[:, 0])

    @cached_property
    def _rescalings(self) -> dict[str, Rescaling]:
        return rescalings(self.settings, decoded=self.store, trained=self.trained)

    def decode(
        self,
        sampler: VideoSampler,
        subject: str,
        clips: list[int],
        *,
        scale: float,
        steps: int,
        seed: int,
    ) -> np.ndarray:
        """One batch of videos, uint8 (b, f, h, w, 3)."""
        fmri = self.maps(subject, clips)
        options = {"scale": scale, "steps": steps, "seed": seed}
        return sampler(fmri, subject=subject, clip=np.array(clips), **options)


def open_test(settings: config.Config) -> HeldOut:
    """Raises InputError where stage 2 is not finished, there is too little to decode, or more is
    asked for than generator and evaluation models can do."""
    use_compilation_cache()
    check_unchanged(settings.run_dir, settings)
    validate_finished(settings)
    system.check_foundation(settings)  # options of sampling and scoring may be new
    validate_folders(settings.evaluation, foundation=settings.foundation)
    trained = Store.open(settings.data.store)
    test = HeldOut(settings, trained, decoded_store(settings, trained))
    for subject in settings.protocol.test_subjects:
        validate_layer(settings, subject=subject)
        if (clips := len(test.clips(subject))) < 2:
            raise InputError(
                f"subject {subject}: {clips} test clips to decode in {test.store.path}, scoring "
                "needs two or more"
            )
    return test


def validate_same_settings(
    test: HeldOut,
    folder: Path,
    *,
    but: Iterable[str],
    more: Mapping[str, Any] | None = None,
    keep: bool = True,
) -> None:
    """What was made with other settings or data is neither mixed with ours nor overwritten.

    but: keys of settings.json that do not matter to what the folder holds, or that its paths tell.
    more: what matters besides, as JSON.
    keep: ours are written down, for what is made with them from now on.
    Raises InputError with every key that differs; one that an earlier version did not write down is
    not compared.
    """
    ours = {key: value for key, value in _settings(test).items() if key not in set(but)}
    ours |= more or {}
    path = folder / "settings.json"
    theirs = config.flat(read_object(path)) if path.exists() else {}
    if path.exists():  # all samples of before there was a choice
        theirs.setdefault("evaluation.test_maps", "averaged")
    if (names := "evaluation.metrics") in theirs:
        theirs[names] = config.present_names(theirs[names])
    changed = [
        f"{key}: {ours[key]} | {theirs[key]}"
        for key in ours
        if key in theirs and ours[key] != theirs[key]
    ]
    if changed:
        raise InputError(
            f"{folder}: was made with other settings (now | then): {'; '.join(changed)}; "
            "remove the folder to make it anew"
        )
    if keep:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(ours))


def _settings(test: HeldOut) -> dict[str, Any]:
    """All that samples depend on besides the training, by key."""
    settings = test.settings
    # Fitted layers have results in a folder of their own.
    fitted = settings.evaluation.adapted_minutes is not None
    tree = {
        "evaluation": settings.evaluation.model_dump(mode="json", exclude={"adapted_minutes"}),
        "hardware": {"compute_dtype": settings.hardware.compute_dtype},
        "test_subjects": list(settings.protocol.test_subjects),
        "data": test.store.attributes.identity,
        "steps": settings.cotrain.steps,
        "seed": settings.seed,
    }
    return config.flat(tree | ({"adapt": settings.adapt.model_dump(mode="json")} if fitted else {}))
