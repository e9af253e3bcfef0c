"""BOLD Moments (Lahner et al. 2024, OpenNeuro ds005165): clips of 3 s, ten subjects, TR 1.75 s.

derivatives/versionB/fmriprep/sub-01/ses-02/func/sub-01_ses-02_task-train_run-1_...
    ..._hemi-{L,R}_space-fsaverage_bold.func.gii            163,842 vertices a hemisphere
    ..._space-fsLR_den-91k_bold.dtseries.nii
    ..._space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz
[Nifti/]sub-01/ses-02/func/sub-01_ses-02_task-train_run-1_events.tsv
                                          onset duration trial_type stim_file (train/0001.mp4)
derivatives/stimuli_metadata/annotations.json          {"0001": {"text_descriptions": [...]}}
derivatives/stimuli_metadata/stimuli/train/0001.mp4    or another of the folders in STIMULI

Sessions 2 to 5 show 1,000 training clips three times (`task-train`) and 102 test clips ten times
(`task-test`); which showing it is follows from the order of the runs. Session 1 is a localizer.
Odd ones out, to be told by a button, and fixations are no trials, whatever their `stim_file`.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError, surfaces
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import LAYOUTS, SPLITS, Layout, Problems, Run, Study
from glfa_jax.data.layouts.beside import Beside
from glfa_jax.data.layouts.bids import Reader
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.layouts.cutting import numbered
from glfa_jax.data.layouts.dividing import Division
from glfa_jax.data.layouts.naming import Dataset
from glfa_jax.data.readers import header_of
from glfa_jax.data.timing import TIME_TOLERANCE
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched, read_object

REPETITION_TIME = 1.75
VOLUMES = {"train": 238, "test": 268}
SPACES = ("fsLR", "fsaverage", "MNI152NLin2009cAsym")  # fMRIPrep's that all subjects share
DERIVATIVE = "derivatives/versionB/fmriprep"
ANNOTATIONS = "derivatives/stimuli_metadata/annotations.json"
# The clips come from another server than the scans, as an archive to be unpacked anywhere.
STIMULI = (
    "derivatives/stimuli_metadata/stimuli",
    "derivatives/stimuli_metadata/mp4_h264",
    "stimuli/stimulus_set/stimuli",
    "stimuli",
)
ODD_ONE_OUT = "oddball"  # trial_type of what is to be told by a button
DESCRIPTIONS = "text_descriptions"  # of the whole clip, by people; five a clip


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    if data.space not in SPACES:
        raise DataError(
            f"data.space: must be one of {', '.join(SPACES)} for layout bold_moments, is "
            f"{data.space}"
        )
    derivative = data.root / DERIVATIVE
    if not derivative.is_dir():
        raise DataError(
            f"{derivative}: no such folder; layout bold_moments reads what fMRIPrep wrote there "
            "(version B of the set)"
        )
    captions_file = data.captions or data.root / ANNOTATIONS
    annotated = captions_file.suffix == ".json"
    if annotated:
        texts = read_annotations(captions_file)
    else:
        texts = read_captions(captions_file, failed=problems.add)
    nifti = data.root / "Nifti"
    by_task = config.Split(by="run", test=("task-test",))
    notes: list[str] = []
    reader = Reader(
        data.model_copy(update={"root": derivative, "task": SPLITS}),
        stimuli=data.root / STIMULI[0],
        beside=Beside(Dataset(derivative), Dataset(nifti if nifti.is_dir() else data.root)),
        mesh=cache(lambda: surfaces.load(data)),  # only volumes need it
        filmed=None,
        division=Division(by_task, lag=data.lag_seconds, window=data.window),
        problems=problems,
        notes=notes,
        passed_over=(ODD_ONE_OUT,),
    )
    runs = [run for subject in data.subjects for run in reader.runs(subject)]
    runs = numbered(list(_checked(runs, problems)))
    clips = dict.fromkeys(trial.clip for run in runs for trial in run.trials)
    return with_clips(
        runs,
        videos={clip: Part(_video(data.root, clip)) for clip in clips},
        captions=_by_clip(texts, clips) if annotated else texts,
        captions_file=captions_file,
        problems=problems,
        notes=list(dict.fromkeys(notes)),
    )


def read_annotations(path: Path) -> dict[str, str]:
    """One sentence for each clip by its number, of `annotations.json` or of the frames' captions.

    The first of the descriptions of the whole clip; in `llm_frame_annotations.json`, which has none
    of these, the first caption of the middle frame. Clips without text are left out.
    """
    found: dict[str, str] = {}
    for number, entry in read_object(path, error=DataError).items():
        if not isinstance(entry, dict):
            raise DataError(
                f"{path}: must hold an object for each clip, such as "
                f'{{"{DESCRIPTIONS}": [...]}}, holds {entry!r:.50} for {number}'
            )
        lists = [entry[DESCRIPTIONS]] if DESCRIPTIONS in entry else list(entry.values())[:1]
        texts = lists[0] if lists and isinstance(lists[0], list) else []
        text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
        if text is not None:
            found[number] = " ".join(text.split())
    if not found:
        raise DataError(f"{path}: describes no clip; the set's {Path(ANNOTATIONS).name} does")
    return found


def _by_clip(texts: Mapping[str, str], clips: Iterable[str]) -> dict[str, str]:
    numbers = {clip: Path(clip).stem for clip in clips}
    return {clip: texts[number] for clip, number in numbers.items() if number in texts}


def _checked(runs: Iterable[Run], problems: Problems) -> Iterator[Run]:
    """The runs of the known length and repetition time."""
    for run in runs:
        volumes = header_of(run.scans[0]).volumes  # 0: GIFTI does not tell
        if abs(run.repetition_time - REPETITION_TIME) > TIME_TOLERANCE:
            problems.add(
                DataError(
                    f"{run.scans[0]}: TR {run.repetition_time:g} s, must be {REPETITION_TIME} s as "
                    "in all of BOLD Moments"
                )
            )
        elif volumes not in (0, VOLUMES[run.split]):
            problems.add(
                DataError(
                    f"{run.scans[0]}: {volumes} volumes, must be {VOLUMES[run.split]} in a "
                    f"{run.split} run"
                )
            )
        else:
            yield run


def _video(root: Path, clip: str) -> Path:
    """Where it lies; one of the folders holds all clips without `train/` and `test/`."""
    places = [root / folder / name for folder in STIMULI for name in (clip, Path(clip).name)]
    return next(filter(is_fetched, places), places[0])


LAYOUTS.register(Layout("bold_moments", read_study, timed_by_events=True))
