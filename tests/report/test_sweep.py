"""The picture of a sweep's table: what stands above it, and what has no interval."""

from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glfa_jax.report import sweep

PROTOCOLS = {"03": "cross-subject", "01": "within-subject"}


def rows(*subjects: str) -> list[dict]:
    """SSIM, and a distance that is one value for all clips, at two scales and with two seeds."""
    return [
        {"checkpoint": 3, "subject": subject, "sampling_steps": 25, "guidance_scale": scale}
        | {"seed": seed, "metric": metric, "better": "higher", "mean": scale + seed}
        | dict.fromkeys(("std", "low", "high"), scale / 10 if metric == "SSIM" else None)
        | {"chance": None, "method": "GLFA", "protocol": PROTOCOLS[subject]}
        | {"pretraining": "strict", "train_subjects": "01 02"}
        for subject in subjects
        for scale in (1.0, 3.0)
        for seed in (0, 1)
        for metric in ("SSIM", "distance")
    ]


@pytest.fixture
def drawn(monkeypatch) -> dict[str, list]:
    """What is drawn."""
    found: dict[str, list] = {"above": [], "lines": [], "bands": []}
    for kind, name, take in (
        (Figure, "suptitle", lambda text, **_: found["above"].append(" ".join(text.split()))),
        (Axes, "plot", lambda x, y, *_, **__: found["lines"].append((list(x), list(y)))),
        (Axes, "fill_between", lambda x, *_, **__: found["bands"].append(list(x))),
    ):
        draw = getattr(kind, name)

        def both(self, *given, draw=draw, take=take, **options):
            take(*given, **options)
            return draw(self, *given, **options)

        monkeypatch.setattr(kind, name, both)
    return found


def test_one_line_says_the_protocol(drawn, tmp_path: Path):
    sweep.draw(rows("03"), tmp_path / "one.png")
    sweep.draw(rows("03", "01"), tmp_path / "two.png")
    assert drawn["above"] == [
        "GLFA: cross-subject, strict pretraining, trained on 01 02",
        "GLFA: cross-subject (subject 03), within-subject (subject 01), strict pretraining, "
        "trained on 01 02",
    ]


def test_what_has_no_interval_is_a_line_without_a_band(drawn, tmp_path: Path):
    sweep.draw(rows("03"), tmp_path / "sweep.png")
    assert drawn["lines"] == [([1.0, 3.0], [1.5, 3.5])] * 2
    assert drawn["bands"] == [[1.0, 3.0]]
    assert matplotlib.image.imread(tmp_path / "sweep.png").std() > 0
