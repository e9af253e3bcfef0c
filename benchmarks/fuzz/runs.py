"""Parsers of what commands leave for each other: stores, checkpoints, scores, logs, locks."""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np

from benchmarks.fuzz.parser import Parser, Unnoticed
from glfa_jax import config, lock
from glfa_jax.data.latents import LatentsWriter
from glfa_jax.data.layouts import SPLITS
from glfa_jax.data.store import Attributes, Quality, Store
from glfa_jax.data.video import read_all, write_gif, write_mp4
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.evaluation.sample import folder as samples_folder
from glfa_jax.evaluation.sample import read_samples
from glfa_jax.evaluation.score import with_scores
from glfa_jax.report import inputs
from glfa_jax.results import ClipKey, ClipScores, Metric, Overall, Protocol, Sampling, Scores
from glfa_jax.training.checkpoints import Checkpoints, mark_done, read_done, restore_params
from glfa_jax.training.logs import read_log

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
SUBJECT, CLIPS, FRAMES, SIDE, WINDOW = "03", 3, 2, 8, 2


def _video(seed: int, clips: int) -> np.ndarray:
    shape = (clips, FRAMES, 16, 16, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


# --- stores ---------------------------------------------------------------------------------------


def _store(folder: Path) -> Sequence[Path]:
    names = {split: [f"{split}{i}.mp4" for i in range(CLIPS)] for split in SPLITS}
    attributes = Attributes(
        subjects=(SUBJECT,),
        repetition_time=1.0,
        lag_seconds=4.0,
        window=WINDOW,
        clips=names,
        captions=names,
        clip_seconds=2.0,
        layout="bids",
        space="fsaverage5",
        repeats={SUBJECT: 1},
        runs=[{"subject": SUBJECT, "name": "1", "split": "train", "volumes": 5, "missing": 0}],
        notes=["a note"],
        fingerprint="f",
        identity="i",
        provenance={"files": {"a.tsv": {"size": 1, "sha256": "0" * 64}}},
    )
    rng = np.random.default_rng(0)
    path = folder / "new.zarr"
    mask = np.ones((SIDE, SIDE), bool)
    made = Store.create(path, attributes, mask=mask, frames=FRAMES, resolution=(16, 16))
    with made as writer:
        for split in SPLITS:
            writer.write(f"{split}/video", _video(1, CLIPS))
            maps = rng.standard_normal((CLIPS, WINDOW, SIDE, SIDE)).astype(np.float16)
            writer.write(f"{split}/fmri/sub-{SUBJECT}", maps)
            writer.write(f"{split}/present/sub-{SUBJECT}", np.array([True, False, True]))
        for name in ("train/average", *(f"quality/{kind}" for kind in ("mean", "tsnr"))):
            shape = (WINDOW, SIDE, SIDE) if name == "train/average" else (SIDE, SIDE)
            writer.write(f"{name}/sub-{SUBJECT}", rng.standard_normal(shape))
    sample = (FRAMES, 2, 2, 8)
    latents = LatentsWriter(path, "train", clips=CLIPS, shard=2, sample=sample, vae="v")
    for shard in latents.pending():
        latents.write(shard, rng.standard_normal((len(shard), *sample)).astype(np.float32))
    latents.finish()
    shutil.copytree(path, folder / "old.zarr")
    _unseal(folder / "old.zarr" / "zarr.json")
    return sorted(x for x in folder.rglob("*") if x.is_file())


def _unseal(group: Path) -> None:
    """A store of before there were seals: damage gets as far as to what reads the arrays."""
    content = json.loads(group.read_text())
    content["attributes"]["provenance"].pop("seal", None)
    group.write_text(json.dumps(content))


def _read_store(path: Path) -> None:
    """What lies in its shards has checksums: damage there must not go unnoticed."""
    root = next(x for x in path.parents if x.suffix == ".zarr")
    sound, found = _sound(root.parent)[root], list(_values(root))
    if "c" in path.relative_to(root).parts and not all(map(_same, sound, found)):
        raise Unnoticed(f"{path}: read as something else than was written")


@cache
def _sound(folder: Path) -> dict[Path, list[Any]]:
    """Of all stores: the first time that one is read, nothing is changed."""
    return {root: list(_values(root)) for root in folder.glob("*.zarr")}


def _same(a: Any, b: Any) -> bool:
    return a is b is None or np.array_equal(a, b, equal_nan=True)


def _values(root: Path) -> Iterator[Any]:
    """Everything that training, sampling and looking at a store ask of it."""
    store = Store.open(root)
    subjects = store.attributes.subjects
    yield store.mask.astype(np.uint8)
    yield store.average(subjects=subjects)
    for split in SPLITS:
        some = np.arange(min(store.num_clips(split), CLIPS))
        yield store.video(split, some)
        yield store.latents(split, some)
        yield store.fmri(split, some, subjects=subjects)
        yield store.present(split, subjects=subjects).astype(np.uint8)
        yield store.num_bytes(split, subjects=subjects)
        for subject in subjects:
            positions = np.zeros_like(some)
            yield store.volumes(split, subject=subject, clips=some, positions=positions)
    for kind in get_args(Quality):
        for subject in subjects:
            yield store.quality(kind, subject)


# --- scores and samples ---------------------------------------------------------------------------


def _scores() -> Scores:
    return Scores(
        run="demo",
        method="GLFA",
        seed=0,
        protocol=Protocol("cross", ("01", "02"), (SUBJECT,), "own", "i", "i"),
        training={"cotrain.steps": "200"},
        sampling=Sampling("dpm", 25, 3.0),
        judges={"video": "digest"},
        metrics={"SSIM": Metric("scikit-image", "higher", None, ""),
                 "video 2-way": Metric("exact", "higher", 0.5, "")},
        clips=tuple(
            ClipScores(SUBJECT, clip, {"SSIM": 0.5, "video 2-way": 1.0}) for clip in range(CLIPS)
        ),
        missing=(ClipKey(SUBJECT, 7),),
        unscanned=(ClipKey(SUBJECT, 8),),
        overall={"FVD": Overall("VideoMAE", "lower", 12.5)},
    )  # fmt: skip


def _written_scores(folder: Path) -> Sequence[Path]:
    _scores().write(folder / "scores.json")
    return [folder / "scores.json"]


def _index(folder: Path) -> Sequence[Path]:
    """One for the report of a run, one to which scores are added."""
    made = []
    for name in ("report", "score"):
        samples = folder / name / "samples"
        rows = []
        for clip in range(CLIPS):
            row: dict[str, Any] = {"subject": SUBJECT, "clip": clip, "caption": "a naïve ball"}
            for key, place in (("generated", SUBJECT), ("truth", "truth")):
                for suffix in ("mp4", "gif"):
                    path = samples / place / f"{clip:05d}.{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(b"image")
                    field = key if suffix == "mp4" else f"{key}_gif"
                    row[field] = path.relative_to(samples).as_posix()
            rows.append(row | {"scores": {"SSIM": 0.5}})
        (samples / "index.json").write_text(json.dumps(rows, indent=1))
        made.append(samples / "index.json")
        _surround(folder / name)
    return made


def _surround(run: Path) -> None:
    """What a report needs beside the samples."""
    (run / "config.yaml").write_bytes(DEMO.read_bytes())
    row = {"metric": "SSIM", "variant": "", "better": "higher", "mean": 0.5, "std": 0.1, "n": 3}
    row |= {"chance": None, "p_value": 0.01, "subject": SUBJECT, "method": "GLFA"}
    (run / "metrics.json").write_text(json.dumps([row]))


def _read_index(path: Path) -> None:
    if path.parents[1].name == "report":
        inputs.read(path.parents[1])
    else:
        with_scores(path, _scores())


def _samples(folder: Path) -> Sequence[Path]:
    path = samples_folder(_settings(folder)) / SUBJECT / "00000.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, video=_video(0, CLIPS), clip=np.arange(CLIPS))
    write_mp4(folder / "clip.mp4", _video(0, 1)[0], frame_rate=3)
    write_gif(folder / "clip.gif", _video(0, 1)[0], frame_rate=3)
    return [path, folder / "clip.mp4", folder / "clip.gif"]


def _settings(folder: Path) -> config.Config:
    changes = [f"run_dir={folder / 'run'}", f"data.frames={FRAMES}", "data.resolution=[16, 16]"]
    return config.load(DEMO, changes)


def _read_samples(path: Path) -> None:
    if path.suffix != ".npz":
        read_all(path)
        return
    test = SimpleNamespace(
        settings=_settings(path.parents[3]), batches=lambda _: [list(range(CLIPS))]
    )
    read_samples(cast(HeldOut, test), SUBJECT)


# --- training -------------------------------------------------------------------------------------


def _done(folder: Path) -> Sequence[Path]:
    mark_done(folder, step=200, metrics={"loss": 0.5, "val/loss": 0.25})
    return [folder / "done.json"]


def _logs(folder: Path) -> Sequence[Path]:
    """One that training goes on from, one for the report of a run."""
    lines = [{"step": i, "time": 1e9 + i, "metrics": {"loss": 1 / i}} for i in range(1, 6)]
    _surround_all(folder)
    made = [folder / "stage" / "log.jsonl", folder / "report" / "cotrain" / "log.jsonl"]
    for path in made:
        path.parent.mkdir()
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def _surround_all(folder: Path) -> None:
    for path in _index(folder):
        if path.parents[1].name != "report":
            path.unlink()


def _read_log(path: Path) -> None:
    if path.parents[1].name == "report":
        inputs.read(path.parents[1])
    else:
        read_log(path.parent)


def _checkpoint(folder: Path) -> Sequence[Path]:
    import jax.numpy as jnp

    from glfa_jax.training.state import TrainState

    params = {"a": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}}
    state = TrainState(step=jnp.int32(5), params=params, opt_state={"count": jnp.int32(5)})
    kept = Checkpoints(folder, keep=1, fingerprint={"seed": 0}, record={"name": "demo"})
    kept.save(5, state=state, data_state={"next_index": 5}, metrics={"loss": 0.5})
    kept.close()
    # The names of the other files, and what names them, are drawn anew each time.
    found = (folder / "checkpoints" / "5").rglob("*")
    return sorted(x for x in found if x.is_file() and x.parts[-2:] in _STEADY)


_STEADY = {("about", "metadata"), ("params", "_METADATA")}


def _locks(folder: Path) -> Sequence[Path]:
    """Of a process here that has ended, and of one on another host."""
    since = "2026-01-01T00:00:00+00:00"
    made = []
    for name, host in (("here", lock.Holder.me().host), ("elsewhere", "another")):
        machine = lock.Holder.me().machine if name == "here" else host
        said = {"host": host, "machine": machine, "process": 2**22 + 1, "started": "1"}
        (folder / name).mkdir()
        (folder / name / ".lock").write_text(
            json.dumps(said | {"since": since, "beat": "0000000001"})
        )
        made.append(folder / name / ".lock")
    return made


def _read_lock(path: Path) -> None:
    # Another host's lock is watched for so long by design: not what is tried here.
    lock.SILENCE = 0.01
    with lock.only_one(path.parent):
        pass


PARSERS = (
    Parser(
        "store",
        _store,
        _read_store,
        share=2,
        words=("attributes", "format", "shape", "chunk_grid", "codecs", "data_type", "fill_value"),
    ),
    Parser("scores", _written_scores, Scores.read, words=("format", "clips", "metrics", "missing")),
    Parser("sample_index", _index, _read_index, words=("clip", "subject", "scores", "generated")),
    Parser("samples", _samples, _read_samples, share=8, words=("descr", "shape", "|O")),
    Parser("done", _done, lambda path: read_done(path.parent), words=("step", "metrics")),
    Parser("log", _logs, _read_log, words=("step", "metrics", "time", "loss")),
    Parser(
        "checkpoint",
        _checkpoint,
        lambda path: restore_params(next(x for x in path.parents if (x / "checkpoints").is_dir())),
        share=1,
        words=("arrays", "checksums", "shape", "dtype", "params/a/kernel", "float32"),
    ),
    Parser(
        "lock", _locks, _read_lock, share=8, words=("host", "machine", "process", "started", "beat")
    ),
)
