"""The file of scores: what is written is read back, and what is wrong is one sentence."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from glfa_jax.errors import InputError
from glfa_jax.results import FILE, ClipScores, Scores
from tests.evaluation import made


@pytest.fixture
def scores() -> Scores:
    return made.scores(
        {"video 2-way": [0.9, 0.5], "SSIM": [0.1, 0.2]},
        method="GLFA",
        metrics={"video 2-way": made.WAYS, "SSIM": made.SSIM},
        overall={"Fréchet distance": 12.3},
        missing=(made.clip(7),),
        unscanned=(made.clip(8),),
    )


def test_what_is_written_is_read_back(scores, tmp_path):
    scores.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert Scores.read(tmp_path) == Scores.read(tmp_path / FILE) == scores
    again = tmp_path / "copy.json"
    Scores.read(tmp_path).write(again)
    assert again.read_bytes() == (tmp_path / FILE).read_bytes()


def test_the_file_is_as_documented(scores, tmp_path):
    scores.write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert content["format"] == 3
    assert content["training"]["contrast.steps"] == "1500"
    assert content["protocol"]["train_subjects"] == ["01", "02"]
    assert content["metrics"]["video 2-way"] == {
        "variant": "exact",
        "better": "higher",
        "chance": 0.75,
        "unit": "",
    }
    first = {"subject": "03", "clip": 0, "scores": {"video 2-way": 0.9, "SSIM": 0.1}}
    assert content["clips"][0] == first
    assert content["missing"] == [{"subject": "03", "clip": 7}]
    assert content["unscanned"] == [{"subject": "03", "clip": 8}]
    assert content["judges"]["video-classifier"] == "aa"
    assert content["overall"]["Fréchet distance"]["value"] == 12.3


def test_runs_of_before_there_was_a_choice_were_decoded_from_averages(scores, tmp_path):
    scores.write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert content["sampling"].pop("test_maps") == "averaged"
    (tmp_path / FILE).write_text(json.dumps(content), encoding="utf-8")
    assert Scores.read(tmp_path) == scores
    assert str(scores.sampling) == "dpm++, 25 steps, guidance 9"
    rescaled = replace(scores.sampling, test_maps="rescaled")
    assert str(rescaled) == "dpm++, 25 steps, guidance 9, test maps rescaled"


def test_values_are_in_the_order_of_the_clips(scores):
    turned = replace(scores, clips=scores.clips[::-1])
    np.testing.assert_array_equal(turned.values("SSIM"), [0.2, 0.1])
    assert [key.clip for key in turned.keys] == [1, 0]


def test_numbers_of_numpy_are_written_as_numbers(scores, tmp_path):
    clips = tuple(
        ClipScores(c.subject, np.int64(c.clip), {k: np.float32(v) for k, v in c.scores.items()})
        for c in scores.clips
    )
    replace(scores, clips=clips).write(tmp_path)
    assert Scores.read(tmp_path).values("SSIM")[0] == np.float32(0.1)


def test_what_could_not_be_read_is_not_written(scores, tmp_path):
    clips = (ClipScores("03", 0, {"video 2-way": float("nan"), "SSIM": 0.1}),)
    with pytest.raises(InputError, match=r"clips\[0\]\.scores\.video 2-way: must be finite, got"):
        replace(scores, clips=clips).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _set(*path, to) -> Callable[[dict], object]:
    def change(content: dict) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("format", to=4), "format: 4 is unknown, this version reads 3"),
        (
            lambda c: (_set("format", to=1)(c), c.pop("training")),
            "format: 1, of an earlier version, which kept less of how the run was trained and "
            "scored; remove the file and score the run again",
        ),
        (lambda c: c.pop("training"), "training: missing"),
        (_set("training", "contrast.steps", to=3), "training.contrast.steps: must be one line"),
        (lambda c: c.pop("format"), "must hold an object with a format"),
        (lambda c: c.pop("seed"), "seed: missing"),
        (lambda c: c["sampling"].pop("steps"), "sampling.steps: missing"),
        (lambda c: c["protocol"].pop("test_data"), "protocol.test_data: missing"),
        (_set("speed", to=1), "speed: unknown key, known here are run, method, seed"),
        (_set("seed", to=True), "seed: must be a whole number, got true"),
        (_set("seed", to=1.5), "seed: must be a whole number, got 1.5"),
        (_set("method", to=""), "method: is empty"),
        (_set("method", to="a\nb"), r'method: must be one line of text, got "a\nb"'),
        (_set("clips", to=[]), "clips: is empty"),
        (_set("clips", to={}), "clips: must be a list, got {}"),
        (_set("clips", 1, "clip", to=0), "clip 0 of subject 03 is there twice"),
        (_set("missing", 0, "clip", to=1), "clip 1 of subject 03 is there twice"),
        (_set("unscanned", 0, "clip", to=7), "clip 7 of subject 03 is there twice"),
        (lambda c: c.pop("judges"), "judges: missing"),
        (
            _set("clips", 1, "scores", "SSIM", to=float("inf")),
            "clips[1].scores.SSIM: must be finite, got Infinity",
        ),
        (_set("clips", 1, "scores", "SSIM", to=10**400), "too large"),
        (_set("clips", 1, "scores", "SSIM", to=None), "must be finite, got null"),
        (
            lambda c: c["clips"][1]["scores"].pop("SSIM"),
            "clip 1 of subject 03 has no value of metric 'SSIM'",
        ),
        (
            _set("clips", 1, "scores", "EPE", to=1.0),
            "clip 1 of subject 03 is scored with the unknown metric 'EPE'",
        ),
        (
            _set("metrics", "SSIM", "better", to="up"),
            'metrics.SSIM.better: must be one of higher, lower, got "up"',
        ),
        (
            lambda c: c["overall"].update(SSIM={"variant": "", "better": "higher", "value": 1}),
            "metric 'SSIM': is one value a clip or a run, not both",
        ),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_file(scores, tmp_path, change, sentence):
    scores.write(tmp_path)
    path = tmp_path / FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError) as fault:
        Scores.read(tmp_path)
    assert str(fault.value).startswith(f"{path}: ")
    assert sentence in str(fault.value)
    assert "\n" not in str(fault.value)


def test_what_is_no_file_of_scores_is_named(tmp_path):
    with pytest.raises(InputError, match=r"scores\.json: no such file; .* eval\.score writes it"):
        Scores.read(tmp_path)
    for content, words in (
        (b"{", "not valid JSON"),
        (b"\xff", "must be UTF-8 text"),
        (b"[1]", "object"),
    ):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(InputError, match=words):
            Scores.read(tmp_path)
