"""EfficientNet against transformers' EfficientNetModel, and what is read of its folder."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance
import torch
import transformers

import glfa_jax
from benchmarks.models import randomise
from glfa_jax import system
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.errors import InputError
from glfa_jax.evaluation.models import efficientnet
from glfa_jax.models.efficientnet import EfficientNet
from glfa_jax.models.video_mae import Classified
from tests.parity import transformers_models as tools

# A block that widens nothing, one that is repeated, both ways of padding, both kernels.
SETTINGS = {
    "width_coefficient": 0.3,
    "depth_coefficient": 1.1,
    "kernel_sizes": [3, 5, 3],
    "in_channels": [32, 16, 40],
    "out_channels": [16, 40, 80],
    "strides": [1, 2, 2],
    "num_block_repeats": [1, 1, 1],
    "expand_ratios": [1, 6, 2],
    "depthwise_padding": [4],
    "hidden_dim": 384,
    "batch_norm_eps": 0.01,
}
PROCESSOR = {"size": {"height": 30, "width": 26}, "resample": 0, "include_top": True}


def made(folder):
    """A model whose stored statistics are those of no fresh one, and its folder."""
    torch.manual_seed(0)
    model = randomise(
        transformers.EfficientNetModel(transformers.EfficientNetConfig(**SETTINGS)), seed=3
    )
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(std=0.3)
            for scales in (part.running_var, part.weight.data):
                scales.uniform_(0.5, 2.0)
    model.save_pretrained(folder)
    transformers.EfficientNetImageProcessorPil(**PROCESSOR).save_pretrained(folder)
    return model.eval()


class Blank:
    """In place of the classifiers, which are not asked."""

    def apply(self, variables, x, *, method=None):
        scores = jnp.zeros((len(x), 9))
        return Classified(scores, scores) if method else scores


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    return tmp_path_factory.mktemp("foundation")


@pytest.fixture(scope="module")
def theirs(foundation):
    return made(foundation / "efficientnet")


@pytest.fixture(scope="module")
def loaded(foundation, theirs):
    return efficientnet.load(foundation, 3).model


@pytest.mark.parametrize("size", [(2, 33, 47), (1, 32, 20)])
def test_features_equal_torch_at_odd_and_even_sizes(size, loaded, theirs):
    image = np.random.default_rng(0).standard_normal((*size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image).permute(0, 3, 1, 2)).pooler_output
    found = tools.apply(loaded.module, loaded.variables["params"], image)
    assert expected.std() > 1e-3
    tools.assert_close(found, expected, tools.FORWARD)


def test_the_features_behind_a_classifier_are_read_as_well(loaded, theirs, tmp_path):
    whole = transformers.EfficientNetForImageClassification(theirs.config)
    whole.efficientnet.load_state_dict(theirs.state_dict())
    whole.save_pretrained(tmp_path / "efficientnet")
    transformers.EfficientNetImageProcessorPil(**PROCESSOR).save_pretrained(
        tmp_path / "efficientnet"
    )
    again = efficientnet.load(tmp_path, 3).model
    assert again.module == loaded.module
    jax.tree.map(np.testing.assert_array_equal, again.variables, loaded.variables)


def test_scores_hold_scipys_distance_of_torchs_features(foundation, theirs, monkeypatch):
    """Of clips of any size, in batches that do not divide their number, frame by frame."""
    blank = system.EvaluationModel(Pretrained(Blank(), {}), lambda x: x)
    monkeypatch.setattr(system, "load_evaluation_model", lambda *_: blank)
    monkeypatch.setattr(system, "load_video_classifier", lambda *_, **__: blank)
    for name in (system.VIDEO_CLASSIFIER, system.IMAGE_CLASSIFIER):
        (foundation / name).mkdir()
    blocks = np.random.default_rng(1).integers(0, 256, (2, 3, 2, 3, 5, 3), np.uint8)
    generated, truth = blocks.repeat(8, axis=3).repeat(8, axis=4)[..., :21, :37, :]
    generated[2] = truth[2]
    scores = glfa_jax.score(
        generated, truth, judges=foundation, metrics=["efficientnet"], ways=[2], batch_size=2
    )
    processor = transformers.EfficientNetImageProcessorPil(**PROCESSOR)

    def features(videos):
        pixels = processor(list(videos.reshape(-1, *videos.shape[2:])), return_tensors="pt")
        with torch.no_grad():
            return theirs(**pixels).pooler_output.numpy().reshape(3, 2, -1).astype(float)

    distance = scipy.spatial.distance.correlation
    ours, true = map(features, (generated, truth))
    expected = [np.mean([distance(ours[i, j], true[i, j]) for j in range(2)]) for i in range(3)]
    found = scores["EfficientNet distance"]
    assert found.about.better == "lower"
    assert min(expected[:2]) > 1e-4
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6)
    assert abs(found.values[2]) < 1e-6


def test_b1_has_its_published_size():
    """As google/efficientnet-b1 says; torch's own count is of parameters and statistics."""
    settings = {
        "width_coefficient": 1.0,
        "depth_coefficient": 1.1,
        "hidden_dim": 1280,
        "depthwise_padding": [16],
    }
    shapes = tools.shapes_of(EfficientNet.from_config(settings), tools.zeros(1, 240, 240, 3))
    with torch.device("meta"):
        model = transformers.EfficientNetModel(transformers.EfficientNetConfig(**settings))
    held = [x for name, x in model.state_dict().items() if "num_batches" not in name]
    assert sum(p.numel() for p in model.parameters()) == 6_513_184
    assert tools.count(shapes) == sum(x.numel() for x in held)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"model_type": "resnet"}, "model_type is 'resnet'"),
        ("config.json", {"pooling_type": "max"}, "pooling_type is 'max', supported is 'mean'"),
        ("config.json", {"architectures": ["ViTModel"]}, "class ViTModel, must be of Efficient"),
        ("config.json", {"strides": [1, 2, 3]}, "strides holds 3, must hold 1 and 2 alone"),
        ("config.json", {"strides": [1, 2]}, "must have equally many entries"),
        ("config.json", {"kernel_sizes": [3, 4, 3]}, "kernel_sizes holds 4, must be odd"),
        ("config.json", {"hidden_dim": 1280}, "hidden_dim is 1280, must be 384"),
        ("config.json", {"depthwise_padding": 4}, "depthwise_padding is 4, must list"),
        ("config.json", {"depth_coefficient": 900.0}, "2,700 blocks, must make at most 200"),
        ("config.json", {"expand_ratios": [1, 6, 3]}, "tensors do not fit"),
        ("preprocessor_config.json", {"include_top": "no"}, "include_top is 'no', must be true"),
    ],
)
def test_a_wrong_folder_is_named_with_what_is_wrong(
    file, change, said, theirs, foundation, tmp_path
):
    folder = shutil.copytree(foundation / "efficientnet", tmp_path / "efficientnet")
    held = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(held | change))
    with pytest.raises(InputError, match=f"^{folder}.*{said}"):
        efficientnet.load(tmp_path, 3)
