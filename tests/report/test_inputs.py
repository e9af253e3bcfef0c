"""A run folder as it is read."""

import json

import pytest

from glfa_jax.report import inputs
from tests.report import fake


def test_missing_interval_is_the_normal_approximation_and_marked(tmp_path):
    run = inputs.read(fake.make(tmp_path / "run", clips=1))
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())
    rows[0] |= {"mean": 0.5, "std": 0.2, "n": 16}
    del rows[0]["low"], rows[0]["high"]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(rows))
    metric = inputs.read(tmp_path / "run").metrics[0]
    assert (metric.low, metric.high) == (pytest.approx(0.402), pytest.approx(0.598))
    assert metric.approximate
    assert not run.metrics[0].approximate
