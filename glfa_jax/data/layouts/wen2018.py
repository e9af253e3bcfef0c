"""The benchmark of Wen et al. 2018 (CC2017): three subjects, 8-minute films, TR 2 s.

video_fmri_dataset/subject1/fmri/seg3/cifti/seg3_1_Atlas.dtseries.nii     seg1..18, repeats 1..2
video_fmri_dataset/subject1/fmri/test2/cifti/test2_9_Atlas.dtseries.nii   test1..5, repeats 1..10
video_fmri_dataset/subject1/fmri/seg3/mni/seg3_1_mni.nii.gz               the same as volumes
stimuli/seg3.mp4, stimuli/test2.mp4

Every film counts as 240 clips of 2 s, `seg3/000` to `seg3/239`; captions come from `data.captions`:
a table, or the lists that other groups distribute (`benchmark_captions`).
`data.space` chooses: fsLR the series on the surface, MNI152NLin6Asym the volumes, which are sampled
to the surfaces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError, surfaces
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import LAYOUTS, SPLITS, Layout, Problems, Run, Split, Study
from glfa_jax.data.layouts.benchmark_captions import is_list, read_lists
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.layouts.cutting import Showing, cut
from glfa_jax.data.missing import listed
from glfa_jax.data.readers import cifti, header_of, trimmed, volume
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched

REPETITION_TIME = 2.0
CLIPS = 240  # a film
CLIP_SECONDS = 2.0
# Volumes of a run -> volumes before and after the film: 246 in the films test2 to test5.
DROPPED = {245: (1, 4), 246: (2, 4)}
# Space -> folder and endings of its scans. One of subject 1's is test1_9.mni.nii.gz.
FORMS = {
    "fsLR": ("cifti", ("_Atlas.dtseries.nii",)),
    "MNI152NLin6Asym": ("mni", ("_mni.nii.gz", ".mni.nii.gz")),
}


@dataclass(frozen=True)
class _Film:
    name: str
    split: Split
    repeats: int


FILMS = (
    *(_Film(f"seg{number}", "train", 2) for number in range(1, 19)),
    *(_Film(f"test{number}", "test", 10) for number in range(1, 6)),
)


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    if data.space not in FORMS:
        raise DataError(
            f"data.space: must be {' or '.join(FORMS)} for layout wen2018, is {data.space}"
        )
    if data.captions is None:
        raise DataError(
            "data.captions: layout wen2018 comes without captions; name a list of them such as "
            "GT_train_caption.pt, or a table with the columns stim_file (seg1/000 to test5/239, "
            "one of 240 clips of 2 s a film) and caption"
        )
    if is_list(data.captions):
        captions, lists = read_lists(data.captions, _in_order(), problems)
    else:
        captions, lists = read_captions(data.captions, failed=problems.add), ()
    runs, videos = [], {}
    for film in FILMS:
        path = data.root / "stimuli" / f"{film.name}.mp4"
        for trial, begin in cut(_showing(film), seconds=CLIP_SECONDS):
            videos[trial.clip] = Part(path, begin, CLIP_SECONDS)
    mesh = cache(lambda: surfaces.load(data))  # only volumes need it
    for subject in data.subjects:
        folder = data.root / "video_fmri_dataset" / f"subject{subject}" / "fmri"
        if not folder.is_dir():
            problems.add(DataError(f"{folder}: no such folder; subject {subject} has no scans"))
            continue
        for film in FILMS:
            runs += _repeats(folder, subject, film, data.space, mesh, problems)
    return with_clips(
        runs,
        videos=videos,
        captions=captions,
        captions_file=data.captions,
        problems=problems,
        files=lists,
    )


def _showing(film: _Film, repeat: int = 1) -> Showing:
    # The first volume kept belongs to the begin of the film.
    return Showing(film.name, 0.0, duration=CLIP_SECONDS * CLIPS, repeat=repeat)


def _in_order() -> dict[Split, list[str]]:
    """All clips of each split, film after film."""
    return {
        split: [
            trial.clip
            for film in FILMS
            if film.split == split
            for trial, _ in cut(_showing(film), seconds=CLIP_SECONDS)
        ]
        for split in SPLITS
    }


def _repeats(
    folder: Path,
    subject: str,
    film: _Film,
    space: str,
    mesh: Callable[[], surfaces.Surfaces],
    problems: Problems,
) -> list[Run]:
    """The runs of one film that are there (subject 3 lacks a repeat of test2)."""
    form, endings = FORMS[space]
    runs, missing = [], []
    for repeat in range(1, film.repeats + 1):
        names = [folder / film.name / form / f"{film.name}_{repeat}{end}" for end in endings]
        path = next(filter(is_fetched, names), None)
        if path is None:
            missing.append(str(repeat))
            continue
        try:
            runs.append(_run(path, subject, film, repeat, mesh))
        except DataError as error:
            problems.add(error)
    if len(missing) == film.repeats:
        problems.missing.run(subject, film.name)
    elif missing:
        plural = "s" if missing[1:] else ""
        problems.missing.run(subject, f"{film.name} (repeat{plural} {listed(missing)})")
    return runs


def _run(
    path: Path, subject: str, film: _Film, repeat: int, mesh: Callable[[], surfaces.Surfaces]
) -> Run:
    # The step that the header states is not looked at: it is known here.
    volumes, _, sides = header_of(path)
    if volumes not in DROPPED:
        raise DataError(f"{path}: {volumes} volumes, must be {' or '.join(map(str, DROPPED))}")
    before, after = DROPPED[volumes]
    # Of volumes, the header tells no hemispheres: they are sampled.
    read = partial(cifti, path) if sides else partial(volume, path, mesh())
    return Run(
        subject=subject,
        name=f"{film.name}_{repeat}",
        split=film.split,
        repetition_time=REPETITION_TIME,
        start_time=0.0,
        trials=tuple(trial for trial, _ in cut(_showing(film, repeat), seconds=CLIP_SECONDS)),
        scans=(path,),
        files=(path,),
        blocks=partial(trimmed, read, path, before, 0),
        tail=after,  # the answer to the last clips lies there
        sides=sides,
        dropped=(before, 0),
    )


# The authors take a polynomial out of every run before they z-score it (SPEC §5.4).
LAYOUTS.register(Layout("wen2018", read_study, clean=config.Cleaning(polynomial=4)))
