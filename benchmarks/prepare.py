"""Preparing a study of large HDF5 runs, and reading the store in training.

    python -m benchmarks.prepare --json benchmarks/results/prepare.json

Writes a study in the layout of the Fudan set: one training run of 10 GB (images of 1023 x 2514 in
float32; a few different volumes, repeated and compressed, so that it fits a disk), a short test run
and their clips. Measured: time and peak memory of preparing it, in one process of its own, as it is
and cleaned (`data.clean`), and how many samples a second training gets from the store, read from
disk for every batch.
"""

import json
import os
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.measuring import in_own_process, parser, peak_memory, write_result
from glfa_jax import config
from glfa_jax.data.store import Store
from glfa_jax.data.video import write_mp4
from glfa_jax.preparation import prepare

MODULE = "benchmarks.prepare"
HEIGHT, WIDTH = 1023, 2514  # SPEC §5.3
REGION_HEIGHT, REGION_WIDTH = 714, 719
TRIAL_VOLUMES, DROPPED, TAIL = 13, 3, 5
DIFFERENT = 13  # volumes
TEST_TRIALS = 4
BATCH = 12  # windows, SPEC §3
LIMIT = 2**30  # bytes of memory
CLEAN = config.Cleaning(polynomial=4, low_pass_hz=0.2, despike=4.0)  # every step without a table


def write_study(root: Path, *, gigabytes: float) -> None:
    rng = np.random.default_rng(0)
    volumes = int(gigabytes * 1e9 / (4 * HEIGHT * WIDTH))
    trials = (volumes - DROPPED - TAIL) // TRIAL_VOLUMES // 4 * 4
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), np.int8)
    for side in (WIDTH // 4, 3 * WIDTH // 4):
        radius = np.hypot((row - HEIGHT / 2) / HEIGHT, (column - side) / (WIDTH / 2))
        mask[radius < 0.48] = -1
    middle = np.hypot(
        (row - HEIGHT // 2) / (REGION_HEIGHT / 2), (column - WIDTH // 2) / (REGION_WIDTH / 2)
    )
    mask[(middle < 1) & (middle > 0.63)] = 1  # as many pixels as the visual cortex has there
    np.savez_compressed(root / "vc_roi.npz", images=mask[None])
    cortex = mask != 0
    packed = []
    for _ in range(DIFFERENT):
        coarse = rng.normal(1000, 10, (HEIGHT // 8 + 1, WIDTH // 8 + 1)).astype(np.float32)
        volume = np.kron(coarse, np.ones((8, 8), np.float32))[:HEIGHT, :WIDTH] * cortex
        packed.append(zlib.compress(volume.tobytes(), 1))
    stimuli = root / "stimuli"
    (stimuli / "condition").mkdir(parents=True)
    captions = ["stim_file\tcaption"]
    first = 1
    for run, count, length in (
        (1, TEST_TRIALS, DROPPED + TEST_TRIALS * TRIAL_VOLUMES + TAIL),
        (2, trials, volumes),
    ):
        numbers = range(first, first + count)
        first += count
        (stimuli / "condition" / f"run{run}.txt").write_text("\n".join(map(str, numbers)) + "\n")
        for number in numbers:
            clip = rng.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
            write_mp4(stimuli / f"{number}.mp4", np.kron(clip, np.ones((1, 16, 16, 1), np.uint8)),
                      frame_rate=3)  # fmt: skip
            captions.append(f"{number}.mp4\tclip {number}")
        write_run(root, run, length, packed)
    (root / "captions.tsv").write_text("\n".join(captions) + "\n")


def write_run(root: Path, run: int, volumes: int, packed: list[bytes]) -> None:
    folder = root / "processed-fmri" / "sub-0001" / "hdf5"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"sub-0001_task-video_run-{run}_space-fsLR_den-91k_bold.dtseries.h5"
    with h5py.File(folder / name, "w") as file:
        data = file.create_dataset(
            "images",
            (volumes, HEIGHT, WIDTH),
            np.float32,
            chunks=(1, HEIGHT, WIDTH),
            compression="gzip",
        )
        for volume in range(volumes):
            # Another order in every trial, so that no window is like the others.
            chosen = (volume * (volume // TRIAL_VOLUMES + 1)) % len(packed)
            data.id.write_direct_chunk((volume, 0, 0), packed[chosen])


def settings(root: Path, clean: config.Cleaning | None = None) -> config.Data:
    return config.Data(
        layout="fudan",
        root=root,
        store=root / f"store{'' if clean is None else '-cleaned'}.zarr",
        clean=clean,
        subjects=("1",),
        runs={"1": config.RunNumbers(train=(2,), test=(1,))},
        captions=root / "captions.tsv",
        space="fsLR",
        frames=12,
        workers=1,
    )


def measure_prepare(root: Path, clean: config.Cleaning | None = None) -> dict[str, Any]:
    before = peak_memory()
    start = time.perf_counter()
    store = prepare(settings(root, clean))
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_bytes": peak_memory(),
        "bytes_before": before,
        "samples": {split: store.num_clips(split) for split in ("train", "test")},
        "cortex_pixels": int(store.mask.sum()),
    }


def measure_reading(root: Path, seconds: float = 20.0) -> dict[str, Any]:
    from glfa_jax.data import pipeline, rows  # not where memory is measured

    rows.CACHE_BYTES = 0  # as for a set that does not fit memory
    store = Store.open(root / "store.zarr")
    batches = pipeline.batches(
        store,
        subjects=store.attributes.subjects,
        split="train",
        batch_size=BATCH,
        seed=0,
        tokenize=lambda captions: np.zeros((len(captions), 77), np.int32),
        augment=None,
        shuffle=True,
        repeat=True,
    )
    next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        next(batches)
        count += BATCH
    return {"samples_a_second": round(count / (time.perf_counter() - start), 1), "batch": BATCH}


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--gigabytes", type=float, default=10.0)
    made.add_argument("--measure", nargs=2, metavar=("WHAT", "ROOT"), help="internal")
    args = made.parse_args()
    if args.measure:
        what, root = args.measure
        measure = {
            "prepare": measure_prepare,
            "cleaned": partial(measure_prepare, clean=CLEAN),
            "reading": measure_reading,
        }[what]
        print(json.dumps(measure(Path(root))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root, gigabytes=args.gigabytes)
        scan = next(root.glob("processed-fmri/*/hdf5/*run-2_*"))
        prepared = in_own_process(MODULE, "--measure", "prepare", root)
        cleaned = in_own_process(MODULE, "--measure", "cleaned", root)
        reading = in_own_process(MODULE, "--measure", "reading", root)
        result = {
            "run_gigabytes": args.gigabytes,
            "run_gigabytes_on_disk": round(scan.stat().st_size / 1e9, 3),
            "prepare": prepared,
            "cleaned": cleaned,
            "reading": reading,
            "load": round(os.getloadavg()[0], 1),
        }
    print(
        f"prepared a run of {args.gigabytes:g} GB in {prepared['seconds']} s with at most "
        f"{prepared['peak_bytes'] / 2**20:.0f} MiB of memory, of which "
        f"{prepared['bytes_before'] / 2**20:.0f} MiB before it began; cleaned ({CLEAN.words}) in "
        f"{cleaned['seconds']} s with {cleaned['peak_bytes'] / 2**20:.0f} MiB; training reads "
        f"{reading['samples_a_second']} samples a second "
        "(window of 5 maps of 256 x 256, 12 frames of 256 x 256)"
    )
    packages = ("numpy", "scipy", "h5py", "tensorstore", "grain")
    write_result(args.json, result, packages=packages)
    return int(max(prepared["peak_bytes"], cleaned["peak_bytes"]) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
