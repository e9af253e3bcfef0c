"""Scores the samples against the true clips and writes the report.

    python -m eval.score --config configs/demo.yaml

Leaves RUN/metrics.json, per-clip scores in RUN/samples/index.json, RUN/alignment.npz and
RUN/report/index.html.
"""

import json
import os
from collections.abc import Callable
from itertools import combinations

import jax
import numpy as np
from tqdm import tqdm

from eval.sample import folder, read_samples, refuse_other_settings
from glfa_jax import config, system
from glfa_jax.cli import run_main
from glfa_jax.convert import pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.metrics import image, nway, statistics
from glfa_jax.report import page
from glfa_jax.training.logs import write_atomically
from glfa_jax.training.loop import check_unchanged, use_compilation_cache

_MOST_DECIBELS = 100.0
_MONTE_CARLO_TRIALS = 100  # as the official code draws


def classifier(judge: system.Judge, *, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """Class probabilities of uint8 pictures or videos, in batches of one size, compiled once."""
    module = judge.model.module

    @jax.jit
    def run(variables, x):
        return jax.nn.softmax(module.apply(variables, judge.preprocess(x)), axis=-1)

    def classify(pictures: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            padded = np.resize(part, (batch, *part.shape[1:]))
            parts.append(jax.device_get(run(judge.model.variables, padded))[: len(part)])
        return np.concatenate(parts)

    return classify


class Nway:
    """n-way accuracies of one classifier on the same clips, generated and true."""

    def __init__(self, generated: np.ndarray, truth: np.ndarray, group: int):
        """Probabilities (b * group, k): `group` pictures a clip, which are averaged."""
        self._generated, self._group = generated, group
        self._labels = nway.top_classes(truth)
        self.classes = generated.shape[1]

    def _per_clip(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, self._group).mean(1)

    def exact(self, n: int) -> np.ndarray:
        return self._per_clip(nway.nway_exact(self._generated, labels=self._labels, n=n))

    def monte_carlo(self, n: int, seed: int) -> np.ndarray:
        return self._per_clip(
            nway.nway_monte_carlo(
                self._generated, labels=self._labels, n=n, trials=_MONTE_CARLO_TRIALS, seed=seed
            )
        )

    def mismatched(self, n: int) -> np.ndarray:
        """Each generated clip judged by the labels of every other clip, and averaged."""
        clips = len(self._labels) // self._group
        total = np.zeros(clips)
        for shift in range(1, clips):
            labels = np.roll(self._labels, shift * self._group, axis=0)
            total += self._per_clip(nway.nway_exact(self._generated, labels=labels, n=n))
        return total / (clips - 1)


def row(
    metric: str,
    variant: str,
    values: np.ndarray,
    *,
    subject: str,
    method: str,
    protocol: str,
    seed: int,
    chance: float | None = None,
    mismatched: np.ndarray | None = None,
) -> dict:
    """One line of metrics.json.

    The p-value is one-sided, of the mean over clips being above chance: of a t-test against
    `chance` and of a paired t-test against the same videos judged by other clips' truth
    (`mismatched`), the larger.
    """
    summary = statistics.summarise(values)
    interval = statistics.bootstrap_interval(values, seed=seed)
    tests = []
    if chance is not None:
        tests.append(statistics.t_test(values, chance=chance))
    if mismatched is not None:
        tests.append(statistics.paired_t_test(values, second=mismatched))
        chance = float(mismatched.mean()) if chance is None else chance
    one_sided = [r.p_value / 2 if r.statistic > 0 else 1 - r.p_value / 2 for r in tests]
    return {
        "metric": metric,
        "variant": variant,
        "mean": summary.mean,
        "std": summary.std,
        "n": summary.count,
        "low": interval.low,
        "high": interval.high,
        "chance": chance,
        "p_value": max(one_sided) if one_sided else None,
        "mismatched": None if mismatched is None else float(mismatched.mean()),
        "subject": subject,
        "method": method,
        "protocol": protocol,
    }


def mismatched_similarity(measure: Callable, generated: np.ndarray, truth: np.ndarray, seed: int):
    """A picture measure of each generated clip against five other clips, averaged."""
    shifts = np.random.default_rng(seed).permutation(np.arange(1, len(truth)))[:5]
    values = [measure(generated, truth=np.roll(truth, shift, axis=0)) for shift in shifts]
    return np.mean(values, axis=0)


def method_name(settings: config.Config) -> str:
    """What the alignment layer makes of it, and what the paper's method does not have."""
    if settings.method == "lea":
        return "LEA"
    name = {
        (True, True): "GLFA",
        (False, True): "GLFA without global",
        (True, False): "GLFA without local",
        (False, False): "fMRI-PTE-V",
    }[settings.alignment.global_part, settings.alignment.local_part]
    if settings.contrast.token_scale:
        name += ", caption tokens"
    return name + (", LoRA" if settings.cotrain.trainable == "lora" else "")


def score_subject(
    settings: config.Config, store: Store, subject: str, judges: dict[str, system.Judge]
) -> tuple[list[dict], list[dict[str, float]]]:
    """Lines of metrics.json, and the scores of every clip."""
    generated, clips = read_samples(settings, store, subject)
    truth = store.video("test", clips)
    common = {
        "subject": subject,
        "method": method_name(settings),
        "protocol": settings.protocol.pretraining,
        "seed": settings.seed,
    }
    frames = generated.shape[1]
    flat = (-1, *generated.shape[2:])
    batch = settings.evaluation.batch_size
    video = classifier(judges["video"], batch=batch)
    frame = classifier(judges["frame"], batch=batch * frames)
    accuracies = {
        "video": Nway(video(generated), video(truth), 1),
        "frame": Nway(frame(generated.reshape(flat)), frame(truth.reshape(flat)), frames),
    }
    rows, per_clip = [], {}
    for kind, accuracy in accuracies.items():
        for n in settings.evaluation.ways:
            name, exact = f"{kind} {n}-way", accuracy.exact(n)
            against = {
                "chance": nway.chance(accuracy.classes, n=n),
                "mismatched": accuracy.mismatched(n),
            }
            drawn = accuracy.monte_carlo(n, settings.seed)
            rows.append(row(name, "exact", exact, **against, **common))
            rows.append(row(name, "Monte Carlo, 100 trials", drawn, **against, **common))
            per_clip[name] = exact
    pictures = {
        "SSIM": (image.ssim, "scikit-image"),
        "PSNR": (image.psnr, "dB"),
        "pixel correlation": (image.pixel_correlation, "Pearson"),
    }
    for name, (measure, variant) in pictures.items():
        # A frame that equals its truth has infinite PSNR, which would be the mean's as well.
        values = np.minimum(measure(generated, truth=truth), _MOST_DECIBELS)
        other = mismatched_similarity(measure, generated, truth, settings.seed)
        rows.append(row(name, variant, values, mismatched=other, **common))
        per_clip[name] = values
    scores = [
        {"clip": clip, "subject": subject}
        | {name: round(float(values[i]), 5) for name, values in per_clip.items()}
        for i, clip in enumerate(clips)
    ]
    return rows, scores


def align_maps(settings: config.Config, store: Store) -> None:
    """Maps before and after GLFA, and how alike subjects are, over the test clips all have."""
    path = settings.run_dir / "alignment.npz"
    path.unlink(missing_ok=True)
    if not settings.aligned:
        return
    protocol = settings.protocol
    subjects = list(dict.fromkeys((*protocol.train_subjects, *protocol.test_subjects)))
    present = store.present("test", subjects=subjects).all(1)
    clips = np.flatnonzero(present)[: settings.evaluation.clips]
    model = pretrained.load("fmri_encoder", system.model_folder(settings, "cotrain") / "encoder")
    if not len(clips):
        return
    apply = jax.jit(lambda x: model.module.apply(model.variables, x, method="align"))
    mask, middle = store.mask, settings.data.window // 2
    shown, alike = [], []
    for clip in clips:  # one at a time: all maps of a benchmark would fill the memory
        before = store.fmri("test", [clip], subjects=subjects)[0].astype(np.float32)
        both = (before, jax.device_get(apply(before)))
        alike.append([inter_subject_correlation(maps, mask) for maps in both])
        shown = shown or [maps[:, middle] for maps in both]
    isc_before, isc_after = np.mean(alike, axis=0)
    aside = path.with_suffix(".partial.npz")
    np.savez(
        aside,
        mask=mask,
        subjects=subjects,
        before=shown[0],
        after=shown[1],
        isc_before=isc_before,
        isc_after=isc_after,
    )
    os.replace(aside, path)


def inter_subject_correlation(maps: np.ndarray, mask: np.ndarray) -> float:
    """Mean Pearson correlation over cortex pixels, between subjects, of the same volume.

    maps: (subjects, window, h, w). Not a number with one subject.
    """
    values = maps[..., mask].astype(np.float64)
    values = values - values.mean(-1, keepdims=True)
    values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    pairs = combinations(range(len(maps)), 2)
    each = [np.einsum("wp,wp->w", values[i], values[j]).mean() for i, j in pairs]
    return float(np.mean(each)) if each else float("nan")


def main(settings: config.Config) -> None:
    use_compilation_cache()
    check_unchanged(settings.run_dir, settings)
    index_path = folder(settings) / "index.json"
    if not index_path.exists():
        raise InputError(
            f"{folder(settings)}: nothing sampled yet; run python -m eval.sample with this "
            "configuration first"
        )
    store = Store.open(settings.data.store)
    refuse_other_settings(settings, store)
    judges = {
        "video": system.load_video_classifier(settings),
        "frame": system.load_judge(settings, "vit", system.IMAGE_CLASSIFIER),
    }
    rows, scores = [], {}
    for subject in tqdm(settings.protocol.test_subjects, desc="score", unit="subject"):
        lines, clips = score_subject(settings, store, subject, judges)
        rows += lines
        for clip in clips:
            scores[clip.pop("subject"), clip.pop("clip")] = clip
    index = json.loads(index_path.read_text())
    for entry in index:
        entry["scores"] = scores[entry["subject"], entry["clip"]]
    write_atomically(index_path, json.dumps(index, indent=1))
    write_atomically(settings.run_dir / "metrics.json", json.dumps(rows, indent=1) + "\n")
    align_maps(settings, store)
    for line in rows:
        chance = "" if line["chance"] is None else f", chance {line['chance']:.3f}"
        p = "" if line["p_value"] is None else f", p = {line['p_value']:.2g}"
        print(
            f"subject {line['subject']}: {line['metric']} ({line['variant']}) "
            f"{line['mean']:.3f} ± {line['std']:.3f}{chance}{p}"
        )
    print(f"report: {page.write(settings.run_dir)}", flush=True)


if __name__ == "__main__":
    run_main(main, description=__doc__)
