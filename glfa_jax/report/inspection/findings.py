"""What is out of the ordinary in a prepared store, one sentence each: where to look first.

The limits are generous: what they let pass may still be wrong, what they name deserves a look.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

from glfa_jax.data.store import Store
from glfa_jax.report.inspection.cleaning import measured
from glfa_jax.report.inspection.courses import courses
from glfa_jax.report.inspection.inspection import Inspection

MISSING = 0.05  # share of a subject's samples
SILENT = 0.01  # share of cortex pixels
LOW_TSNR = 10.0  # preprocessed scans have several tens
CENTRED_TSNR = 0.5  # no raw signal lies so near zero
LARGEST_Z = 10.0
SIDES = 2.0  # ratio of the hemispheres' median tSNR
FIRST_VOLUME = 5.0  # standard deviations from the rest of its run
ALIKE = 0.02  # mean correlation over the map, between repeats or subjects
COURSE = 10.0  # per cent change of the cortex's mean within a run
# Share of a pixel's variance, beyond chance. Noise with a correlation of .7 from volume to volume
# has .08 in runs of 240 volumes, and cleaned series have none.
DRIFT = 0.1
MOTION = 0.4  # correlation: a sixth of the variance of what changes
CHANCE = 3.0  # standard errors of a correlation, 1 / sqrt(volumes)


def findings(store: Store, inspection: Inspection) -> list[str]:
    return [
        sentence
        for subject in store.attributes.subjects
        for check in (_samples, _signal, _course, _cleaning, _repeats)
        for sentence in check(store, inspection, subject)
    ] + list(_strangers(inspection))


def is_centred(store: Store, subject: str) -> bool:
    """Whether the mean was taken out before preparation: mean and tSNR then mean nothing."""
    return bool(abs(_median(store.quality("tsnr", subject)[store.mask])) < CENTRED_TSNR)


def _samples(store: Store, inspection: Inspection, subject: str) -> Iterator[str]:
    signal = inspection.signals[subject]
    for split, total in signal.total.items():
        missing = total - signal.present[split]
        if missing > MISSING * total:
            yield (
                f"Subject {subject} lacks {missing} of {total} {split} samples: runs or trials "
                "are missing, runs end before their last trials, or volumes were censored."
            )


def _signal(store: Store, inspection: Inspection, subject: str) -> Iterator[str]:
    mask, signal = store.mask, inspection.signals[subject]
    silent = int((mask & ~signal.moving).sum())
    if silent > SILENT * mask.sum():
        yield (
            f"Subject {subject}: {silent:,} of {mask.sum():,} cortex pixels never vary: the scan "
            "does not cover them, or the region is not where the data are."
        )
    if signal.peak > LARGEST_Z:
        yield (
            f"Subject {subject}: the largest |z| is {signal.peak:.1f}; spikes of this size come "
            "from motion or from volumes that should have been dropped."
        )
    tsnr = store.quality("tsnr", subject)
    if is_centred(store, subject):
        yield (
            f"Subject {subject}: the signal is centred around zero, so it was z-scored "
            "or detrended before preparation; its mean and temporal SNR say nothing."
        )
        return
    level = _median(tsnr[mask])
    if level < LOW_TSNR:
        yield (
            f"Subject {subject}: the median temporal SNR is {level:.1f}; preprocessed scans "
            "usually have several tens."
        )
    columns = np.flatnonzero(mask.any(axis=0))
    middle = (columns[0] + columns[-1] + 1) // 2
    halves = (np.s_[:, :middle], np.s_[:, middle:])
    left, right = (_median(tsnr[half][mask[half]]) for half in halves)
    if max(left, right) > SIDES * min(left, right):
        yield (
            f"Subject {subject}: temporal SNR differs between the hemispheres, {left:.0f} left and "
            f"{right:.0f} right: one hemisphere's file may be wrong."
        )


def _course(store: Store, inspection: Inspection, subject: str) -> Iterator[str]:
    if is_centred(store, subject):
        return
    kind = "course_cleaned" if "course_cleaned" in store.attributes.kinds else "course"
    left = courses(store, subject, kind=kind)  # in the maps
    largest, where, firsts = 0.0, "", []
    for (run, course), (_, rest) in zip(courses(store, subject), left, strict=True):
        if len(course) < 4:
            continue
        change = float(np.abs(rest).max())
        if change > largest:
            largest, where = change, run["name"]
        firsts.append(abs(course[0] - course[1:].mean()) / max(float(course[1:].std()), 1e-6))
    if firsts and np.median(firsts) > FIRST_VOLUME:
        yield (
            f"Subject {subject}: the first volume of most runs lies far from the rest: volumes "
            "before the steady state seem not to be dropped."
        )
    if largest > COURSE:
        yield (
            f"Subject {subject}: the mean over the cortex changes by up to {largest:.0f} % within "
            f"run {where}: look for motion, spikes or drift."
        )


def _cleaning(store: Store, inspection: Inspection, subject: str) -> Iterator[str]:
    """What is left in the maps, whether they were cleaned or not."""
    after = "_cleaned" if "course_cleaned" in store.attributes.kinds else ""
    drift, motion = (measured(store, subject, name + after) for name in ("drift", "motion"))
    if drift is not None and drift > DRIFT:
        yield (
            f"Subject {subject}: the maps drift: slow waves are {drift:.0%} of the variance of a "
            "pixel in the usual run; data.clean takes them out (polynomial, cosine_seconds or "
            "high_pass_hz)."
        )
    volumes = [run["volumes"] for run in store.attributes.runs_of(subject)]
    if motion is not None and motion > max(MOTION, CHANCE / np.sqrt(np.median(volumes))):
        yield (
            f"Subject {subject}: the maps change when the head moves (correlation {motion:.2f} "
            "with its framewise displacement in the usual run); data.clean takes motion out "
            "(confounds) and leaves volumes out (censor)."
        )


def _repeats(store: Store, inspection: Inspection, subject: str) -> Iterator[str]:
    if store.attributes.repeats[subject] < 2:
        return
    reliability = store.quality("reliability", subject)[store.mask]
    mean = float(np.nan_to_num(reliability).mean())
    if inspection.signals[subject].present["test"] and mean < ALIKE:
        yield (
            f"Subject {subject}: repeats of the same clip hardly agree (mean correlation "
            f"{mean:.3f}): check event times, the order of runs and repeat numbers."
        )


def _strangers(inspection: Inspection) -> Iterator[str]:
    """Subjects that correlate with nobody, where others do with each other."""
    measured = [pair for pair in inspection.pairs if pair.samples]
    alike = {pair.subjects: pair.mean > ALIKE for pair in measured}
    if alike and not any(alike.values()):
        yield (
            "No two subjects respond alike to the same clips: check that clips and times belong "
            "to the runs, and the lag."
        )
    elif len(alike) > 1:
        for subject in inspection.signals:
            fits = [fit for names, fit in alike.items() if subject in names]
            if fits and not any(fits):
                yield (
                    f"Subject {subject} responds like nobody else, though others respond alike: "
                    "runs may be out of order or the hemispheres exchanged."
                )


def _median(values: ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0
