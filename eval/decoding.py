"""The test clips of a finished run, and how they are decoded: shared by sampling and sweeping."""

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glfa_jax import config, system
from glfa_jax.convert.directory import read_json
from glfa_jax.data.store import Store
from glfa_jax.decoder import Generator, load_decoder
from glfa_jax.errors import InputError
from glfa_jax.protocol import decoded_store
from glfa_jax.training.checkpoints import read_done
from glfa_jax.training.logs import write_atomically
from glfa_jax.training.loop import check_unchanged, use_compilation_cache

# Options of `evaluation` that change no sample.
SCORING = frozenset({"ways", "metrics", "consistency_gate"})


@dataclass(frozen=True)
class HeldOut:
    """trained, store: what was trained on, and what is decoded; mostly the same."""

    settings: config.Config
    trained: Store
    store: Store

    def clips(self, subject: str) -> list[int]:
        """HeldOut clips to decode: all that the subject has, or the first of them."""
        present = np.flatnonzero(self.store.present("test", subjects=[subject])[:, 0])
        return present[: self.settings.evaluation.clips].tolist()

    def batches(self, subject: str) -> Iterator[list[int]]:
        clips, size = self.clips(subject), self.settings.evaluation.batch_size
        for start in range(0, len(clips), size):
            yield clips[start : start + size]

    def generator(self, *, step: int | None = None) -> Generator:
        """The finished model, or a checkpoint of stage 2."""
        negative = self.trained.average(subjects=self.settings.protocol.train_subjects)
        return Generator(load_decoder(self.settings, step=step), self.settings, negative=negative)

    def decode(
        self,
        generator: Generator,
        subject: str,
        clips: list[int],
        *,
        scale: float,
        steps: int,
        seed: int,
    ) -> np.ndarray:
        """One batch of videos, uint8 (b, f, h, w, 3)."""
        # The last batch is filled up, so that one program serves all.
        padded = np.resize(np.array(clips, np.int32), self.settings.evaluation.batch_size)
        fmri = self.store.fmri("test", padded, subjects=[subject])[:, 0]
        video = generator(fmri, clip=padded, scale=scale, steps=steps, seed=seed)
        return video[: len(clips)]


def open_test(settings: config.Config) -> HeldOut:
    """Raises InputError where stage 2 is not finished, or there is too little to decode."""
    use_compilation_cache()
    check_unchanged(settings.run_dir, settings)
    done = read_done(settings.run_dir / "cotrain")
    stored = system.model_folder(settings, "cotrain").is_dir()
    if not stored or done is None or done.step != settings.cotrain.steps:
        raise InputError(
            f"{settings.run_dir}: stage 2 is not finished; run python -m train.cotrain with this "
            "configuration first"
        )
    trained = Store.open(settings.data.store)
    test = HeldOut(settings, trained, decoded_store(settings, trained))
    for subject in settings.protocol.test_subjects:
        if (clips := len(test.clips(subject))) < 2:
            raise InputError(
                f"subject {subject}: {clips} test clips to decode in {test.store.path}, scoring "
                "needs two or more"
            )
    return test


def refuse_other_settings(test: HeldOut, folder: Path, *, but: AbstractSet[str]) -> None:
    """What was made with other settings or data is neither mixed with ours nor overwritten.

    but: options of `evaluation` that do not matter to what the folder holds.
    """
    settings = test.settings
    ours = {
        "evaluation": settings.evaluation.model_dump(mode="json", exclude=set(but)),
        "test_subjects": list(settings.protocol.test_subjects),
        "data": test.store.attributes.identity,
        "steps": settings.cotrain.steps,
        "seed": settings.seed,
    }
    path = folder / "settings.json"
    if path.exists() and (theirs := read_json(path)) != ours:
        changed = [key for key in ours if ours[key] != theirs.get(key)]
        raise InputError(
            f"{folder}: was made with other settings ({', '.join(changed)}: "
            f"{[theirs.get(key) for key in changed]}); remove the folder to make it anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(ours))
