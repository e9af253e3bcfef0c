"""What decoding leaves: videos, arrays, a table and a page. A command that was stopped goes on.

arrays/00000.npz   a batch: `video` uint8 (clips, frames, height, width, 3), `clip`, `onset` in
                   seconds, `agreement`
clips/0000.mp4     what was decoded of each clip
shown/0000.mp4     what was shown, where the file is there
clips.tsv          a row a clip
index.html         all of it as a page
settings.json      what the videos depend on
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.data.video import Part, read_parts, write_mp4
from glfa_jax.decoder import Decoder
from glfa_jax.decoding.agreement import agreement
from glfa_jax.errors import InputError
from glfa_jax.files import read_arrays, read_object, savez_atomically, whole_file, write_atomically
from glfa_jax.trained.scans import RunMaps

SETTINGS, TABLE = "settings.json", "clips.tsv"
COLUMNS: tuple[str, ...] = ("clip", "onset", "duration", "agreement", "file", "shown", "alignment")


def check_free(out: Path) -> None:
    """Raises InputError for a folder that holds anything else."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, must be a folder or a new name")
    held = [] if not out.exists() else [p.name for p in out.iterdir() if p.name != ".lock"]
    if held and SETTINGS not in held:
        raise InputError(f"{out}: holds other files already; name a new or an empty folder")


def settings_of(
    decoder: Decoder, run: RunMaps, *, subject: str | None, samples: int, alignment: str
) -> dict[str, Any]:
    """All that the videos depend on, as JSON."""
    kept, evaluation = decoder.trained_on, decoder.settings.evaluation
    shown = zip(run.clips, run.onsets, strict=True)
    encoder = decoder.fitted.get(subject or "", decoder.model.encoder)
    return {
        "model": _digest(encoder.variables, kept.average),
        "maps": _digest(run.scores, run.firsts),
        "clips": [f"{clip} at {onset:g} s" for clip, onset in shown],
        "subject": subject,
        "alignment": alignment,
        "samples": samples,
        "seed": decoder.settings.seed,
        "sampler": evaluation.sampler,
        "steps": evaluation.sampling_steps,
        "guidance_scale": evaluation.guidance_scale,
    }


def _digest(*trees: Any) -> str:
    state = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        state.update(np.ascontiguousarray(leaf).tobytes())
    return state.hexdigest()


def check_same(out: Path, ours: Mapping[str, Any]) -> None:
    """Writes the settings down, or raises InputError where the folder was made with others."""
    path = out / SETTINGS
    theirs = read_object(path) if path.exists() else ours
    if changed := [key for key in ours if theirs.get(key) != ours[key]]:
        raise InputError(
            f"{out}: was made with another {', '.join(changed)}; remove the folder to make it "
            "anew, or name another"
        )
    write_atomically(path, json.dumps(ours, indent=1, ensure_ascii=False) + "\n")


def batches(out: Path, run: RunMaps, size: int) -> Iterator[tuple[Path, range]]:
    for start in range(0, len(run), size):
        place = out / "arrays" / f"{start:05d}.npz"
        yield place, range(start, min(start + size, len(run)))


def decode(decoder: Decoder, run: RunMaps, out: Path, *, subject: str | None, samples: int) -> None:
    """Every batch that is missing; of several samples the first is kept, whose seed is that of the
    configuration."""
    size, seed = decoder.settings.evaluation.batch_size, decoder.settings.seed
    missing = [each for each in batches(out, run, size) if not each[0].exists()]
    if not missing:
        print("decode: every clip is decoded already", flush=True)
        return
    (out / "arrays").mkdir(exist_ok=True)
    for path, clips in tqdm(missing, desc="decode", unit="batch"):
        maps = run.some(clips)
        drawn = [
            decoder.decode(maps, subject=subject, seed=(seed + i) % 2**32, clips=list(clips))
            for i in range(samples)
        ]
        savez_atomically(
            path,
            video=drawn[0],
            clip=np.array(clips),
            onset=run.onsets[list(clips)],
            agreement=agreement(np.stack(drawn)),
        )


def write_videos(decoder: Decoder, run: RunMaps, out: Path) -> list[dict[str, str]]:
    """MP4s that are missing, and the table; its rows."""
    data, rows = decoder.settings.data, []
    rate = data.frames / decoder.trained_on.timing.clip_seconds
    for folder in ("clips", "shown"):
        (out / folder).mkdir(exist_ok=True)
    for path, clips in batches(out, run, decoder.settings.evaluation.batch_size):
        anew = "remove it and run the same command again"
        held = read_arrays(path, "batch of decoded clips", remedy=anew)
        wanted = (len(clips), *decoder.video_shape)
        if held.get("video", np.zeros(0)).shape != wanted or "agreement" not in held:
            raise InputError(f"{path}: holds no {len(clips)} decoded clips; {anew}")
        for number, video, alike in zip(clips, held["video"], held["agreement"], strict=True):
            file, shown, part = f"clips/{number:04d}.mp4", "n/a", run.shown[number]
            _write(out / file, video, rate)
            if part is not None:
                shown = f"shown/{number:04d}.mp4"
                if not (out / shown).exists():
                    _write(out / shown, _frames(part, data), rate)
            rows.append(
                {
                    "clip": run.clips[number],
                    "onset": f"{run.onsets[number]:g}",
                    "duration": f"{run.durations[number]:g}",
                    "agreement": "n/a" if np.isnan(alike) else f"{alike:.3f}",
                    "file": file,
                    "shown": shown,
                }
            )
    return rows


def _write(path: Path, video: np.ndarray, rate: float) -> None:
    if not path.exists():
        with whole_file(path, suffix=".mp4") as aside:
            write_mp4(aside, video, frame_rate=rate)


def _frames(part: Part, data: config.Data) -> np.ndarray:
    return next(read_parts(part.path, [part], frames=data.frames, resolution=data.resolution))


def write_table(out: Path, rows: list[dict[str, str]], *, alignment: str) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, dialect="excel-tab", lineterminator="\n")
    table.writeheader()
    table.writerows({**row, "alignment": alignment} for row in rows)
    write_atomically(out / TABLE, text.getvalue())
