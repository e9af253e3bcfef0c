"""Studies in harder worlds, as files: written, described, read and prepared."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.config import Simulation
from glfa_jax.preparation import prepare
from glfa_jax.simulate import study
from glfa_jax.simulate.cortex import visual_cortex

HARD = Simulation(
    subjects=2,
    train_runs=1,
    test_runs=1,
    clips_per_run=4,
    test_repeats=1,
    patchwise=0.2,
    anatomy=0.6,
    tuning_noise=0.2,
    reliability=0.2,
    own_clips=("02",),
    shared_share=0.5,
)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Studies in which every fourth vertex answers, written in a quarter of the time."""
    cortex = visual_cortex()
    thin = {name: getattr(cortex, name)[::4] for name in ("vertices", "side", "canonical")}

    def written(simulation: Simulation):
        root = tmp_path_factory.mktemp("world") / "study"
        study.write_study(simulation, root, progress=False)
        return root

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "visual_cortex", lambda: replace(cortex, **thin))
        yield written


@pytest.fixture(scope="module")
def hard(write):
    return write(HARD)


@pytest.fixture(scope="module")
def eight(write):
    return write(HARD.model_copy(update={"subjects": 8}))


def test_a_subject_is_the_same_among_two_and_among_eight(hard, eight):
    assert len(list(eight.glob("sub-*"))) == 8
    both = [path for path in hard.rglob("*") if path.is_file()]
    assert any("anat" in path.parts for path in both)
    for path in both:
        if path.name not in ("dataset_description.json", "participants.tsv"):
            assert (eight / path.relative_to(hard)).read_bytes() == path.read_bytes(), path


def test_the_world_is_described(hard):
    text = (hard / "README").read_text(encoding="utf-8")
    assert f"This world: {HARD.world}." in text
    for name in ("area", "tuned_as", "curvature", "myelin", "anatomy_says", "own_share"):
        assert name in text
        with np.load(hard / "ground_truth" / "sub-01.npz") as truth:
            assert len(truth[name]) == len(truth["gain"])
    about = json.loads((hard / "dataset_description.json").read_text(encoding="utf-8"))
    assert Simulation(**about["GeneratedBy"][0]["Settings"]) == HARD


def test_the_truth_says_how_reliable_and_how_idiosyncratic_a_subject_is(hard):
    for name in HARD.names:
        with np.load(hard / "ground_truth" / f"sub-{name}.npz") as truth:
            assert np.mean(truth["noise_ceiling"] ** 2) == pytest.approx(HARD.reliability)
            assert truth["own_share"].mean() == pytest.approx(HARD.tuning_noise, abs=0.1)
            assert truth["own_share"].min() > 0


def test_maps_of_anatomy_lie_beside_the_scans(hard):
    with np.load(hard / "ground_truth" / "canonical.npz") as truth:
        vertices = truth["vertices"]
    with np.load(hard / "ground_truth" / "sub-02.npz") as truth:
        for name, suffix in (("curvature", "curv"), ("myelin", "myelinw")):
            images = [
                nibabel.load(
                    hard / f"sub-02/anat/sub-02_hemi-{side}_space-fsaverage5_{suffix}.shape.gii"
                )
                for side in "LR"
            ]
            assert images[1].meta["AnatomicalStructurePrimary"] == "CortexRight"
            assert images[1].darrays[0].intent == 2005  # NIFTI_INTENT_SHAPE
            whole = np.concatenate([image.darrays[0].data for image in images])
            np.testing.assert_allclose(whole[vertices], truth[name], rtol=1e-6)
            assert np.count_nonzero(whole) == len(vertices)


def test_subjects_who_saw_different_clips_are_prepared(eight, tmp_path):
    data = config.Data(
        root=eight,
        store=tmp_path / "store.zarr",
        simulation=HARD.model_copy(update={"subjects": 8}),
        subjects=("01", "02", "08"),
        map_size=32,
        resolution=(64, 64),
        workers=1,
    )
    store = prepare(data, progress=False)
    files = [clip.rsplit("/", 1)[-1] for clip in store.attributes.clips["train"]]
    assert len(files) == 6
    assert store.attributes.anatomy == {who: ["curv", "myelinw"] for who in ("01", "02", "08")}
    present = store.present("train", subjects=["01", "02", "08"])
    own = np.array([file.startswith("sub-02") for file in files])
    shared = np.array([file in ("train_0000.mp4", "train_0001.mp4") for file in files])
    np.testing.assert_array_equal(present[:, 0], ~own)
    np.testing.assert_array_equal(present[:, 1], own | shared)
    np.testing.assert_array_equal(present[:, 2], ~own)
    assert store.present("test", subjects=["01", "02", "08"]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "smooth"),
        ({"displacement": 0, "patchwise": 0.2}, "patchwise 0.2"),
        ({"patchwise": 0.2}, "smooth and patchwise 0.2"),
        ({"displacement": 0}, "not displaced"),
        ({"reliability": 0.2}, "smooth, reliability 0.2"),
        ({"anatomy": 0.0}, "smooth, anatomy 0"),
        ({"tuning_noise": 0.3}, "smooth, tuning noise 0.3"),
        ({"own_clips": ("03",), "shared_share": 0.5}, "smooth, own clips of 03, shared share 0.5"),
    ],
)
def test_a_world_has_a_name(options, said):
    assert Simulation(**options).world == said


def test_equal_brains_differ_in_gain_and_noise_alone():
    equal = HARD.equal_brains
    assert equal.world == "not displaced, anatomy 0.6, reliability 0.2, own clips of 02, " + (
        "shared share 0.5"
    )
    assert equal.mixing == 0
