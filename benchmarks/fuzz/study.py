"""Parsers of what surrounds the scans of a study: tables, captions, sidecars, videos, settings."""

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import nibabel
import numpy as np
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage

from benchmarks.fuzz.parser import Parser
from glfa_jax import config
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import Problems
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.layouts.vid2name import read_vid2name
from glfa_jax.data.video import Part, read_parts, read_video, write_gif, write_mp4

CONFIGS = Path(__file__).parents[2] / "configs"
FRAMES, RESOLUTION = 3, (8, 8)
VERTICES = 10_242  # of a hemisphere of fsaverage5


# --- a study as fMRIPrep leaves it ----------------------------------------------------------------


def write_study(root: Path) -> None:
    """Two runs and their clips, of which no more than the scans' headers is looked at."""
    (root / "stimuli").mkdir(parents=True)
    for clip in ("a.mp4", "b.mp4", "c d.mp4", "é.mp4"):
        (root / "stimuli" / clip).write_bytes(b"video")
    rows = [("a.mp4", "a red ball"), ("b.mp4", "two dogs, a cat"), ("c d.mp4", 'a "tree"')]
    text = "".join(f"{clip}\t{caption}\n" for clip, caption in [*rows, ("é.mp4", "naïve ☃")])
    (root / "stimuli" / "captions.tsv").write_text("stim_file\tcaption\n" + text, encoding="utf-8")
    series = np.full((8, VERTICES), 1000, np.float32)
    folder = root / "sub-01" / "func"
    folder.mkdir(parents=True)
    for run, split in (("1", "train"), ("2", "test")):
        stem = f"sub-01_task-clips_run-{run}"
        for side in "LR":
            scan = folder / f"{stem}_hemi-{side}_space-fsaverage5_bold.func.gii"
            volumes = [GiftiDataArray(volume, "NIFTI_INTENT_TIME_SERIES") for volume in series]
            nibabel.save(GiftiImage(darrays=volumes), scan)
            said = {"RepetitionTime": 2.0, "StartTime": 1.0, "SliceTimingCorrected": True}
            scan.with_name(scan.name.replace(".func.gii", ".json")).write_text(json.dumps(said))
        events = ["onset\tduration\ttrial_type\tstim_file\trepeat"]
        events += [f"{4 * i}.0\t2.0\t{split}\t{c}\t1" for i, (c, _) in enumerate(rows)]
        (folder / f"{stem}_events.tsv").write_text("\n".join(events) + "\n")


def _study_with(*endings: str) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> Sequence[Path]:
        write_study(folder / "study")
        return sorted(p for p in folder.rglob("*") if p.name.endswith(endings))

    return make


def _events(folder: Path) -> Sequence[Path]:
    found = _study_with("_events.tsv")(folder)
    lines = found[1].read_text().splitlines()
    more = ["\t".join((*line.split("\t"), "n/a")) for line in lines]
    found[1].write_bytes(("\ufeff" + "\r\n".join(more) + "\r\n").encode())
    return found


def _read_study(path: Path) -> None:
    root = next(parent for parent in path.parents if (parent / "stimuli").is_dir())
    data = config.Data(root=root, store=root / "store.zarr", subjects=("01",))
    read_study(data, Problems(skip=False))


# --- captions -------------------------------------------------------------------------------------


def _captions(folder: Path) -> Sequence[Path]:
    text = "stim_file\tcaption\na.mp4\ta red ball\nb.mp4\t  two dogs  \nc d.mp4\tnaïve ☃\n"
    more = "caption\tonset\tstim_file\r\na ball\t1.0\ta.mp4\r\na ball\tn/a\ta.mp4\r\n"
    made = {"plain.tsv": text.encode(), "marked.tsv": more.encode("utf-8-sig")}
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in made]


def _vid2name(folder: Path) -> Sequence[Path]:
    """As numpy writes a dict, and as pickles of other protocols."""
    plain = {1: "a red ball", 2: "two dogs", 300: "naïve ☃"}
    typed = {np.int64(k): np.str_(v) for k, v in plain.items()}
    paths = []
    for name, content in (("plain", plain), ("typed", typed)):
        np.save(folder / f"{name}.npy", np.array(content, object), allow_pickle=True)
        paths.append(folder / f"{name}.npy")
    begin = paths[0].read_bytes()
    header = begin[: 10 + int.from_bytes(begin[8:10], "little")]
    for protocol in (2, 4):
        path = folder / f"protocol{protocol}.npy"
        path.write_bytes(header + pickle.dumps(np.array(plain, object), protocol=protocol))
        paths.append(path)
    return paths


# --- videos ---------------------------------------------------------------------------------------


def _videos(folder: Path) -> Sequence[Path]:
    """Few frames of few pixels, in the containers and codecs that libav brings along."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    write_mp4(folder / "h264.mp4", frames, frame_rate=3)
    write_gif(folder / "animation.gif", frames, frame_rate=3)
    for name, codec, pixels in (
        ("mpeg4.avi", "mpeg4", "yuv420p"),
        ("plain.avi", "rawvideo", "yuv420p"),
        ("lossless.mkv", "ffv1", "yuv420p"),
        ("frames.mov", "mjpeg", "yuvj420p"),
    ):
        options = {"fflags": "+bitexact"}
        with av.open(str(folder / name), "w", options=options) as container:
            stream = container.add_stream(codec, rate=3)
            stream.width, stream.height, stream.pix_fmt = 16, 16, pixels
            stream.codec_context.flags |= 1 << 23  # bitexact: the same bytes every time
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    return sorted(folder.iterdir())


def _read_video(path: Path) -> None:
    read_video(path, frames=FRAMES, resolution=RESOLUTION)
    parts = [Part(path, 0.0, 1.0), Part(path, 0.5, 1.0)]
    for _ in read_parts(path, parts, frames=FRAMES, resolution=RESOLUTION):
        pass


# --- settings -------------------------------------------------------------------------------------


def _configs(folder: Path) -> Sequence[Path]:
    for path in sorted(CONFIGS.glob("*.yaml")):
        (folder / path.name).write_bytes(path.read_bytes())
    return sorted(folder.iterdir())


def _read_config(path: Path) -> None:
    config.load(path, schema=config.Study if path.name == "simulated.yaml" else config.Config)


def _overrides(folder: Path) -> Sequence[Path]:
    (folder / "demo.yaml").write_bytes((CONFIGS / "demo.yaml").read_bytes())
    texts = ("cotrain.steps=100", "data.subjects=['01', '02', '03']", "data.resolution=[64, 64]")
    texts += ("seed=3", "hardware={remat: true}", "evaluation.guidance_scale=1e-1", "lea={}")
    paths = [folder / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def _read_override(path: Path) -> None:
    # What a shell can hand over: any bytes but zero.
    text = path.read_bytes().replace(b"\0", b"").decode("utf-8", "surrogateescape")
    config.load(path.parent / "demo.yaml", [text])


_LAUGHS = "".join(
    f"{a}: &{a} [{', '.join([f'*{b}'] * 9)}]\n"
    for b, a in zip("abcdefghi", "bcdefghij", strict=True)
)
_YAML = (
    *("&a", "*a", "<<: *a", "!!python/object/apply:os.system [ls]", "!!binary", "!!set", "!x", "|"),
    *(
        ">",
        "? ",
        "- ",
        "---\n",
        "...\n",
        "%YAML 9.9\n",
        "2020-02-31",
        "12:30:45",
        "0b1",
        "0o7",
        "~",
    ),
    *(".inf", ".nan", "yes", "1_000", "{a: &x [*x]}", "\n  ", "# ", ": ", f"a: &a [x]\n{_LAUGHS}"),
    *("seed", "data", "name", "cotrain", "subjects", "resolution", "[1, 2, 3]", "{a: 1}"),
)
_TABLE = (
    "onset",
    "duration",
    "trial_type",
    "stim_file",
    "repeat",
    "caption",
    "train",
    "test",
    "n/a",
)

PARSERS = (
    Parser("events", _events, _read_study, words=(*_TABLE, "a.mp4", "stimuli/a.mp4")),
    Parser(
        "sidecar",
        _study_with("_bold.json"),
        _read_study,
        words=("RepetitionTime", "StartTime", "SliceTimingCorrected", "2.0"),
    ),
    Parser("captions", _captions, read_captions, words=_TABLE),
    Parser(
        "vid2name",
        _vid2name,
        read_vid2name,
        words=(
            "numpy",
            "dtype",
            "ndarray",
            "_reconstruct",
            "descr",
            "shape",
            "|O",
            "(0.",
            "}r.",
            "e.",
        ),
    ),
    Parser("video", _videos, _read_video, share=4),
    Parser("config", _configs, _read_config, share=8, words=_YAML),
    Parser("override", _overrides, _read_override, words=_YAML, says=("--set", "demo.yaml")),
)
