"""Decodes the test clips of the test subjects into video.

    python -m eval.sample --config configs/demo.yaml

Leaves RUN/samples: an .npz a batch (what is scored), an MP4 and a GIF a clip beside its ground
truth, and index.json. Batches that are there already are not sampled again. With
`evaluation.adapted_minutes: 4`, layers that train.adapt fitted are used, and everything goes to
RUN/adapted-4min. With `protocol.test_store`, another data set is decoded, to RUN/on-STORE; with
both, to RUN/on-STORE/adapted-4min.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.cli import next_step, run_main
from glfa_jax.data.video import write_gif, write_mp4
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import SCORING, HeldOut, open_test, validate_same_settings
from glfa_jax.files import (
    read_arrays,
    read_json,
    savez_atomically,
    whole_file,
    write_atomically,
)
from glfa_jax.lock import only_one
from glfa_jax.starting import typed
from glfa_jax.training.loop import validate_unchanged


def folder(settings: config.Config) -> Path:
    return system.results_folder(settings) / "samples"


def batches(test: HeldOut, subject: str) -> Iterator[tuple[Path, list[int]]]:
    """File and clips of every batch."""
    for clips in test.batches(subject):
        yield folder(test.settings) / subject / f"{clips[0]:05d}.npz", clips


def sample_all(test: HeldOut) -> None:
    """Samples every batch that is missing."""
    missing = [
        (subject, path, clips)
        for subject in test.settings.protocol.test_subjects
        for path, clips in batches(test, subject)
        if not path.exists()
    ]
    if not missing:
        print("sample: every test clip is decoded already", flush=True)
        return
    sampler = test.sampler()
    # Written only now: what is rejected before it may be asked for in another way.
    validate_same_settings(test, folder(test.settings), but=SCORING)
    evaluation, seed = test.settings.evaluation, test.settings.seed
    for subject, path, clips in tqdm(missing, desc="sample", unit="batch", mininterval=5):
        video = test.decode(
            sampler,
            subject,
            clips,
            scale=evaluation.guidance_scale,
            steps=evaluation.sampling_steps,
            seed=seed,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        savez_atomically(path, video=video, clip=clips)


def read_samples(test: HeldOut, subject: str) -> tuple[np.ndarray, list[int]]:
    """All generated videos (b, f, h, w, 3) uint8 of a subject and their clips.

    Raises InputError naming the batches that are missing, for none is averaged away, or a file
    that does not hold what it should.
    """
    wanted = list(batches(test, subject))
    missing = [str(path) for path, _ in wanted if not path.exists()]
    if missing:
        raise InputError(
            f"not sampled yet: {', '.join(missing)}; run {typed('eval.sample')} with "
            "this configuration first"
        )
    data = test.settings.data
    shown = (data.frames, *data.resolution, 3)
    parts = [_read_batch(path, clips, shown) for path, clips in wanted]
    return np.concatenate(parts), [clip for _, clips in wanted for clip in clips]


def _read_batch(path: Path, clips: list[int], shown: tuple[int, ...]) -> np.ndarray:
    anew = f"remove it and run {typed('eval.sample')} again"
    arrays = read_arrays(path, "batch of samples", remedy=anew)
    if missing := {"video", "clip"} - arrays.keys():
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; {anew}")
    video, held = arrays["video"], arrays["clip"].tolist()
    if held == clips and video.shape == (len(clips), *shown) and video.dtype == np.uint8:
        return video
    raise InputError(
        f"{path}: holds clips {held} as {video.dtype} {video.shape}, not {clips} as uint8 {shown}; "
        f"{anew}"
    )


def write_videos(test: HeldOut) -> None:
    """MP4 and GIF of every clip and its truth, and the index."""
    attributes = test.store.attributes
    rate = test.settings.data.frames / attributes.clip_seconds
    root, index = folder(test.settings), []
    (root / "truth").mkdir(exist_ok=True)
    for subject in test.settings.protocol.test_subjects:
        videos, clips = read_samples(test, subject)
        for video, clip in zip(videos, clips, strict=True):
            own, true = f"{subject}/{clip:05d}", f"truth/{clip:05d}"
            for stem, frames in ((own, video), (true, test.store.video("test", [clip])[0])):
                for write, suffix in ((write_mp4, "mp4"), (write_gif, "gif")):
                    target = root / f"{stem}.{suffix}"
                    if not target.exists():
                        with whole_file(target, suffix=f".{suffix}") as aside:
                            write(aside, frames, frame_rate=rate)
            index.append(
                {
                    "subject": subject,
                    "clip": clip,
                    "caption": attributes.captions["test"][clip],
                    "generated": f"{own}.mp4",
                    "truth": f"{true}.mp4",
                    "generated_gif": f"{own}.gif",
                    "truth_gif": f"{true}.gif",
                }
            )
    if not _lists(root / "index.json", index):
        write_atomically(root / "index.json", json.dumps(index, indent=1))


def _lists(path: Path, index: list[dict]) -> bool:
    """Whether an index holds these entries already, with scores perhaps, which would be lost."""
    try:
        entries = read_json(path)
        return [{k: v for k, v in entry.items() if k != "scores"} for entry in entries] == index
    except (InputError, TypeError, AttributeError):
        return False


def main(settings: config.Config) -> None:
    test, results = open_test(settings), system.results_folder(settings)
    with only_one(results):
        validate_same_settings(test, folder(settings), but=SCORING, keep=False)
        validate_unchanged(results, settings)  # what the report will show
        sample_all(test)
        write_videos(test)
    print(next_step("eval.score", "--config", results / "config.yaml"), flush=True)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="eval.sample", description=__doc__)
