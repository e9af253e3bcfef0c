"""A new subject's layer told by his anatomy, with no fMRI: the command, what it leaves, errors."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glfa_jax import alignments, config, system
from glfa_jax.alignments import warping
from glfa_jax.alignments.warp import Warp
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.method import data_of, method_name
from glfa_jax.stages import adapt, common_space, cotrain
from glfa_jax.subject_alignment import encoder_for, layer_for, validate_layer
from tests import stores
from tests.stages import tiny
from tests.stages.variants import load_trained, settings_of, store_trained

TRAINED, NEW = ("01", "02", "03", "04"), "05"
SIDE = tiny.SIDE
MASK = np.zeros((SIDE, SIDE), bool)
MASK[1:-1, 1:7] = MASK[1:-1, 9:15] = True
CORTEX = warping.hemispheres(MASK)
METHOD = Warp(grid=6)
SETS = ("evaluation.adapted_minutes=0", "adapt.method=anatomy")


def anatomy_of(subject: str) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(int(subject)).standard_normal((2, SIDE, SIDE))
    smooth = gaussian_filter(drawn, (0, 3, 3), mode="wrap")
    smooth -= smooth[:, MASK].mean(1)[:, None, None]
    smooth /= smooth[:, MASK].std(1)[:, None, None]
    return dict(zip(("curv", "myelinw"), smooth * MASK, strict=True))


def displaced(subject: str) -> np.ndarray:
    """As anatomy tells: down by one map, outwards by the other; rows and columns first."""
    maps = anatomy_of(subject)
    return np.stack([maps["curv"], maps["myelinw"] * (CORTEX[1] - CORTEX[0])])


def write_store(path: Path, *, subjects=(*TRAINED, NEW), without=(), only=()) -> Store:
    """without: subjects who have no anatomy. only: who have one map of their own and no other."""
    rng = np.random.default_rng(0)
    clips = {"train": 12, "test": 4}
    shape = (tiny.WINDOW, SIDE, SIDE)
    maps = {
        subject: {
            split: (rng.standard_normal((n, *shape)) * MASK).astype(np.float16)
            for split, n in clips.items()
        }
        for subject in subjects
    }
    anatomy = {subject: anatomy_of(subject) for subject in subjects if subject not in without}
    anatomy |= {subject: {"sulc": anatomy_of(subject)["curv"]} for subject in only}
    return stores.write_store(
        path,
        identity=path.stem,
        mask=MASK,
        videos={split: np.zeros((n, tiny.FRAMES, 8, 8, 3), np.uint8) for split, n in clips.items()},
        maps=maps,
        anatomy=anatomy,
    )


def trained(run_dir: Path, store: Store, *, subjects=TRAINED, alike=False) -> config.Config:
    """A finished run whose training subjects are displaced as their anatomy tells, or all alike."""
    settings = settings_of(
        run_dir,
        store,
        alignment={"method": "warp", "per_subject": True, "options": {"grid": METHOD.grid}},
        protocol={"train_subjects": subjects, "test_subjects": [NEW]},
        without=["contrast", "pretrain"],
    )
    plain = {"cortex": CORTEX, "amplitude": {"gain": np.ones((SIDE, SIDE), np.float32)}}
    for subject in subjects:
        shift = displaced(subjects[0] if alike else subject)
        nodes = warping.nodes_of(shift, CORTEX, grid=METHOD.grid)
        folder = system.model_folder(settings, common_space.NAME) / subject
        about = {"data": store.attributes.identity}
        METHOD.save(folder, plain | {"displacement": nodes}, maps_shape=MASK.shape, about=about)
    store_trained(settings)
    module, params = cotrain.build_encoder(settings, store)
    folder = system.model_folder(settings, "cotrain") / "encoder"
    alignments.save_encoder(folder, module, jax.device_get(params))
    return settings


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_store(tmp_path_factory.mktemp("anatomy") / "store.zarr")


@pytest.fixture(scope="module")
def fitted(store, tmp_path_factory) -> config.Config:
    settings = trained(tmp_path_factory.mktemp("run"), store)
    adapt.main(settings, subject=NEW, method="anatomy")
    return settings


def test_the_displacement_of_a_new_subject_is_told_by_his_anatomy(fitted):
    own = config.overridden(fitted, SETS)
    encoder = load_trained(own)
    layer = layer_for(own, encoder, subject=NEW)
    assert layer is not None
    found = layer.method.shift(layer.params, maps_shape=MASK.shape)[MASK]
    wanted = np.moveaxis(displaced(NEW), 0, -1)[MASK]
    theirs = np.mean([np.moveaxis(displaced(s), 0, -1)[MASK] for s in TRAINED], axis=0)
    left = np.square(found - wanted).sum()
    assert left < 0.5 * np.square(wanted - theirs).sum()  # than who takes the mean of the others
    maps = np.random.default_rng(0).standard_normal((2, SIDE, SIDE)).astype(np.float32) * MASK
    decoded = alignments.align(encoder_for(own, encoder, subject=NEW), maps)
    module = layer.method.layer(MASK.shape)
    np.testing.assert_allclose(decoded, module.apply({"params": layer.params}, maps), atol=1e-6)
    assert np.abs(decoded - maps).max() > 0.1


def test_it_is_called_anatomy_and_names_no_minutes(fitted):
    own = config.overridden(fitted, SETS)
    assert data_of(own) == "anatomy"
    assert method_name(own).endswith(", fitted to anatomy alone")
    assert system.results_folder(own) == fitted.run_dir / "adapted-anatomy"
    folder = fitted.run_dir / "adapt" / f"{NEW}-anatomy"
    about = json.loads((folder / "model" / "config.json").read_text())
    assert about["fitted_to"] == "anatomy"
    assert about["anatomy"] == ["curv", "myelinw"]
    assert (about["minutes"], about["clips"]) == (0, 0)
    assert 0.3 < about["report"]["left_out"] < 1
    page = (folder / "index.html").read_text()
    for said in (
        f"A layer (anatomy) was fitted to the anatomy of subject {NEW}",
        "2 maps: curv, myelinw",
        f"{about['report']['left_out']:.2f} of the variance of their displacement",
        "4 training subjects are few to learn from",
        "No fMRI of the subject was read",
    ):
        assert said in page


def test_what_is_fitted_is_not_fitted_again(fitted, capsys):
    model = fitted.run_dir / "adapt" / f"{NEW}-anatomy" / "model" / "config.json"
    before = model.stat().st_mtime_ns
    adapt.main(fitted, subject=NEW, method="anatomy", minutes=0.0)
    assert model.stat().st_mtime_ns == before
    said = capsys.readouterr().out
    assert "--set evaluation.adapted_minutes=0 --set adapt.method=anatomy" in said


def test_a_subject_of_another_store_has_his_anatomy_there(store, tmp_path):
    settings = trained(tmp_path, store)
    new = write_store(tmp_path / "new.zarr", subjects=("06",))
    protocol = {"test_store": new.path, "test_subjects": ("06",)}
    protocol = settings.protocol.model_copy(update=protocol)
    settings = settings.model_copy(update={"protocol": protocol})
    adapt.main(settings, subject="06", method="anatomy")
    assert (tmp_path / "adapt" / "on-new" / "06-anatomy" / "index.html").exists()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"method": "anatomy", "minutes": 4.0}, "--minutes: 4, but anatomy needs no fMRI of"),
        ({"method": "anatomy", "data": "paired"}, "adapt.data: paired, but anatomy is fitted to n"),
        ({"method": "anatomy", "encoder": True}, "adapt.encoder.steps: must be 0 with anatomy"),
        ({"method": "ridge"}, "--minutes: must be above 0, as ridge is fitted to fMRI"),
        ({"minutes": 0.0}, "--minutes: 0, but must be above 0, as warp is fitted to fMRI"),
    ],
)
def test_minutes_and_data_must_go_with_the_method(fitted, chosen, said):
    with pytest.raises(InputError, match=re.escape(said)):
        adapt.main(fitted, subject=NEW, **chosen)


@pytest.mark.parametrize(
    ("stored", "run", "said"),
    [
        ({"without": (NEW,)}, {}, f"store.zarr: has no maps of the anatomy of subject {NEW}"),
        ({"without": ("02",)}, {}, "store.zarr: has no maps of the anatomy of subject 02"),
        ({"only": ("03",)}, {}, "no map of anatomy is there of all (05: curv, myelinw; 01: curv"),
        ({}, {"subjects": TRAINED[:2]}, "protocol.train_subjects: are 2, but anatomy learns from"),
        ({}, {"alike": True}, "its alignment (warp) displaces all training subjects alike or none"),
    ],
)
def test_what_anatomy_cannot_learn_from_is_said(tmp_path, stored, run, said):
    settings = trained(tmp_path / "run", write_store(tmp_path / "store.zarr", **stored), **run)
    with pytest.raises(InputError, match=re.escape(said)):
        adapt.main(settings, subject=NEW, method="anatomy")


def test_a_run_by_glfa_has_nothing_to_learn_from(store, tmp_path):
    protocol = {"train_subjects": TRAINED, "test_subjects": [NEW]}
    settings = settings_of(tmp_path, store, protocol=protocol)
    store_trained(settings)
    with pytest.raises(
        InputError, match=r"its alignment .glfa. displaces all training subjects al"
    ):
        adapt.main(settings, subject=NEW, method="anatomy")


def test_it_serves_new_subjects_alone(store, tmp_path):
    alignment = {"method": "anatomy", "per_subject": True}
    settings = settings_of(tmp_path, store, alignment=alignment)
    with pytest.raises(
        InputError, match=r"alignment\.method: anatomy learns from how training sub"
    ):
        alignments.configured(settings)


def test_minutes_of_results_go_with_the_method_too(fitted):
    four = config.overridden(fitted, [*SETS, "evaluation.adapted_minutes=4"])
    with pytest.raises(InputError, match="adapted_minutes: 4, but anatomy needs no fMRI"):
        validate_layer(four, subject=NEW)
    missing = config.overridden(fitted, [*SETS, f"run_dir={fitted.run_dir / 'elsewhere'}"])
    with pytest.raises(InputError, match=f"no layer was fitted to the anatomy of subject {NEW}"):
        validate_layer(missing, subject=NEW)
    with pytest.raises(InputError, match=r"adapted_minutes: 0, must be above 0 unless adapt\.meth"):
        config.overridden(fitted, ["evaluation.adapted_minutes=0"])
