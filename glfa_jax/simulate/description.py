"""What a simulated study says about itself: how it was made, and what lies where."""

from importlib.metadata import version
from pathlib import Path

from glfa_jax import config
from glfa_jax.simulate.artefacts import asked
from glfa_jax.simulate.writing import write_json, write_table

GENERATOR = "glfa_jax.simulate"


def write_description(root: Path, simulation: config.Simulation) -> None:
    """`dataset_description.json`, `participants.tsv` and `README`."""
    write_json(
        root / "dataset_description.json",
        {
            "Name": "Simulated video-fMRI study",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [
                {
                    "Name": GENERATOR,
                    "Version": version("glfa_jax"),
                    "Settings": simulation.comparable(),
                }
            ],
        },
    )
    subjects = [{"participant_id": f"sub-{name}"} for name in simulation.names]
    write_table(root / "participants.tsv", subjects)
    (root / "README").write_text(_readme(simulation), encoding="utf-8")


def _readme(simulation: config.Simulation) -> str:
    """In worlds with more than the first one had, what is there besides."""
    more = {
        _PATCHWISE: simulation.patchwise,
        _ANATOMY: simulation.anatomy is not None,
        _TUNING_NOISE: simulation.tuning_noise,
        _RELIABILITY: simulation.reliability,
        _OWN_CLIPS: simulation.own_clips,
        _ARTEFACTS: asked(simulation),
    }
    added = [text for text, there in more.items() if there]
    if not added:
        return _README
    return "".join([_README, f"\nThis world: {simulation.world}.\n", *added])


_README = """Simulated fMRI of people who watch short captioned clips, written by glfa_jax.simulate.

sub-*/func     BOLD on fsaverage5, whole numbers around 10000, zero outside the visual region;
               events.tsv says which clip was shown when (trial_type train or test; test clips are
               repeated in further runs).
stimuli        the clips, and captions.tsv with caption, labels and place of the object.
ground_truth   canonical.npz: vertices of the visual region (left then right hemisphere), side
               (-1 left, 1 right), canonical coordinates (mm forward from the posterior border, mm
               up), share of the early, middle and higher part.
               sub-*.npz, over the same vertices: displacement (mm forward, up; a vertex has the
               canonical tuning of its place + displacement), patches (around patch_target, the
               share patch_weight of the signal, fading as a Gaussian, comes from the same offset
               around patch_source), gain, noise (over the signal's standard deviation),
               noise_ceiling (correlation of a volume with the noiseless signal).
"""

_PATCHWISE = """
Displacement with sharp borders is part of displacement. sub-*.npz also has area (number of the area
that a vertex lies in, the same for all subjects) and tuned_as (the area whose tuning it has,
another one where two have swapped places).
"""

_ANATOMY = """
sub-*/anat     maps of curvature (curv, 1/mm) and myelin (myelinw, T1w over T2w), zero outside the
               visual region. sub-*.npz has them over its vertices (curvature, myelin), and
               anatomy_says (forward, up): the function of both maps, the same for all subjects,
               with which the smooth displacement correlates by the setting anatomy.
"""

_TUNING_NOISE = """
A part of the tuning is no other subject's; the displacement tells the rest. sub-*.npz has own_share
(its share of the signal's variance).
"""

_RELIABILITY = """
The noise of each subject is such that the correlation of two repeats of a run, the square of
noise_ceiling, has the mean over vertices that the setting reliability names. Repeats of clips in
another order, as in the test runs, correlate less, because answers to neighbouring clips overlap.
"""

_OWN_CLIPS = """
Subjects named in the setting own_clips see stimuli sub-*_train_* in training that nobody else sees,
but for the share shared_share.
"""

_ARTEFACTS = """
Scans hold drift, what follows the head's motion, or volumes that a jerk of it spoils, by the
settings drift, motion and spikes. sub-*/func/*_desc-confounds_timeseries.tsv holds the confounds,
named as fMRIPrep names them. noise_ceiling and reliability are those of scans without these
artefacts.
"""
