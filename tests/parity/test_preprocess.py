"""Preprocessor against transformers' image processors, on photographs."""

import json
from functools import partial

import numpy as np
import pytest
import skimage.data
import transformers
from PIL import Image

from glfa_jax.ops.preprocess import Preprocessor, resize_matrix

LEVEL = 1 / 255
# Even and odd sizes, both orientations; the cat is smaller than it is wide.
IMAGES = {
    "square": skimage.data.astronaut(),
    "wide": skimage.data.chelsea(),
    "tall": np.swapaxes(skimage.data.coffee(), 0, 1)[:, :-1],
    "small": skimage.data.astronaut()[100:164, 150:214],
}
PROCESSORS = {
    "clip": transformers.CLIPImageProcessorPil,
    "vit": transformers.ViTImageProcessorPil,
    "video_mae": transformers.VideoMAEImageProcessorPil,
    # As Google's files have it; the class itself has the bicubic filter.
    "efficientnet": partial(transformers.EfficientNetImageProcessorPil, resample=0),
}


def settings(processor) -> dict:
    return json.loads(processor.to_json_string())


@pytest.mark.parametrize("shown", IMAGES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_published_processors_are_matched_to_one_level(name, shown):
    processor = PROCESSORS[name]()
    image = np.ascontiguousarray(IMAGES[shown])
    ours = np.asarray(Preprocessor.from_config(settings(processor))(image))
    theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"])
    theirs = np.moveaxis(theirs.reshape(theirs.shape[-3:]), 0, -1)
    assert ours.shape == theirs.shape
    difference = np.abs(ours - theirs) * np.asarray(processor.image_std)
    assert difference.max() <= LEVEL * 1.001
    if name in ("clip", "video_mae") or shown in ("square", "small"):
        # With the aspect ratio kept, every level is the same; else Pillow's order of the passes
        # depends on its version.
        assert difference.max() < LEVEL / 1000


# As published files have it: keys of earlier versions of transformers, and some left out.
MEANS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
FILES = {
    "number of a ViT": ("vit", {"do_resize": True, "size": 40, **MEANS}),
    "number of VideoMAE": (
        "video_mae",
        {"feature_extractor_type": "VideoMAEFeatureExtractor", "do_center_crop": True, "size": 224},
    ),
    "crop off": ("video_mae", {"do_center_crop": False, "size": {"shortest_edge": 40}, **MEANS}),
    "no crop_size": ("video_mae", {"image_processor_type": "VideoMAEImageProcessor", **MEANS}),
    "number of CLIP": ("clip", {"crop_size": 30, "size": 40, "resample": 3}),
    "nothing": ("clip", {}),
    "google's EfficientNet": (
        "efficientnet",
        {
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.479, 0.473, 0.474],
            "include_top": True,
        }
        | {"do_center_crop": False, "resample": 0, "rescale_offset": False, "size": 33},
    ),
    "an offset alone": (
        "efficientnet",
        {"rescale_offset": True, "include_top": False, "resample": 0, **MEANS},
    ),
    "offset and no norm": (
        "efficientnet",
        {"rescale_offset": True, "do_normalize": False, "resample": 2, "size": 50},
    ),
    "null": ("vit", {"do_resize": None, "size": None, "do_center_crop": None, "crop_size": 20}),
}


@pytest.mark.parametrize("shown", ["wide", "tall"])
@pytest.mark.parametrize("name", FILES)
def test_what_a_file_leaves_out_is_as_transformers_has_it(name, shown):
    model, file = FILES[name]
    image = np.ascontiguousarray(IMAGES[shown])
    ours = np.asarray(Preprocessor.from_config(file, model=model)(image))
    theirs = PROCESSORS[model](**file)(image, return_tensors="np")["pixel_values"]
    theirs = np.moveaxis(theirs.reshape(theirs.shape[-3:]), 0, -1)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() * 0.5 <= LEVEL * 1.001


def test_the_name_in_a_file_counts_before_the_model_it_lies_beside():
    file = {"image_processor_type": "ViTImageProcessorFast", "size": 40}
    assert Preprocessor.from_config(file, model="clip").size == (40, 40)


def test_a_small_size_is_matched_too():
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 30}
    )
    image = IMAGES["wide"]
    ours = np.asarray(Preprocessor.from_config(settings(processor))(image))
    theirs = np.moveaxis(processor(image, return_tensors="np")["pixel_values"][0], 0, -1)
    assert ours.shape == theirs.shape == (28, 30, 3)
    assert (np.abs(ours - theirs) * np.asarray(processor.image_std)).max() <= LEVEL * 1.001


def test_floats_and_videos_give_what_levels_and_images_give():
    preprocess = Preprocessor.from_config(
        settings(transformers.CLIPImageProcessorPil(size=20, crop_size=16))
    )
    video = np.stack([IMAGES["small"], IMAGES["small"][::-1]])[None]
    whole = preprocess(video)
    assert whole.shape == (1, 2, 16, 16, 3)
    np.testing.assert_allclose(whole[0, 1], preprocess(video[0, 1]), atol=1e-6)
    as_float = preprocess(video.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(as_float, whole, atol=LEVEL * 1.001 / 0.26)
    assert (np.abs(as_float - whole) > 1e-4).mean() < 1e-3


def test_steps_that_are_off_are_left_out():
    off = Preprocessor.from_config({"do_resize": False, "do_rescale": False, "size": 5})
    image = IMAGES["small"]
    np.testing.assert_array_equal(off(image), image.astype(np.float32))


@pytest.mark.parametrize(("length", "to"), [(100, 60), (64, 240), (113, 11), (7, 3), (255, 300)])
def test_the_nearest_pixel_is_pillows(length, to):
    row = np.arange(length, dtype=np.uint8)[None]
    expected = np.asarray(Image.fromarray(row).resize((to, 1), Image.Resampling.NEAREST))[0]
    weights = resize_matrix(length, to=to, method="nearest")
    np.testing.assert_array_equal(weights @ row[0], expected)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("length", "to"), [(7, 3), (3, 7), (64, 9), (5, 1)])
def test_resizing_keeps_constants_and_mirrors(method, length, to):
    weights = resize_matrix(length, to=to, method=method)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"size": 5, "resample": 1}, "resample is 1"),
        ({"size": {"longest_edge": 5}}, "size is"),
        ({"do_resize": True}, "size is missing"),
        ({"do_normalize": True}, "image_mean is missing"),
        ({"do_pad": True}, "do_pad"),
        ({"size": 5, "do_resize": "false"}, "do_resize is 'false', must be true or false"),
        ({"do_rescale": "no"}, "do_rescale is"),
        ({"size": 10**9}, "size is 1000000000"),
        ({"size": 0}, "size is 0"),
        ({"size": {"shortest_edge": "224"}}, "size is"),
        ({"size": {"height": 5, "width": None}}, "size is"),
        ({"size": [224]}, "size is"),
        ({"crop_size": {"height": -5, "width": 5}}, "crop_size is"),
        ({"size": {"shortest_edge": 5}, "crop_size": 6}, r"crop_size is \(6, 6\), larger than"),
        ({"size": {"height": 9, "width": 5}, "crop_size": 6}, "crop_size is .* larger than"),
        ({"size": 5, "resample": [2]}, "resample is"),
        ({"rescale_factor": "x"}, "rescale_factor is"),
        ({"rescale_factor": float("nan")}, "rescale_factor is"),
        ({"rescale_factor": 0}, "rescale_factor is"),
        ({"image_mean": 0.5, "image_std": 0.5}, "image_mean is"),
        ({"image_mean": [0.5, 0.5], "image_std": [1, 1, 1]}, "image_mean is"),
        ({"image_mean": [0, 0, None], "image_std": [1, 1, 1]}, "image_mean is"),
        ({"image_mean": [0, 0, 0]}, "image_std is None"),
        ({"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}, "image_std is .*above 0"),
        ({"image_mean": [0, 0, 0], "image_std": [1, float("inf"), 1]}, "image_std is"),
    ],
)
def test_unsupported_options_are_rejected_by_name(config, named):
    with pytest.raises(ValueError, match=named):
        Preprocessor.from_config(config)


def test_wrong_images_are_rejected():
    with pytest.raises(ValueError, match="are int64, must be uint8"):
        Preprocessor.from_config({})(np.zeros((4, 4, 3), np.int64))
    with pytest.raises(ValueError, match="at least 8 by 8"):
        Preprocessor.from_config({"crop_size": 8})(np.zeros((4, 4, 3), np.uint8))
