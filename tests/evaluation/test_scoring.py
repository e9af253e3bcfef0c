"""Scoring with stand-ins for the evaluation models: what is measured, and what is left out."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from glfa_jax import config, system
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.evaluation.models import EvaluationModels, Predictions
from glfa_jax.evaluation.scoring import Scored, Scorer, over_run, overall_value
from glfa_jax.metrics import METRICS, PIXELS, QUANTITIES, Metric, nway
from glfa_jax.metrics.frechet import frechet_distance
from tests.evaluation.made import JUDGES

CLIPS, FRAMES, SIDE, CLASSES = 6, 3, 16, 60


class Brightness:
    """EvaluationModels that see nothing but how bright the frames are."""

    identities = JUDGES

    def __call__(self, videos: np.ndarray) -> Predictions:
        bright = videos.mean((2, 3))  # (b, f, 3)
        rng = np.random.default_rng(0)

        def scores(x: np.ndarray) -> np.ndarray:
            return x @ rng.standard_normal((x.shape[-1], CLASSES))

        return {
            "clip probabilities": scores(bright.mean(1)),
            "frame probabilities": scores(bright),
            "clip features": bright.mean(1),
            "frame embeddings": bright + 1.0,
        }

    def of_captions(self, tokens: np.ndarray) -> Predictions:
        return {"caption embeddings": tokens[:, :3].astype(float)}


judges = cast(EvaluationModels, Brightness())


def videos(seed: int, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.integers(20, 200, (CLIPS, FRAMES, 1, 1, 3))
    return (level + rng.integers(0, 50, (CLIPS, FRAMES, side, side, 3))).astype(np.uint8)


def measured(generated: np.ndarray, truth: np.ndarray, **options) -> dict:
    settings = config.Evaluation(ways=(2, 50), **options)
    scored = Scorer(settings, judges, truth).score(generated, seed=0, trials=None)
    return {one.name: one for one in scored.measured}


def test_the_truth_itself_is_perfect():
    found = measured(videos(0), videos(0))
    perfect = {"video 2-way": 1, "frame 50-way": 1, "SSIM": 1, "PSNR": 100, "EPE": 0}
    perfect |= {"pixel correlation": 1, "hue correlation": 1, "CLIP similarity": 1}
    perfect |= {"VIFI similarity": 1}
    for name, value in perfect.items():
        np.testing.assert_allclose(found[name].values, value, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found["CLIP-pcc"].values, found["CLIP-pcc, gated"].values)


def test_what_stands_for_chance_is_worse_than_the_truth():
    for name, one in measured(videos(0), videos(0)).items():
        if one.mismatched is not None:
            worse = one.mismatched().mean() - one.values.mean()
            assert (worse > 0) == (one.about.better == "lower"), name


def test_drawn_accuracy_is_compared_with_the_same_mismatch_computed_once(monkeypatch):
    settings = config.Evaluation(ways=(2, 50), metrics=())
    scorer = Scorer(settings, judges, videos(0))
    scored = scorer.score(videos(1), seed=0, trials=7)
    assert {one.about.variant for one in scored.drawn} == {"Monte Carlo, 7 trials"}
    computed, exact = [], nway.nway_exact

    def counted(probabilities: np.ndarray, *, labels: np.ndarray, n: int) -> np.ndarray:
        computed.append(n)
        return exact(probabilities, labels=labels, n=n)

    monkeypatch.setattr(nway, "nway_exact", counted)
    for exactly, drawn in zip(scored.measured, scored.drawn, strict=True):
        assert exactly.name == drawn.name
        np.testing.assert_array_equal(exactly.mismatched(), drawn.mismatched())
    assert sorted(computed) == [2] * 2 * (CLIPS - 1) + [50] * 2 * (CLIPS - 1)


def test_pixels_are_not_compared_where_sizes_differ():
    same, other = (set(measured(videos(1), videos(0, side))) for side in (SIDE, 2 * SIDE))
    of_pixels = {
        metric.name
        for metric in system.asked_metrics(config.Evaluation())
        if metric.needs in (PIXELS, *QUANTITIES) and metric.same_shape and not metric.per_run
    }
    assert same - other == of_pixels
    assert {"SSIM", "PSNR", "pixel correlation", "hue-pcc", "hue correlation", "EPE"} <= of_pixels
    assert {"video 2-way", "frame 50-way", "CLIP similarity", "CLIP-pcc"} <= other


def test_frames_are_compared_with_their_own_captions_at_any_size():
    settings = config.Evaluation(ways=(2,), metrics=("captions",))
    generated, captions = videos(1, 2 * SIDE), np.random.default_rng(2).integers(1, 9, (CLIPS, 5))
    scorer = Scorer(settings, judges, videos(0), captions)
    one = scorer.score(generated, seed=0, trials=None).measured[-1]
    frames, text = generated.mean((2, 3)) + 1.0, captions[:, None, :3]
    norms = np.linalg.norm(frames, axis=-1) * np.linalg.norm(text, axis=-1)
    expected = ((frames * text).sum(-1) / norms).mean(1)
    assert (one.name, one.about.better) == ("CLIP caption similarity", "higher")
    np.testing.assert_allclose(one.values, expected)
    assert one.mismatched().shape == (CLIPS,)
    with pytest.raises(InputError, match="similarity': needs captions of the true clips, and ther"):
        measured(generated, videos(0), metrics=("captions",))


def test_a_frame_that_equals_its_truth_does_not_count_for_all_frames():
    generated, truth = videos(1), videos(0)
    before = measured(generated, truth)["PSNR"].values
    generated[0, 0] = truth[0, 0]
    after = measured(generated, truth)["PSNR"].values
    np.testing.assert_array_equal(after[1:], before[1:])
    assert 100 / FRAMES < after[0] < 60


def test_the_distance_takes_true_clips_that_several_subjects_saw_once():
    rng = np.random.default_rng(0)
    shown = {"01": [0, 1, 2, 3], "03": [1, 2, 3, 5]}
    true = rng.standard_normal((6, 2))
    generated = {name: rng.standard_normal((4, 2)) for name in shown}
    scored = {
        name: Scored([], [], {"clip features": (generated[name], true[clips])}, JUDGES)
        for name, clips in shown.items()
    }
    test = cast(HeldOut, SimpleNamespace(clips=shown.__getitem__, shown=(3, 16, 20)))
    overall = over_run(METRICS["Fréchet distance, VideoMAE"], test, scored)
    expected = frechet_distance(np.concatenate([*generated.values()]), truth=true[[0, 1, 2, 3, 5]])
    assert overall.value == pytest.approx(expected)
    said = "features before its classifier, 8 clips of 3 frames, 16x20, 2 values"
    assert overall.variant == said


@pytest.mark.parametrize(("clips", "warned"), [(3, True), (4, True), (5, False)])
def test_a_distance_of_too_few_clips_says_so_in_every_table(clips, warned):
    rng = np.random.default_rng(0)
    generated, truth = rng.standard_normal((9, 4)), rng.standard_normal((clips, 4))
    metric = METRICS["Fréchet distance, VideoMAE"]
    overall = overall_value(metric, generated, truth, shown=(6, 8, 8))
    assert overall.variant.endswith(", too few clips: mostly bias") == warned


@pytest.mark.parametrize(
    ("asked", "left_out"),
    [(("pixel",), {"EPE", "CLIP-pcc", "hue-pcc"}), (("motion",), {"SSIM", "CLIP similarity"})],
)
def test_only_what_is_asked_for_is_measured(asked, left_out):
    found = measured(videos(1), videos(0), metrics=asked)
    assert "video 2-way" in found
    assert not left_out & set(found)


def test_single_metrics_are_asked_for_by_name():
    found = measured(videos(1), videos(0), metrics=("EPE", "CLIP-pcc, gated", "colour"))
    ways = [f"{kind} {n}-way" for kind in ("video", "frame") for n in (2, 50)]
    assert [*found] == [*ways, "EPE", "CLIP-pcc, gated", "hue-pcc", "hue correlation"]
    assert found["CLIP-pcc, gated"].about.variant == "cosine, 0 to VIFI similarity 0.6"


def made(**changes) -> Metric:
    return Metric(
        **{"name": "made", "group": "made", "variant": "v", "better": "higher", **changes}
    )


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            made(measure=lambda x, *, truth: np.ones((CLIPS, FRAMES))),
            r"\(6, 3\), must .*clip, \(6,\)",
        ),
        (
            made(measure=lambda x, *, truth: 0.5),
            r"gives an array of shape \(\), must give one value",
        ),
        (
            made(measure=lambda x, *, truth: [1.0]),
            r"gives an array of shape \(1,\), must give one v",
        ),
        (
            made(measure=lambda x, *, truth: x, options=("ways", "levels")),
            "options levels must be of evaluation, which has sampler, .*, ways, metrics",
        ),
    ],
)
def test_a_metric_that_is_none_is_named(metric, said):
    with METRICS.temporarily(metric), pytest.raises(InputError, match=f"^metric 'made': .*{said}"):
        measured(videos(1), videos(0), metrics=("made",))


def test_a_metric_of_a_run_gives_one_number():
    metric = made(measure=lambda x, *, truth: x.mean(1), per_run=True)
    with pytest.raises(InputError, match=r"metric 'made': gives .* \(6,\), must give one number"):
        overall_value(metric, np.ones((CLIPS, 2)), np.ones((CLIPS, 2)), shown=(FRAMES, SIDE, SIDE))


def test_an_unknown_name_is_rejected_with_those_that_are_known():
    said = (
        r"^evaluation.metrics: 'SSMI' is neither a group of metrics \(.*colour, .*motion, .*pixel"
        r".*\) nor a metric \(.*CLIP similarity.*Fréchet distance, VideoMAE, .*, video 50-way.*\)$"
    )
    with pytest.raises(InputError, match=said):
        measured(videos(1), videos(0), metrics=("pixel", "SSMI"))
    asked = config.Evaluation(metrics=("SSMI",))
    with pytest.raises(InputError, match=said):  # before the foundation is looked for
        system.check_foundation(cast(config.Config, SimpleNamespace(evaluation=asked)))
