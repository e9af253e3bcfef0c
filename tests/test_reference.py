"""Our modules equal the official vectors; the comparison works for any sizes and does fail."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.check_reference import check_file, main

REFERENCE = Path(__file__).parent / "reference"
FILES = sorted(REFERENCE.glob("*.npz"))
LOSSES = REFERENCE / "alignment_losses_2subjects.npz"


def test_there_are_vectors():
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_quantity_agrees(path):
    checks = check_file(path)
    assert checks
    assert [check for check in checks if not check.passed] == []


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


@pytest.mark.parametrize("change", [1e-3, np.nan])
@pytest.mark.parametrize(
    ("stem", "quantity"),
    [
        ("alignment_local", "y"),
        ("alignment_losses_2subjects", "align"),
        ("contrastive_loss", "text_loss"),
    ],
)
def test_a_changed_value_is_named(stem, quantity, change, tmp_path, capsys):
    vectors = load(REFERENCE / f"{stem}.npz")
    changed = vectors[quantity].copy()
    changed[(0,) * changed.ndim] += change
    np.savez(tmp_path / f"{stem}.npz", **vectors | {quantity: changed})
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.endswith("FAILED")]
    assert [line.split()[1] for line in failed] == [quantity]
    assert out.endswith("1 failed\n")


def test_a_wrong_key_is_named(tmp_path, capsys):
    vectors = load(LOSSES)
    vectors["regg"] = vectors.pop("reg")
    np.savez(tmp_path / "a.npz", **vectors)
    assert main([str(tmp_path)]) == 1
    assert "a: 'reg' is missing" in capsys.readouterr().out


def test_what_is_not_understood_fails_and_the_rest_is_checked(tmp_path, capsys):
    np.savez(tmp_path / "strange.npz", a=np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "good.npz", **load(LOSSES))
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "strange: cannot be checked" in out
    assert "text: cannot be checked" in out
    assert "good: reg" in out
    assert out.endswith("2 failed\n")


def test_an_empty_or_absent_folder_is_no_success(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "absent")]) == 2
    assert main([]) == 2
    assert "no .npz files" in capsys.readouterr().out


def slow_alignment(x, *, mixing, theta, patch: int) -> np.ndarray:
    """SPEC §2.2 in float64, one map (h, w); either part may be None."""
    height, width = x.shape
    if mixing is not None:
        corners = [(i, j) for i in range(0, height, patch) for j in range(0, width, patch)]
        mixed = np.zeros_like(x)
        for p, (i, j) in enumerate(corners):
            total = x[i : i + patch, j : j + patch].copy()
            for q, (k, m) in enumerate(corners):
                total += mixing[p, q] * x[k : k + patch, m : m + patch]
            mixed[i : i + patch, j : j + patch] = total
        x = mixed * (x != 0)
    if theta is None:
        return x
    kernel = round(theta.shape[-1] ** 0.5)
    padded = np.pad(x, kernel // 2)
    y = np.zeros_like(x)
    for i, j in np.argwhere(x != 0):
        taps = theta[i, j].copy()
        taps[len(taps) // 2] += 1
        around = padded[i : i + kernel, j : j + kernel].ravel()
        y[i, j] = np.abs(taps) @ around / np.abs(taps).sum()
    return y


@pytest.mark.parametrize(
    ("parts", "shape", "patch", "kernel"),
    [
        ("global and local", (8, 12), 4, 3),
        ("global", (6, 4), 2, None),
        ("local", (5, 7), None, 5),
        ("local", (3, 4), 1, 7),
    ],
)
def test_alignment_of_other_sizes_agrees(parts, shape, patch, kernel, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape)) * (rng.random(shape) > 0.3)
    mixing = theta = None
    vectors = {"x": x[:, None]}
    if "global" in parts:
        count = shape[0] * shape[1] // patch**2
        mixing = rng.standard_normal((count, count)) * 0.3
        vectors["param.global_align_weight"] = mixing[None, None]
    if "local" in parts:
        theta = rng.standard_normal((*shape, kernel**2)) * 0.3
        vectors["param.weight"] = theta[None, None, None]
        vectors["kernel_size"] = np.array(kernel)
    if patch is not None:
        vectors["patch_size"] = np.array(patch)
    y = [slow_alignment(one, mixing=mixing, theta=theta, patch=patch) for one in x]
    vectors["y"] = np.array(y)[:, None]
    np.savez(tmp_path / "a.npz", **{k: np.asarray(v, np.float32) for k, v in vectors.items()})
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize("subjects", [1, 2, 3, 4])
def test_alignment_losses_of_any_number_of_subjects_agree(subjects, tmp_path):
    rng = np.random.default_rng(subjects)
    mask = (rng.random((6, 9)) > 0.5).astype(np.float32)
    x, y = rng.standard_normal((2, 3, subjects, 2, 1, 6, 9)) * mask
    inside = mask > 0
    pairs = [
        np.square(y[:, i] - y[:, j])[..., inside].mean()
        for i, j in combinations(range(subjects), 2)
    ]
    reg = np.square(y - x)[..., inside].mean()
    align = np.mean(pairs) if pairs else 0.0
    np.savez(tmp_path / "a.npz", x=x, y=y, mask=mask, reg=reg, align=align)
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize("clips", [1, 2, 9])
def test_contrast_of_other_sizes_agrees(clips, tmp_path):
    rng = np.random.default_rng(clips)
    x = rng.standard_normal((3, clips, 11))
    fmri, image, text = x / np.linalg.norm(x, axis=-1, keepdims=True)
    scale = 1.3

    def info_nce(a, b):
        logits = np.exp(scale) * a @ b.T
        terms = []
        for i in range(clips):
            for others in (logits[i], logits[:, i]):
                terms.append(np.log(np.exp(others).sum()) - logits[i, i])
        return np.mean(terms)

    losses = info_nce(fmri, image), info_nce(fmri, text)
    np.savez(
        tmp_path / "a.npz",
        fmri=fmri,
        image=image,
        text=text,
        logit_scale=scale,
        image_loss=losses[0],
        text_loss=losses[1],
        total=np.mean(losses),
    )
    assert main([str(tmp_path)]) == 0
