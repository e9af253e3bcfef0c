"""Runs made by hand, compared by the command: every number against scipy or a hand's count."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from glfa_jax.cli import guarded
from glfa_jax.evaluation.compare import main, parse
from glfa_jax.report.comparison.table import Level, p_value_text
from glfa_jax.results import ClipScores, Metric, Sampling, Scores
from tests.evaluation import made
from tests.report.test_page import parse as parse_html

RNG = np.random.default_rng(3)
BASE = RNG.normal(0.6, 0.1, 12)
WORSE = BASE - 0.03 + RNG.normal(0, 0.02, 12)
WORST = BASE - 0.3 + RNG.normal(0, 0.02, 12)


@dataclass(frozen=True)
class Compared:
    code: int
    out: str
    error: str
    folder: Path

    @property
    def content(self) -> dict:
        def reject(word: str) -> None:
            raise AssertionError(f"{word} is no JSON")

        text = (self.folder / "comparison.json").read_text(encoding="utf-8")
        return json.loads(text, parse_constant=reject)

    def entry(self, metric: str, method: str) -> dict:
        of_metric = next(m for m in self.content["metrics"] if m["name"] == metric)
        return next(e for e in of_metric["entries"] if e["method"] == method)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys) -> Callable[..., Compared]:
    """Runs the command on scores, which lie in folders r0, r1, ...; more arguments follow."""
    monkeypatch.chdir(tmp_path)

    def run(scores: Sequence[Scores], *arguments: str, labels: dict[int, str] | None = None):
        named = []
        for i, one in enumerate(scores):
            Path(f"r{i}").mkdir(exist_ok=True)
            one.write(Path(f"r{i}"))
            label = (labels or {}).get(i)
            named.append(f"{label}=r{i}" if label else f"r{i}")
        given = parse([*named, *arguments])
        code = guarded(lambda: main(given))
        out = capsys.readouterr()
        return Compared(code, out.out, out.err, tmp_path / "comparison")

    return run


def one(values: Sequence[float], method: str, **changes) -> Scores:
    return made.scores({"video 2-way": values}, method=method, **changes)


# --- numbers ------------------------------------------------------------------------------------


def test_p_values_equal_scipy_and_holm_a_hand(compare):
    compared = compare([one(BASE, "GLFA"), one(WORSE, "LEA"), one(WORST, "none")])
    assert compared.code == 0
    raw = {}
    for method, values in (("LEA", WORSE), ("none", WORST)):
        difference = compared.entry("video 2-way", method)["difference"]
        for kind, theirs in (
            ("two_sample", stats.ttest_ind(values, BASE)),
            ("paired", stats.ttest_rel(values, BASE)),
        ):
            ours = difference[kind]["test"]
            assert ours["statistic"] == pytest.approx(theirs.statistic, rel=1e-10)
            assert ours["p_value"] == pytest.approx(theirs.pvalue, rel=1e-8)
            raw[kind, method] = theirs.pvalue, difference[kind]["holm"]
        d = values - BASE
        assert difference["estimate"] == pytest.approx(d.mean(), rel=1e-12)
        assert difference["cohens_d"] == pytest.approx(d.mean() / d.std(ddof=1), rel=1e-12)
        interval = difference["interval"]
        assert interval["low"] < d.mean() < interval["high"]
        half = stats.t.ppf(0.975, 11) * stats.sem(d)  # the bootstrap is a little narrower
        assert 0.7 < (interval["high"] - interval["low"]) / (2 * half) < 1.0
    for kind in ("two_sample", "paired"):
        (small, small_holm), (large, large_holm) = sorted(raw[kind, m] for m in ("LEA", "none"))
        assert small_holm == pytest.approx(min(1, 2 * small), rel=1e-8)
        assert large_holm == pytest.approx(max(min(1, 2 * small), large), rel=1e-8)


def test_all_metrics_and_methods_are_one_family(compare):
    rng = np.random.default_rng(0)
    values = {name: rng.normal(0.5, 0.1, 12) for name in "abc"}
    runs = [
        made.scores({k: v + shift * rng.random(12) for k, v in values.items()}, method=name)
        for name, shift in (("GLFA", 0), ("LEA", 0.1), ("other", 0.4))
    ]
    compared = compare(runs)
    tested = [
        compared.entry(metric, method)["difference"]["paired"]
        for metric in "abc"
        for method in ("LEA", "other")
    ]
    p_values = [t["test"]["p_value"] for t in tested]
    running = 0.0
    for rank, i in enumerate(np.argsort(p_values)):
        running = max(running, min(1.0, (6 - rank) * p_values[i]))
        assert tested[i]["holm"] == pytest.approx(running, rel=1e-12)
    assert "corrected by Holm's method for 6 comparisons" in compared.out


def test_seeds_are_averaged_for_tests_over_clips_and_tested_themselves(compare):
    ours = [BASE + shift for shift in (0.0, 0.01, 0.05)]
    theirs = [WORSE + shift for shift in (0.0, 0.02)]
    runs = [one(v, "GLFA", seed=i) for i, v in enumerate(ours)]
    runs += [one(v, "LEA", seed=i + 5) for i, v in enumerate(theirs)]
    compared = compare([runs[4], *runs[:4]])
    entry = compared.entry("video 2-way", "GLFA")
    mean = BASE + 0.02
    assert entry["over_clips"]["mean"] == pytest.approx(mean.mean())
    assert entry["over_clips"]["std"] == pytest.approx(mean.std(ddof=1))
    assert entry["over_seeds"]["count"] == 3
    means = [v.mean() for v in ours]
    assert entry["over_seeds"]["std"] == pytest.approx(np.std(means, ddof=1))
    assert entry["difference"] is None
    difference = compared.entry("video 2-way", "LEA")["difference"]
    welch = stats.ttest_ind([v.mean() for v in theirs], means, equal_var=False)
    assert difference["over_seeds"]["test"]["p_value"] == pytest.approx(welch.pvalue, rel=1e-8)
    student = stats.ttest_ind(WORSE + 0.01, mean)
    assert difference["two_sample"]["test"]["p_value"] == pytest.approx(student.pvalue, rel=1e-8)
    methods = {m["name"]: (m["seeds"], m["runs"]) for m in compared.content["methods"]}
    assert methods == {"LEA": ([5, 6], ["r4", "r0"]), "GLFA": ([0, 1, 2], ["r1", "r2", "r3"])}
    assert f"seeds ± {np.std(means, ddof=1):.3f}" in compared.out
    assert "different numbers of seeds" in compared.out


def test_one_value_a_run_is_tested_over_seeds_only(compare):
    distances = {"GLFA": [10.0, 11.0, 12.5], "LEA": [20.0, 22.0, 21.0]}
    runs = [
        one(BASE, name, seed=seed, overall={"Fréchet distance": value})
        for name, values in distances.items()
        for seed, value in enumerate(values)
    ]
    compared = compare(runs)
    entry = compared.entry("Fréchet distance", "LEA")
    assert entry["over_clips"] is None
    assert entry["over_seeds"]["mean"] == 21
    difference = entry["difference"]
    assert difference["paired"] is difference["interval"] is difference["cohens_d"] is None
    welch = stats.ttest_ind(distances["LEA"], distances["GLFA"], equal_var=False)
    assert difference["over_seeds"]["test"]["p_value"] == pytest.approx(welch.pvalue, rel=1e-8)
    assert "21.0 ± 1.0 †" in compared.out
    assert "Fréchet distance ↓ (VideoMAE features)" in compared.out
    signs = "† p < 0.05, ○ p ≥ 0.05, of "
    student = "Student's two-sample t-test over clips, corrected by Holm's method for 1 comparison"
    welch = "Welch's t-test over seeds for Fréchet distance, corrected by Holm's method for "
    assert f"{signs}{student}; of {welch}2 comparisons." in compared.out
    alone = compare(runs, "--metrics", "Fréchet distance")
    assert "metrics of one value a run, which only seeds can test" in alone.text("index.html")
    assert f"{signs}{welch}1 comparison." in alone.out
    reading = "Fréchet distance: one value a run; mean ± standard deviation over seeds."
    assert reading in alone.out
    assert "over clips" not in alone.out.split("##")[1]


def test_clips_are_paired_by_name_not_by_place(compare):
    run = one(WORSE, "LEA")
    turned = replace(run, clips=run.clips[::-1])
    compared = compare([one(BASE, "GLFA"), turned])
    difference = compared.entry("video 2-way", "LEA")["difference"]
    theirs = stats.ttest_rel(WORSE, BASE).pvalue
    assert difference["paired"]["test"]["p_value"] == pytest.approx(theirs, rel=1e-8)


def test_a_clip_that_several_saw_is_one_clip_to_the_tests(compare):
    """Clips are hard or easy for all subjects: as many clips as pairs would say too much."""
    rng = np.random.default_rng(2)
    kept = rng.random((3, 12)) < 0.7
    kept[:, 0] = True
    keys = [made.clip(int(i), f"0{s}") for s, i in zip(*np.nonzero(kept), strict=True)]

    def run(name: str) -> tuple[np.ndarray, Scores]:
        values = np.repeat(rng.random((1, 12)), 3, axis=0) + 0.1 * rng.random((3, 12))
        rows = zip(keys, values[kept], strict=True)
        clips = tuple(ClipScores(k.subject, k.clip, {"video 2-way": v}) for k, v in rows)
        made_of = replace(one(BASE, name), clips=clips[::-1])
        return np.ma.masked_array(values, ~kept).mean(0).data, made_of

    (first, ours), (second, theirs) = run("GLFA"), run("LEA")
    seen = kept.any(0)
    compared = compare([ours, theirs])
    entry = compared.entry("video 2-way", "LEA")
    expected = stats.ttest_rel(second[seen], first[seen])
    paired = entry["difference"]["paired"]["test"]
    assert paired["p_value"] == pytest.approx(expected.pvalue, rel=1e-8)
    assert paired["degrees_of_freedom"] == seen.sum() - 1
    student = stats.ttest_ind(second[seen], first[seen]).pvalue
    two_sample = entry["difference"]["two_sample"]["test"]
    assert two_sample["p_value"] == pytest.approx(student, rel=1e-8)
    assert entry["difference"]["estimate"] == pytest.approx((second - first)[seen].mean())
    assert entry["over_clips"]["count"] == kept.sum()
    assert "every clip once, as its mean over the subjects who saw it" in compared.out
    alone = replace(ours, clips=tuple(c for c in ours.clips if c.clip == 0))
    rejected = compare([alone, replace(alone, method="LEA")])
    assert "r0: one clip; tests need two or more" in rejected.error


def test_clips_without_fmri_are_named(compare):
    runs = [one(BASE, name, unscanned=(made.clip(14), made.clip(20))) for name in ("GLFA", "LEA")]
    note = "Not decoded, as there is no fMRI of it: clips 14, 20 of subject 03."
    assert note in compare(runs).out


def test_two_copies_of_one_run_do_not_differ(compare):
    run = one(BASE, "GLFA", overall={"Fréchet distance": 10.0})
    compared = compare([run, replace(run, run="copy")], labels={1: "copy"})
    difference = compared.entry("video 2-way", "copy")["difference"]
    for kind in ("two_sample", "paired"):
        assert difference[kind]["test"]["statistic"] == 0
        assert difference[kind]["test"]["p_value"] == difference[kind]["holm"] == 1
    assert difference["estimate"] == difference["cohens_d"] == 0
    assert (difference["interval"]["low"], difference["interval"]["high"]) == (0, 0)
    assert compared.entry("Fréchet distance", "copy")["difference"]["estimate"] == 0
    row = "| video 2-way | copy | 0.0000 | 0.0000 to 0.0000 | 0.00 | 1.000 ○ (1.000) |"
    assert row in compared.out
    assert "0 better, 0 worse, 1 not distinguishable" in compared.text("index.html")


def test_a_difference_that_never_varies_is_written_as_json(compare):
    halves = np.arange(12) / 64
    compared = compare([one(halves, "GLFA"), one(halves + 0.5, "up")])
    difference = compared.entry("video 2-way", "up")["difference"]
    assert difference["estimate"] == 0.5
    assert difference["cohens_d"] is None
    assert difference["paired"]["test"]["p_value"] == 0
    assert "+∞" in compared.out


# --- what is compared ---------------------------------------------------------------------------


def test_the_reference_is_glfa_else_the_first_else_as_named(compare):
    lea, ours, other = one(WORSE, "LEA"), one(BASE, "GLFA"), one(WORST, "other")
    assert compare([lea, ours]).content["reference"] == "GLFA"
    assert compare([lea, other]).content["reference"] == "LEA"
    assert compare([lea, ours], "--reference", "LEA").content["reference"] == "LEA"
    rejected = compare([lea, ours], "--reference", "glfa")
    assert rejected.code == 2
    assert "reference 'glfa': no such method here, there are ['LEA', 'GLFA']" in rejected.error


def test_metrics_are_chosen_and_ordered_and_the_uncommon_left_out(compare):
    full = made.scores({"a": BASE, "b": BASE, "c": BASE}, method="GLFA")
    less = made.scores({"c": WORSE, "a": WORSE}, method="LEA")
    compared = compare([full, less])
    assert [m["name"] for m in compared.content["metrics"]] == ["a", "c"]
    assert "Left out, as not every run has it: b (not in r1)." in compared.out
    chosen = compare([full, less], "--metrics", "c", "a")
    assert [m["name"] for m in chosen.content["metrics"]] == ["c", "a"]
    assert "Left out" not in chosen.out
    assert "metric 'b': not in r1" in compare([full, less], "--metrics", "b").error
    twice = compare([full, less], "--metrics", "a", "c", "a").error
    assert "metric 'a': is named twice" in twice
    unknown = compare([full, less], "--metrics", "d").error
    assert "metric 'd': in none of the runs; they hold 'a', 'b', 'c'" in unknown
    nothing = compare([one(BASE, "GLFA"), made.scores({"a": BASE}, method="LEA")]).error
    assert "no metric that all runs have; some have 'video 2-way', 'a'" in nothing


def test_other_sampling_of_another_method_is_noted(compare):
    other = one(WORSE, "LEA", sampling=Sampling("ddim", 50, 6.5))
    compared = compare([one(BASE, "GLFA"), other])
    assert compared.code == 0
    note = "sampled differently: dpm++, 25 steps, guidance 9: GLFA; ddim, 50 steps, guidance 6.5: "
    assert f"{note}LEA." in compared.out


def test_one_method_alone_is_a_table_without_tests(compare):
    compared = compare([one(BASE, "GLFA", seed=s) for s in (0, 1)], "--published")
    assert compared.code == 0
    assert "Differences" not in compared.out
    assert "0.811 ± 0.03" in compared.out
    assert "not measured here" in compared.text("index.html")
    assert "another data set" in compared.text("table.tex")


def test_chance_is_shown_where_there_is_one(compare):
    metrics = {"video 2-way": made.WAYS, "SSIM": made.SSIM}
    runs = [
        made.scores({"video 2-way": v, "SSIM": v}, method=name, metrics=metrics)
        for name, v in (("GLFA", BASE), ("LEA", WORSE))
    ]
    assert "| chance | 0.750 | – |" in compare(runs).out
    other = runs[1].metrics | {"SSIM": replace(made.SSIM, chance=0.1)}
    some = runs[0].metrics | {"SSIM": replace(made.SSIM, chance=0.125)}
    differing = [replace(runs[0], metrics=some), replace(runs[1], metrics=other)]
    assert "| chance | 0.750 | 0.100 to 0.125 |" in compare(differing).out


# --- rejections -----------------------------------------------------------------------------------


def _other_clips(run: Scores) -> Scores:
    kept = (ClipScores(c.subject, c.clip + 7, c.scores) for c in run.clips)
    return replace(run, clips=tuple(kept))


def _protocol(**changes) -> Callable[[Scores], Scores]:
    return lambda run: replace(run, protocol=replace(run.protocol, **changes))


def _metric(**changes) -> Callable[[Scores], Scores]:
    other: Metric = replace(made.WAYS, **changes)
    return lambda run: replace(run, metrics={"video 2-way": other})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _other_clips,
            "r1: scored on other clips than r0: without clips 0, 1, 2, 3, 4 and 2 more of subject "
            "03 and with clips 12, 13, 14, 15, 16 and 2 more of subject 03; only runs of the same",
        ),
        (
            lambda run: replace(run, clips=(*run.clips[:-1], replace(run.clips[-1], subject="04"))),
            "r1: scored on other clips than r0: without clip 11 of subject 03 and with clip 11 of "
            "subject 04;",
        ),
        (
            lambda run: replace(run, clips=run.clips[2:], missing=(made.clip(0), made.clip(1))),
            "r1: 2 of the wanted clips were not sampled (clips 0, 1 of subject 03); sample and",
        ),
        (
            _protocol(pretraining="published"),
            "r1: protocol pretraining is 'published', but 'strict' in r0; only runs of one",
        ),
        (_protocol(test_data="data-b"), "r1: protocol test_data is 'data-b', but 'data-a' in r0;"),
        (_protocol(name="within-subject"), "r1: protocol name is 'within-subject', but 'cross-"),
        (
            _protocol(train_subjects=("01", "04")),
            "r1: protocol train_subjects is '01, 04', but '01, 02' in r0;",
        ),
        (
            _metric(variant="Monte Carlo"),
            "r1: metric 'video 2-way' has variant 'Monte Carlo', but 'exact' in r0; score them",
        ),
        (
            lambda run: replace(run, judges=run.judges | {"image-classifier": "cc"}),
            "r1: scored with another image-classifier (cc) than r0 (bb); score both with the same",
        ),
        (_metric(better="lower"), "r1: metric 'video 2-way' has better 'lower', but 'higher' in"),
        (
            lambda run: made.scores({"x": WORSE}, method="LEA", overall={"video 2-way": 1.0}),
            "metric 'video 2-way': one value a clip in some runs, one value a run in others;",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_rejected(compare, change, sentence):
    for method, seed in (("LEA", 0), ("GLFA", 1)):  # between methods, and within one
        changed = change(one(WORSE, method, seed=seed))
        rejected = compare([one(BASE, "GLFA"), changed])
        assert rejected.code == 2
        assert sentence in rejected.error
        assert len(rejected.error.splitlines()) == 1
        assert not rejected.folder.exists()


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling("ddim", 25, 9.0), "sampling sampler is 'ddim', but 'dpm++' in r0"),
        (Sampling("dpm++", 30, 9.0), "sampling steps is 30, but 25 in r0"),
        (Sampling("dpm++", 25, 6.0), "sampling guidance_scale is 6.0, but 9.0 in r0"),
    ],
)
def test_other_sampling_of_the_same_method_is_rejected(compare, sampling, words):
    runs = [one(BASE, "GLFA"), one(WORSE, "GLFA", seed=1, sampling=sampling)]
    rejected = compare(runs)
    assert rejected.code == 2
    assert f"r1: {words}, of the same method 'GLFA'; to compare the two" in rejected.error
    assert not rejected.folder.exists()
    assert compare(runs, labels={1: "other"}).code == 0


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        ({"contrast.steps": "100"}, "contrast.steps is 100, but 1500 in r0"),
        ({"cotrain.glfa_scale": "0.5"}, "cotrain.glfa_scale is 0.5, but 1.0 in r0"),
        ({"adapt.steps": "3"}, "adapt.steps is 3, but not an option in r0"),
    ],
)
def test_other_training_of_the_same_method_is_rejected(compare, trained, words):
    """Between methods it is what is compared."""
    runs = [one(BASE, "GLFA"), one(WORSE, "GLFA", seed=1, training=made.TRAINING | trained)]
    rejected = compare(runs)
    assert rejected.code == 2
    assert f"r1: {words}, of the same method 'GLFA'; to compare the two" in rejected.error
    assert not rejected.folder.exists()
    assert compare(runs, labels={1: "other"}).code == 0


def test_a_run_scored_before_starts_and_presets_is_of_the_same_method(compare):
    """It knew neither key, started from random weights, and its scales say the preset."""
    now = {"pretrain.start_from": '"random weights"', "cotrain.preset": '"code"'}
    runs = [one(BASE, "GLFA"), one(WORSE, "GLFA", seed=1, training=made.TRAINING | now)]
    assert compare(runs).code == 0
    now["pretrain.start_from"] = '"models/fmri-pte, sha256 0123456789abcdef"'
    runs[1] = one(WORSE, "GLFA", seed=1, training=made.TRAINING | now)
    rejected = compare(runs)
    assert rejected.code == 2
    assert 'r1: pretrain.start_from is "models/fmri-pte, sha256' in rejected.error


def test_a_run_named_twice_is_rejected_and_a_label_helps(compare):
    run = one(BASE, "GLFA")
    rejected = compare([run, run])
    assert rejected.code == 2
    assert "r1: has method 'GLFA' and seed 0 of r0 as well;" in rejected.error
    assert "LABEL=r1" in rejected.error
    assert compare([run, run], labels={1: "the same"}).code == 0


def test_one_clip_and_no_file_are_rejected(compare):
    assert "one clip; tests need two or more" in compare([one([0.5], "a"), one([0.4], "b")]).error
    rejected = compare([one(BASE, "GLFA")], "absent")
    assert rejected.code == 2
    assert "error: absent: no such file" in rejected.error
    assert "=absent: must be RUN or LABEL=RUN" in compare([one(BASE, "GLFA")], "=absent").error


# --- what is written ----------------------------------------------------------------------------


@pytest.fixture
def odd(compare) -> Compared:
    """Names that every format reads as something else."""
    name = r"[a_b] <c>|$x$ 5%&\{}"
    metrics = {"SSIM <b>": made.SSIM}
    runs = [
        made.scores({"SSIM <b>": v}, method=m, metrics=metrics)
        for m, v in (("GLFA", BASE), (name, WORST))
    ]
    return compare(runs, "--published")


def test_html_escapes_names_and_needs_nothing_else(odd):
    text = odd.text("index.html")
    page = parse_html(text)  # every tag is closed in order
    assert r"[a_b] <c>|$x$ 5%&\{}" in page.text
    assert not re.search(r"<c>|<b>", text)
    assert "default-src 'none'; img-src data:; style-src" in text
    assert not any(key in ("src", "href") for _, key, _ in page.attributes)
    classes = [value for tag, key, value in page.attributes if (tag, key) == ("td", "class")]
    assert classes.count("strong") == 3  # results; Student's and paired test
    assert any(tag == "circle" for tag, _, _ in page.attributes)


def test_latex_escapes_names_and_closes_what_it_opens(odd):
    text = odd.text("table.tex")
    name = r"{[}a\_b] \textless{}c\textgreater{}\textbar{}\$x\$ 5\%\&\textbackslash{}\{\}"
    assert f"\n{name} & \\cellcolor[HTML]{{C9EEF5}}" in text
    assert not re.search(r"[±−↑↓→≥–‡†○“”]", text)
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert re.findall(r"\\begin\{(\w+)}", text) == ["table", "tabular"] * 3
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 3
    columns = [len(c) for c in re.findall(r"\\begin\{tabular}\{(\w+)}", text)]
    for width, table in zip(columns, text.split(r"\begin{tabular}")[1:], strict=True):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert all(len(re.findall(r"(?<!\\)&", row)) == width - 1 for row in rows)


def test_markdown_escapes_names_and_is_what_is_printed(odd):
    text = odd.text("table.md")
    assert odd.out.startswith(text)
    assert r"| \[a\_b\] \<c>\|\$x\$ 5%\&\\{} |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_three_classes_of_the_paper():
    assert [Level.of(p) for p in (0, 0.000999)] == [Level.STRONG] * 2
    assert [Level.of(p) for p in (0.001, 0.0499)] == [Level.WEAK] * 2
    assert [Level.of(p) for p in (0.05, 1.0)] == [Level.NONE] * 2


@pytest.mark.parametrize(
    ("p", "text"),
    [
        *((1.0, "1.000"), (0.0123, "0.012"), (0.00121, "0.0012"), (3.21e-9, "3.2e−9"), (0.0, "0")),
        *((0.05, "0.050"), (0.0499, "0.0499"), (0.049996, "0.049996"), (0.001, "0.0010")),
        *((0.000999, "9.99e−4"), (0.00096, "9.6e−4")),
        (np.nextafter(0.05, 0), "0.049999999999999996"),
    ],
)
def test_p_values_are_written_with_digits_that_count(p, text):
    assert p_value_text(p) == text


def test_colours_follow_the_corrected_p_value(compare):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 30)
    runs = [one(noise, "GLFA")]
    shift = 0.06  # seen by itself, not among ten
    runs += [one(np.roll(noise, 1) + (shift if i == 0 else 0), f"m{i}") for i in range(10)]
    alone = compare(runs[:2]).entry("video 2-way", "m0")["difference"]["two_sample"]
    compared = compare(runs)
    among = compared.entry("video 2-way", "m0")["difference"]["two_sample"]
    assert alone["test"]["p_value"] == among["test"]["p_value"] < 0.05
    assert among["holm"] == pytest.approx(10 * alone["holm"])
    assert among["holm"] > 0.05
    assert "†" not in compared.out.split("Against")[0]
    assert "†" in compare(runs[:2]).out.split("Against")[0]
