"""The films of the Human Connectome Project at 7 tesla: TR 1 s, four films, one clip ends them all.

100610/MNINonLinear/Results/tfMRI_MOVIE1_7T_AP/tfMRI_MOVIE1_7T_AP_Atlas...
    ..._1.6mm_MSMAll_hp2000_clean.dtseries.nii      data.space: fsLR59k
    ..._MSMAll_hp2000_clean.dtseries.nii            data.space: fsLR (32k)
stimuli/7T_MOVIE1_CC1_v2.mp4                        and so on, rest included; without _v2 also read

A film is several clips with 20 s of rest before, between and after them. These are cut into clips
of `data.clip_seconds`, `MOVIE1/020` beginning 20 s into the film. The last clip is the same in all
films: it is the test, `validation/000` and so on, shown four times. The volumes from its beginning
on are a run of their own, so that nothing of the test enters the z-scores of training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import LAYOUTS, Layout, Problems, Run, Split, Study, Trial
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.readers import cifti, cifti_header, trimmed
from glfa_jax.data.timing import TIME_TOLERANCE
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched
from glfa_jax.starting import typed

REPETITION_TIME = 1.0
MESHES = {"fsLR": "Atlas", "fsLR59k": "Atlas_1.6mm"}  # how files say on which mesh they lie
VERSIONS = ("_v2", "")  # of the films: from 22 August 2014 on, and before
VALIDATION_SECONDS = 83


@dataclass(frozen=True)
class _Film:
    """A film and its scan; the seconds of a film are the volumes of its scan.

    clips: where each but the last begins and ends; validation: where the last one begins.
    """

    number: int
    direction: str
    kind: str
    volumes: int
    clips: tuple[tuple[int, int], ...]
    validation: int

    @property
    def name(self) -> str:
        return f"MOVIE{self.number}"

    def scan(self, results: Path, mesh: str) -> Path:
        run = f"tfMRI_{self.name}_7T_{self.direction}"
        return results / run / f"{run}_{mesh}_MSMAll_hp2000_clean.dtseries.nii"

    def video(self, stimuli: Path) -> Path:
        """The second version where there are both: the published times are its."""
        found = [stimuli / f"7T_{self.name}_{self.kind}{version}.mp4" for version in VERSIONS]
        return next(filter(is_fetched, found), found[0])


FILMS = (
    _Film(1, "AP", "CC1", 921, ((20, 264), (284, 506), (526, 714), (734, 798)), 818),
    _Film(2, "PA", "HO1", 918, ((20, 247), (267, 525), (545, 795)), 815),
    _Film(3, "PA", "CC2", 915, ((20, 201), (221, 405), (425, 629), (649, 792)), 812),
    _Film(4, "AP", "HO2", 901, ((20, 252), (272, 502), (522, 777)), 798),
)


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    if data.space not in MESHES:
        raise DataError(
            f"data.space: must be fsLR (32k) or fsLR59k for layout hcp7t, is {data.space}"
        )
    if data.clip_seconds > VALIDATION_SECONDS:
        raise DataError(
            f"data.clip_seconds: must be at most {VALIDATION_SECONDS}, the length of the clip that "
            f"ends every film, is {data.clip_seconds}"
        )
    if data.captions is None:
        raise DataError(
            "data.captions: layout hcp7t comes without captions; name a table with the columns "
            "stim_file (MOVIE1/020, MOVIE1/024 ... and validation/000 ..., a clip every "
            f"data.clip_seconds) and caption, such as {typed('glfa_jax.data.caption')} writes"
        )
    captions = read_captions(data.captions, failed=problems.add)
    runs: list[Run] = []
    for subject in data.subjects:
        results = data.root / subject / "MNINonLinear" / "Results"
        if not results.is_dir():
            problems.add(DataError(f"{results}: no such folder; subject {subject} has no scans"))
            continue
        scans = {film: film.scan(results, MESHES[data.space]) for film in FILMS}
        if not any(map(is_fetched, scans.values())):
            first = scans[FILMS[0]]
            problems.add(DataError(f"{first}: no such file, nor is that of any other film there"))
            continue
        for film, scan in scans.items():
            if not is_fetched(scan):
                problems.missing.run(subject, film.name)
                continue
            try:
                runs += _runs(film, scan, subject, data)
            except DataError as error:
                problems.add(error)
    return with_clips(
        runs,
        videos=dict(_clips(data.root / "stimuli", data.clip_seconds)),
        captions=captions,
        captions_file=data.captions,
        problems=problems,
    )


def _clips(stimuli: Path, seconds: int) -> Iterator[tuple[str, Part]]:
    """Every clip; those that end all films are taken from the first film that is there."""
    for film in FILMS:
        for start in _starts(film, seconds):
            yield _training(film, start), Part(film.video(stimuli), start, seconds)
    last = next((film for film in FILMS if is_fetched(film.video(stimuli))), FILMS[0])
    for start in _offsets(seconds):
        yield _validation(start), Part(last.video(stimuli), last.validation + start, seconds)


def _starts(film: _Film, seconds: int) -> Iterator[int]:
    """A grid of its own in each clip; what is left at its end is too short."""
    for begin, end in film.clips:
        yield from range(begin, end - seconds + 1, seconds)


def _offsets(seconds: int) -> range:
    """The same in the clip that ends all films, counted from its beginning."""
    return range(0, VALIDATION_SECONDS - seconds + 1, seconds)


def _training(film: _Film, start: int) -> str:
    return f"{film.name}/{start:03d}"


def _validation(start: int) -> str:
    return f"validation/{start:03d}"


def _runs(film: _Film, path: Path, subject: str, data: config.Data) -> Iterator[Run]:
    """The part of the scan before the last clip of the film, and the rest of it."""
    volumes, seconds, sides = cifti_header(path)
    if abs(seconds - REPETITION_TIME) > TIME_TOLERANCE:
        raise DataError(
            f"{path}: its header says TR {seconds:g} s, must be {REPETITION_TIME:g} s as in all "
            "films of the HCP at 7 tesla"
        )
    if volumes != film.volumes:
        raise DataError(f"{path}: {volumes} volumes, must be {film.volumes}")
    length = data.clip_seconds
    training = [(_training(film, start), start) for start in _starts(film, length)]
    validation = [(_validation(start), film.validation + start) for start in _offsets(length)]
    parts: tuple[tuple[Split, str, list[tuple[str, int]], tuple[int, int]], ...] = (
        ("train", film.name, training, (0, volumes - film.validation)),
        ("test", f"{film.name}_validation", validation, (film.validation, 0)),
    )
    for split, name, shown, (begin, end) in parts:
        repeat = film.number if split == "test" else 1
        yield Run(
            subject=subject,
            name=name,
            split=split,
            repetition_time=REPETITION_TIME,
            start_time=float(begin),
            trials=tuple(Trial(clip, float(onset), float(length), repeat) for clip, onset in shown),
            scans=(path,),
            files=(path,),
            blocks=partial(trimmed, partial(cifti, path), path, begin, end),
            sides=sides,
            dropped=(begin, end),
        )


# FIX and a slow high-pass filter went over the scans before they were published.
LAYOUTS.register(Layout("hcp7t", read_study))
