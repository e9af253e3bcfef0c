import itertools

import numpy as np
import pytest

from glfa_jax.config import Simulation
from glfa_jax.simulate import subjects as simulated
from glfa_jax.simulate.bold import (
    NOISE_MEMORY,
    NOISE_SCALE,
    convolution,
    correlated_noise,
    haemodynamic_response,
    noise_for,
)
from glfa_jax.simulate.cortex import visual_cortex
from glfa_jax.simulate.stimuli import CATEGORIES, COLOURS, MOTIONS, Scene, render, sample_scene
from glfa_jax.simulate.tuning import canonical_tuning, features, own_weights

LABELS = {"category": CATEGORIES, "colour": COLOURS, "motion": MOTIONS}
TRAIN, TEST, WINDOW, LAG = 192, 64, 5, 4


@pytest.fixture(scope="module")
def cortex():
    return visual_cortex()


@pytest.fixture(scope="module")
def tuning(cortex):
    return canonical_tuning(cortex, seed=0)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, i) for i in range(TRAIN + TEST)]
    return scenes, [features(scene, render(scene)) for scene in scenes]


def _scene(**changes) -> Scene:
    fields = {
        "category": "ball",
        "colour": "red",
        "motion": "still",
        "background": "sky",
        "size": "small",
        "x": 0.5,
        "y": 0.5,
    }
    return Scene(**{**fields, **changes})


def _answer(tuning, scene) -> np.ndarray:
    """Of every vertex of the canonical cortex to a clip, averaged over its frames."""
    weights = tuning.weights(tuning.cortex.canonical, tuning.cortex.side)
    return features(scene, render(scene)).mean(axis=0) @ weights


def test_each_label_drives_its_part_of_the_cortex(cortex, tuning):
    parts = cortex.parts(cortex.canonical) > 0.95
    plain = _answer(tuning, _scene())
    for change, driven, silent in (
        ({"category": "star"}, 2, 1),
        ({"motion": "spin"}, 1, 2),
        ({"background": "sea"}, 2, 1),
        ({"x": 0.8}, 0, 2),
    ):
        difference = np.abs(_answer(tuning, _scene(**change)) - plain)
        assert difference[parts[:, driven]].mean() > 8 * difference[parts[:, silent]].mean(), change


def test_the_early_part_sees_the_opposite_half_of_the_image(cortex, tuning):
    early = cortex.parts(cortex.canonical)[:, 0] > 0.95
    left, right = (_answer(tuning, _scene(x=x)) for x in (0.2, 0.8))
    for side in (-1, 1):
        here = early & (cortex.side == side)
        assert np.sign((right - left)[here].mean()) == -side


def test_tuning_changes_smoothly_over_the_cortex(cortex, tuning):
    there = cortex.canonical + np.array([1.0, 0.0])
    here = tuning.weights(cortex.canonical, cortex.side)
    beside = tuning.weights(there, cortex.side)
    far = tuning.weights(cortex.canonical + np.array([0.0, 30.0]), cortex.side)
    assert np.std(beside - here) < 0.3 * np.std(far - here)


def test_without_differences_a_subject_is_the_canonical_cortex(cortex, tuning):
    plain = Simulation(displacement=0, mixing=0, gain=0)
    subject = simulated.draw_subject(plain, tuning, index=0)
    expected = tuning.weights(cortex.canonical, cortex.side)
    np.testing.assert_array_equal(subject.weights, expected)
    assert subject.noise == plain.noise


def test_displacement_has_the_size_asked_for_is_smooth_and_moves_the_tuning(cortex, tuning):
    moved = simulated.draw_subject(Simulation(displacement=5.0, mixing=0, gain=0), tuning, index=1)
    assert np.sqrt((moved.displacement**2).sum(axis=1).mean()) == pytest.approx(5.0)
    np.testing.assert_allclose(
        moved.weights, tuning.weights(cortex.canonical + moved.displacement, cortex.side)
    )
    left = cortex.side < 0
    places, shift = cortex.canonical[left], moved.displacement[left]
    way = np.linalg.norm(places - places[1000], axis=1)
    step = np.linalg.norm(shift - shift[1000], axis=1)
    assert step[way < 4].max() < 3.0


def test_a_mixed_patch_hears_the_same_offset_around_its_source(cortex, tuning, monkeypatch):
    monkeypatch.setattr(simulated, "MIXED_PATCHES", 1)
    mixed = simulated.draw_subject(Simulation(displacement=0, mixing=0.6, gain=0), tuning, index=0)
    (target,), (source,) = mixed.patch_target, mixed.patch_source
    assert np.linalg.norm(target - source) > simulated.LEAST_DISTANCE
    offset = cortex.canonical - target
    way = np.linalg.norm(offset, axis=1)
    same_side = cortex.side == mixed.patch_target_side[0]
    plain = tuning.weights(cortex.canonical, cortex.side)
    for vertex in np.flatnonzero(same_side)[np.argsort(way[same_side])[[0, 5, 80]]]:
        share = 0.6 * np.exp(-0.5 * (way[vertex] / simulated.PATCH_RADIUS) ** 2)
        foreign = tuning.weights(source[None] + offset[vertex], mixed.patch_source_side)[:, 0]
        expected = (1 - share) * plain[:, vertex] + share * foreign
        np.testing.assert_allclose(mixed.weights[:, vertex], expected, atol=1e-12)
    far = ~same_side | (way > 4 * simulated.PATCH_RADIUS)
    np.testing.assert_array_equal(mixed.weights[:, far], plain[:, far])


def test_subjects_differ_are_seeded_and_do_not_depend_on_how_many_there_are(tuning):
    one, again = (simulated.draw_subject(Simulation(), tuning, index=1) for _ in range(2))
    more = simulated.draw_subject(Simulation(subjects=9), tuning, index=1)
    other = simulated.draw_subject(Simulation(), tuning, index=2)
    np.testing.assert_array_equal(one.weights, again.weights)
    np.testing.assert_array_equal(one.weights, more.weights)
    assert np.abs(one.displacement - other.displacement).mean() > 1
    assert one.noise != other.noise
    assert np.std(one.gain) > 0.02


def test_own_tuning_has_the_share_asked_for_and_leaves_the_rest_as_it_is(tuning, clips):
    plain, own = (
        simulated.draw_subject(
            Simulation(displacement=0, mixing=0, tuning_noise=share), tuning, index=1
        )
        for share in (0.0, 0.3)
    )
    assert plain.own is None
    shared = own.weights - own.own
    np.testing.assert_allclose(shared[0], plain.weights[0])  # the answer to any clip
    np.testing.assert_allclose(shared[1:], np.sqrt(0.7) * plain.weights[1:], atol=1e-12)
    drive = np.concatenate(clips[1])[:, 1:]
    power = [np.var(drive @ weights[1:], axis=0) for weights in (own.own, shared)]
    for part in tuning.cortex.parts(tuning.cortex.canonical).T > 0.95:
        share = power[0][part].sum() / (power[0] + power[1])[part].sum()
        assert share == pytest.approx(0.3, abs=0.06)


def test_own_tuning_is_no_other_subjects(tuning, clips):
    drive = np.concatenate(clips[1])
    cortex = tuning.cortex
    answers = [drive @ own_weights(cortex, seed=0, index=index)[:, ::7] for index in range(4)]
    answers.append(drive @ tuning.weights(cortex.canonical, cortex.side)[:, ::7])
    unit = [(answer - answer.mean(axis=0)) / answer.std(axis=0) for answer in answers]
    found = [np.mean(a * b) for a, b in itertools.combinations(unit, 2)]
    assert abs(np.mean(found)) < 0.02
    assert np.abs(found).max() < 0.08


def test_the_haemodynamic_response_peaks_at_five_seconds_and_undershoots():
    time = np.arange(0, 60, 0.01)
    response = haemodynamic_response(time)
    assert abs(time[response.argmax()] - 5.0) < 0.1
    assert 12 < time[response.argmin()] < 18
    assert response.min() < 0
    assert abs(response.sum() * 0.01 - 1) < 1e-3
    assert haemodynamic_response(np.array([-1.0]))[0] == 0


def test_convolution_answers_a_clip_after_its_onset_only():
    onsets = 10 + np.arange(6) / 3
    bold = convolution(onsets, np.arange(40.0), duration=1 / 3).sum(axis=1)
    assert (bold[:11] == 0).all()
    assert bold.argmax() in (15, 16)  # the middle of the clip is at 11 s


def test_noise_has_unit_variance_and_remembers(cortex):
    smoother = cortex.smoother(NOISE_SCALE)
    noise = correlated_noise(np.random.default_rng(0), smoother, volumes=300, repetition_time=2.0)
    assert noise.shape == (300, len(cortex.side))
    assert abs(noise.std() - 1) < 0.02
    assert abs(noise[:5].std() - 1) < 0.05
    lagged = np.mean(noise[1:] * noise[:-1])
    assert abs(lagged - NOISE_MEMORY**2) < 0.03


@pytest.mark.parametrize("reliability", [0.2, 0.6])
def test_two_noisy_repeats_correlate_as_asked_for(cortex, reliability):
    rng = np.random.default_rng(0)
    size = np.exp(0.5 * rng.standard_normal(len(cortex.side)))  # of the signal, over vertices
    signal = size * np.repeat(rng.standard_normal((200, len(size))), 2, axis=0)
    noise = noise_for(reliability, power=signal.var(axis=0))
    smoother = cortex.smoother(NOISE_SCALE)
    first, second = (
        signal + noise * correlated_noise(rng, smoother, volumes=400, repetition_time=1.0)
        for _ in range(2)
    )
    first, second = ((one - one.mean(axis=0)) / one.std(axis=0) for one in (first, second))
    assert np.mean(first * second) == pytest.approx(reliability, abs=0.02)


def test_an_image_off_the_grid_is_rejected():
    with pytest.raises(ValueError, match="multiples of 16"):
        features(_scene(), render(_scene(), size=40))


# ------------------------------------------------- what can be decoded, and by whom


def _windows(simulation, tuning, clips) -> list[np.ndarray]:
    """z-scored windows of every clip for three subjects; test clips averaged over two repeats."""
    cortex = tuning.cortex
    smoother = cortex.smoother(NOISE_SCALE)
    onsets = 4.0 * np.arange(32) + 4
    frames = (onsets[:, None] + np.arange(6) / 3).ravel()
    response = convolution(frames, np.arange(140.0), duration=1 / 3)
    order = np.random.default_rng(1).permuted(np.arange(TRAIN + TEST).reshape(-1, 32), axis=1)
    order = np.concatenate([order, order[TRAIN // 32 :]])
    drives = [response @ np.concatenate([clips[1][clip] for clip in run]) for run in order]
    canonical = tuning.weights(cortex.canonical, cortex.side)
    unit = np.sqrt(np.mean([np.var(drive @ canonical, axis=0).mean() for drive in drives]))
    kept = slice(None, None, 3)  # vertices
    out = []
    for index in range(3):
        subject = simulated.draw_subject(simulation, tuning, index=index)
        rng = np.random.default_rng([7, index])
        sums, counts = np.zeros((TRAIN + TEST, WINDOW * len(canonical[0, kept]))), np.zeros(256)
        for run, drive in zip(order, drives, strict=True):
            noise = correlated_noise(rng, smoother, volumes=140, repetition_time=1.0)
            signal = drive @ subject.weights[:, kept]
            bold = signal / unit + subject.noise * noise[:, kept]
            bold = (bold - bold.mean(axis=0)) / bold.std(axis=0, ddof=1)
            for clip, onset in zip(run, onsets.astype(int), strict=True):
                sums[clip] += bold[onset + LAG : onset + LAG + WINDOW].ravel()
                counts[clip] += 1
        out.append(sums / counts[:, None])
    return out


def _accuracy(windows, scenes, train, test) -> dict[str, float]:
    """Ridge regression onto one-hot labels, from the training clips of `train`."""
    seen = np.concatenate([windows[subject][:TRAIN] for subject in train])
    kernel = seen @ seen.T
    kernel += np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    weights = windows[test][TRAIN:] @ np.linalg.solve(kernel, seen).T
    out = {}
    for key, names in LABELS.items():
        label = np.array([names.index(getattr(scene, key)) for scene in scenes])
        target = np.tile(np.eye(len(names))[label[:TRAIN]] - 1 / len(names), (len(train), 1))
        out[key] = np.mean((weights @ target).argmax(axis=1) == label[TRAIN:])
    return out


def test_labels_are_decoded_within_subjects_and_worse_across_differing_subjects(tuning, clips):
    windows = _windows(Simulation(), tuning, clips)
    alike = _windows(Simulation(displacement=0, mixing=0), tuning, clips)
    within = [_accuracy(windows, clips[0], [s], s) for s in range(3)]
    across = [_accuracy(windows, clips[0], [0, 1], 2), _accuracy(windows, clips[0], [1, 2], 0)]
    if_alike = [_accuracy(alike, clips[0], [0, 1], 2), _accuracy(alike, clips[0], [1, 2], 0)]
    mean = {
        key: [np.mean([found[key] for found in each]) for each in (within, across, if_alike)]
        for key in LABELS
    }
    for key, (own, other, other_alike) in mean.items():
        assert own > 0.75, mean
        assert other > 0.3, mean  # chance is 0.125
        assert other_alike > 0.9, mean
        assert other < other_alike - 0.1, (key, mean)
