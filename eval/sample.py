"""Decodes the test clips of the test subjects into video.

    python -m eval.sample --config configs/demo.yaml

Leaves RUN/samples: an .npz a batch (what is scored), an MP4 and a GIF a clip beside its ground
truth, and index.json. Batches that are there already are not sampled again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.cli import run_main
from glfa_jax.convert.directory import read_json
from glfa_jax.data.store import Store
from glfa_jax.data.video import write_gif, write_mp4
from glfa_jax.decoder import generator_of, load_decoder, refuse_unfinished, variables_of
from glfa_jax.errors import InputError
from glfa_jax.training.logs import write_atomically
from glfa_jax.training.loop import check_unchanged, refuse_if_changed, use_compilation_cache


def test_clips(settings: config.Config, store: Store, subject: str) -> np.ndarray:
    """Indices of the test clips to decode: all that the subject has, or the first of them."""
    present = np.flatnonzero(store.present("test", subjects=[subject])[:, 0])
    return present[: settings.evaluation.clips]


def folder(settings: config.Config) -> Path:
    return settings.run_dir / "samples"


def batches(settings: config.Config, store: Store, subject: str) -> Iterator[tuple[Path, list]]:
    """File and clips of every batch."""
    clips = test_clips(settings, store, subject)
    size = settings.evaluation.batch_size
    for start in range(0, len(clips), size):
        yield folder(settings) / subject / f"{start:05d}.npz", clips[start : start + size].tolist()


def refuse_other_settings(settings: config.Config, store: Store) -> None:
    """Samples of other settings or data are neither mixed with ours nor overwritten."""
    ours = {
        "evaluation": settings.evaluation.model_dump(mode="json", exclude={"ways"}),
        "test_subjects": list(settings.protocol.test_subjects),
        "data": store.attributes.identity,
        "steps": settings.cotrain.steps,
        "seed": settings.seed,
    }
    path = folder(settings) / "settings.json"
    if path.exists() and (theirs := read_json(path)) != ours:
        changed = [key for key in ours if ours[key] != theirs.get(key)]
        raise InputError(
            f"{folder(settings)}: holds samples made with other settings ({', '.join(changed)}: "
            f"{[theirs.get(key) for key in changed]}); remove the folder to sample anew"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(ours))


def sample_all(settings: config.Config, store: Store) -> None:
    """Samples every batch that is missing."""
    missing = [
        (subject, path, clips)
        for subject in settings.protocol.test_subjects
        for path, clips in batches(settings, store, subject)
        if not path.exists()
    ]
    if not missing:
        print("sample: every test clip is decoded already", flush=True)
        return
    decoder = load_decoder(settings)
    generate, variables = generator_of(decoder, settings), variables_of(decoder)
    negative = store.average(subjects=settings.protocol.train_subjects)
    size = settings.evaluation.batch_size
    for subject, path, clips in tqdm(missing, desc="sample", unit="batch", mininterval=5):
        # The last batch is filled up, so that one program serves all.
        padded = np.resize(np.array(clips, np.int32), size)
        fmri = store.fmri("test", padded, subjects=[subject])[:, 0].astype(np.float32)
        scale = np.float32(settings.evaluation.guidance_scale)
        video = jax.device_get(generate(variables, fmri, negative, padded, scale))[: len(clips)]
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial.npz")
        np.savez(aside, video=np.rint((video + 1) * 127.5).astype(np.uint8), clip=clips)
        os.replace(aside, path)


def read_samples(settings: config.Config, store: Store, subject: str) -> tuple[np.ndarray, list]:
    """All generated videos (b, f, h, w, 3) uint8 of a subject and their clips.

    Raises InputError naming the batches that are missing: none is averaged away.
    """
    wanted = list(batches(settings, store, subject))
    missing = [str(path) for path, _ in wanted if not path.exists()]
    if missing:
        raise InputError(
            f"not sampled yet: {', '.join(missing)}; run python -m eval.sample with this "
            "configuration first"
        )
    parts = []
    for path, _ in wanted:
        with np.load(path) as arrays:
            parts.append(arrays["video"])
    return np.concatenate(parts), [clip for _, clips in wanted for clip in clips]


def write_pictures(settings: config.Config, store: Store) -> None:
    """MP4 and GIF of every clip and its truth, and the index."""
    rate = settings.data.frames / store.attributes.clip_seconds
    root, index = folder(settings), []
    (root / "truth").mkdir(exist_ok=True)
    for subject in settings.protocol.test_subjects:
        videos, clips = read_samples(settings, store, subject)
        for video, clip in zip(videos, clips, strict=True):
            own, true = f"{subject}/{clip:05d}", f"truth/{clip:05d}"
            for stem, frames in ((own, video), (true, store.video("test", [clip])[0])):
                for write, suffix in ((write_mp4, "mp4"), (write_gif, "gif")):
                    target = root / f"{stem}.{suffix}"
                    if not target.exists():
                        aside = target.with_suffix(f".partial.{suffix}")
                        write(aside, frames, frame_rate=rate)
                        os.replace(aside, target)
            index.append(
                {
                    "subject": subject,
                    "clip": clip,
                    "caption": store.attributes.captions["test"][clip],
                    "generated": f"{own}.mp4",
                    "truth": f"{true}.mp4",
                    "generated_gif": f"{own}.gif",
                    "truth_gif": f"{true}.gif",
                }
            )
    write_atomically(root / "index.json", json.dumps(index, indent=1))


def main(settings: config.Config) -> None:
    use_compilation_cache()
    check_unchanged(settings.run_dir, settings)
    refuse_unfinished(settings)
    store = Store.open(settings.data.store)
    for subject in settings.protocol.test_subjects:
        if (clips := len(test_clips(settings, store, subject))) < 2:
            raise InputError(
                f"subject {subject}: {clips} test clips to decode in {store.path}, scoring needs "
                "two or more"
            )
    refuse_other_settings(settings, store)
    refuse_if_changed(settings.run_dir, settings)  # what the report will show
    sample_all(settings, store)
    write_pictures(settings, store)
    print(f"next: python -m eval.score --config {settings.run_dir / 'config.yaml'}", flush=True)


if __name__ == "__main__":
    run_main(main, description=__doc__)
