"""Who sees which clips: the same for all, or clips of their own in training."""

import numpy as np
import pytest

from glfa_jax.config import Simulation
from glfa_jax.simulate.plan import draw_clips, plan_runs, seen_by

OWN = Simulation(
    subjects=4,
    train_runs=3,
    test_runs=2,
    clips_per_run=40,
    own_clips=("03", "04"),
    shared_share=0.25,
)


def _files(simulation: Simulation, subject: str) -> list[str]:
    clips = draw_clips(simulation)
    return [clips[number].file for number in seen_by(subject, simulation=simulation)]


def test_own_clips_are_nobody_elses_and_the_shared_share_is_everybodys():
    first, second, third, fourth = (_files(OWN, name) for name in OWN.names)
    assert first == second
    for subject, files in (("03", third), ("04", fourth)):
        assert files[120:] == first[120:]  # test clips
        for run in range(3):
            part = slice(40 * run, 40 * run + 40)
            assert len(set(first[part]) & set(files[part])) == 10
        own = set(files) - set(first)
        assert len(own) == 90
        assert all(file.startswith(f"sub-{subject}_train_") for file in own)
    assert set(third) & set(fourth) == set(third) & set(first)


def test_own_clips_show_no_combination_of_the_test_clips():
    def shown(clips) -> set[tuple[str, str, str]]:
        return {(c.scene.category, c.scene.colour, c.scene.motion) for c in clips}

    clips = draw_clips(Simulation(own_clips=("01",), train_runs=8))
    test = shown(clip for clip in clips if clip.file.startswith("test"))
    own = [clip for clip in clips if clip.file.startswith("sub-01")]
    assert len(own) == 8 * 40
    assert not shown(own) & test
    assert len({(c.scene.x, c.scene.y, c.scene.phase) for c in clips}) == len(clips)


def test_own_clips_do_not_depend_on_who_else_has_some():
    alone = OWN.model_copy(update={"subjects": 8, "own_clips": ("04",)})
    both = {clip.file: clip.scene for clip in draw_clips(OWN)}
    for clip in draw_clips(alone):
        assert both[clip.file] == clip.scene
    assert _files(alone, "04") == _files(OWN, "04")


def test_runs_show_them_in_the_same_order_and_drive_what_they_show():
    clips = draw_clips(OWN)
    drives = [np.full((6, 1), number + 1.0) for number in range(len(clips))]
    common, own = (plan_runs(OWN, drives, subject=subject) for subject in (None, "03"))
    seen = seen_by("03", simulation=OWN)
    for theirs, ours in zip(common, own, strict=True):
        np.testing.assert_array_equal(ours.clips, seen[theirs.clips])
        np.testing.assert_array_equal(ours.onsets, theirs.onsets)
        differs = not np.array_equal(ours.drive, theirs.drive)
        assert differs == (ours.split == "train")
    # Clips of the third subject have higher numbers, so that each drives more.
    assert own[0].drive.sum() > common[0].drive.sum()


def test_all_training_clips_may_be_shared_or_none():
    for share, own in ((0.0, 120), (1.0, 0)):
        simulation = OWN.model_copy(update={"shared_share": share})
        assert len(set(_files(simulation, "03")) - set(_files(simulation, "01"))) == own


def test_own_clips_of_somebody_unknown_are_rejected():
    with pytest.raises(ValueError, match="own_clips: 05 is none of 01, 02, 03, 04"):
        Simulation(subjects=4, own_clips=("03", "05"))
    with pytest.raises(ValueError, match="own_clips: each may be named once"):
        Simulation(own_clips=("03", "03"))
