import itertools

import numpy as np
import pytest

from glfa_jax.simulate import stimuli
from glfa_jax.simulate.stimuli import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    FRAME_CLASSES,
    MOTIONS,
    SIZES,
    VIDEO_CLASSES,
    Scene,
    caption,
    frame_label,
    render,
    sample_scene,
    trajectory,
    video_label,
)


def _scene(**changes) -> Scene:
    fields = {
        "category": "ball",
        "colour": "red",
        "motion": "still",
        "background": "sky",
        "size": "large",
        "x": 0.5,
        "y": 0.5,
        "phase": 0.2,
    }
    return Scene(**{**fields, **changes})


def _silhouette(scene: Scene, **options) -> np.ndarray:
    """Where a clip differs between two colours: the coloured part of the object, (f, h, w)."""
    other = "blue" if scene.colour == "red" else "red"
    twin = Scene(**{**scene.__dict__, "colour": other})
    return np.abs(render(scene, **options).astype(int) - render(twin, **options)).sum(-1) > 60


def _centres(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(mask.shape[1:])
    area = mask.sum((1, 2))
    return np.stack([(mask * columns).sum((1, 2)) / area, (mask * rows).sum((1, 2)) / area], 1)


def test_a_clip_is_bytes_of_the_size_asked_for_and_repeats_itself():
    clip = render(_scene(), frames=5, size=48, frame_rate=2)
    assert clip.shape == (5, 48, 48, 3)
    assert clip.dtype == np.uint8
    assert np.array_equal(clip, render(_scene(), frames=5, size=48, frame_rate=2))


@pytest.mark.parametrize(
    ("motion", "direction"),
    [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))],
)
def test_moving_objects_travel_as_named(motion, direction):
    start = 0.5 - 0.2 * np.array(direction)
    centres = _centres(_silhouette(_scene(motion=motion, size="small", x=start[0], y=start[1])))
    way = (centres[-1] - centres[0]) / 64
    np.testing.assert_allclose(way, stimuli.TRAVEL * np.array(direction), atol=0.01)
    steps = np.diff(centres, axis=0)
    assert np.abs(steps - steps.mean(0)).max() < 0.5  # pixels


def test_growing_and_shrinking_change_the_area_and_still_changes_nothing():
    grow = _silhouette(_scene(motion="grow", size="small")).sum((1, 2))
    shrink = _silhouette(_scene(motion="shrink", size="small")).sum((1, 2))
    assert (np.diff(grow) > 0).all()
    assert (np.diff(shrink) < 0).all()
    assert grow[-1] > 3 * grow[0]
    assert (np.diff(render(_scene()).astype(int), axis=0) == 0).all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_spinning_shows_in_every_category_and_keeps_the_place(category):
    clip = render(_scene(category=category, motion="spin")).astype(int)
    changed = (np.abs(np.diff(clip, axis=0)).sum(-1) > 90).mean((1, 2))
    assert changed.min() > 0.02  # of the image from frame to frame
    radius = np.hypot(*(np.argwhere(np.abs(np.diff(clip, axis=0)).sum(-1) > 90)[:, 1:] - 31.5).T)
    assert radius.max() < 64 * stimuli.RADIUS["large"] * 1.25


def test_objects_begin_inside_the_image_and_never_leave_it_by_more_than_a_quarter():
    rng = np.random.default_rng(0)
    for index in range(64):
        scene = sample_scene(rng, index)
        mask = _silhouette(scene)
        full = mask.sum((1, 2))
        border = mask[:, [0, -1]].sum((1, 2)) + mask[:, :, [0, -1]].sum((1, 2))
        assert full.min() > 20, scene
        assert border[0] <= 0.03 * full[0], scene
        if scene.motion in stimuli.DIRECTIONS:
            assert full[-1] >= 0.7 * full[0], scene
        else:
            assert (border <= 0.03 * full).all(), scene


@pytest.mark.parametrize("motion", ["left", "right", "up", "down"])
def test_what_moves_is_mostly_on_the_side_that_it_moves_to(motion):
    rng = np.random.default_rng(1)
    scenes = [scene for _ in range(200) if (scene := sample_scene(rng)).motion == motion]
    paths = np.stack([trajectory(scene, frames=6, frame_rate=3) for scene in scenes])
    step = np.array(stimuli.DIRECTIONS[motion])
    towards = (paths[..., :2] - 0.5) @ step
    assert 0.1 < towards.mean() < 0.2
    assert (np.diff(towards, axis=1) > 0).all()


def test_silhouettes_of_categories_differ():
    masks = {c: _silhouette(_scene(category=c))[0] for c in CATEGORIES}
    for a, b in itertools.combinations(CATEGORIES, 2):
        overlap = (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum()
        assert overlap < 0.85, (a, b)


def test_colours_stand_out_from_every_background_and_from_one_another():
    for background, colour in itertools.product(BACKGROUNDS, COLOURS):
        shown = render(_scene(category="heart", colour=colour, background=background), frames=1)[0]
        centre = shown[30:34, 30:34].reshape(-1, 3).mean(0)
        assert np.abs(centre - stimuli.RGB[colour]).max() < 3
        # Rim and outline part the object from its background: one is light, the other dark.
        brightness = shown[32, :32].mean(-1)
        assert np.abs(np.diff(brightness[8:30])).max() > 60
    for a, b in itertools.combinations(COLOURS, 2):
        assert np.linalg.norm(np.subtract(stimuli.RGB[a], stimuli.RGB[b])) > 80, (a, b)


def test_the_phase_moves_the_background_only():
    a, b = render(_scene(phase=0.0), frames=1)[0], render(_scene(phase=0.5), frames=1)[0]
    changed = np.abs(a.astype(int) - b).sum(-1) > 0
    assert changed.any()
    assert not changed[22:42, 22:42].any()


def test_the_balanced_design_holds_every_pair_once_in_64_and_every_triple_once_in_512():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, i) for i in range(512)]
    for start in range(0, 512, 64):
        block = scenes[start : start + 64]
        assert {frame_label(s) for s in block} == set(range(64))
        assert {video_label(s) for s in block} == set(range(64))
        assert len({(s.colour, s.motion) for s in block}) == 64
    assert len({(s.category, s.colour, s.motion) for s in scenes}) == 512


def test_sampling_is_seeded_and_covers_all():
    draws = [sample_scene(np.random.default_rng(3)) for _ in range(2)]
    assert draws[0] == draws[1]
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(300)]
    for key, names in (("category", CATEGORIES), ("background", BACKGROUNDS), ("size", SIZES)):
        assert {getattr(s, key) for s in scenes} == set(names)


def test_labels_name_their_classes():
    scene = _scene(category="fish", colour="green", motion="spin")
    assert FRAME_CLASSES[frame_label(scene)] == "green fish"
    assert VIDEO_CLASSES[video_label(scene)] == "fish spin"
    assert len(set(FRAME_CLASSES)) == len(set(VIDEO_CLASSES)) == 64


def test_captions_name_what_is_shown_in_at_most_14_words():
    scene = _scene(category="car", motion="left", background="grass", x=0.7)
    assert caption(scene) == "a large red car moves to the left over green grass"
    rng = np.random.default_rng(0)
    for index in range(256):
        scene = sample_scene(rng, index)
        text = caption(scene, rng)
        assert f"{scene.colour} {scene.category}" in text
        assert len(text.split()) <= 14
        assert caption(scene) == caption(scene)
    assert len({caption(scene, rng) for _ in range(200)}) > 8
    said = {(s.motion, s.background): caption(s) for s in (_scene(motion=m) for m in MOTIONS)}
    assert len(set(said.values())) == len(MOTIONS)


def test_an_unknown_word_is_rejected():
    with pytest.raises(ValueError, match=r"Scene.category: 'dog' is none of ball, star"):
        _scene(category="dog")
