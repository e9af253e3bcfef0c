import base64
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config as config_module
from glfa_jax.errors import InputError
from glfa_jax.report import clips as clips_module
from glfa_jax.report import inputs, page
from glfa_jax.report.__main__ import command as main
from glfa_jax.report.html import render
from glfa_jax.report.inputs import ReportError
from tests.report import fake

CLIPS = 11
VOID = {"meta", "img", "br", "input", "link", "hr"}


class Checker(HTMLParser):
    """Fails on a tag closed out of order; collects attributes and text."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text.append(data)


def parse(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return fake.make(tmp_path_factory.mktemp("report") / "run", clips=CLIPS)


@pytest.fixture
def run(original, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(original, tmp_path / "run", ignore=shutil.ignore_patterns("report"))


@pytest.fixture(scope="module")
def text(original) -> str:
    return page.write(original).read_text(encoding="utf-8")


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def render_clips(given: list[inputs.Clip], *, budget: int) -> str:
    section = clips_module.clips_section(given, "video 2-way", lower=(), budget=budget)
    return render("clips.html", clips=section)


def words(text: str) -> str:
    return " ".join("".join(parse(text).text).split())


def test_every_clip_is_embedded_with_caption_and_scores(text, original):
    gallery = text[text.index('<details class="gallery"') : text.index('id="metrics"')]
    plain = words(text)
    for row in json.loads((original / "samples" / "index.json").read_text()):
        for key in ("generated_gif", "truth_gif"):
            content = (original / "samples" / row[key]).read_bytes()
            assert base64.b64encode(content).decode() in gallery
        assert " ".join(row["caption"].split()) in plain
        assert f"clip {row['clip']}, subject 03" in plain
        for name, value in row["scores"].items():
            assert f"{name} {value:.3f}" in plain


def test_every_metric_stands_in_the_table(text, original):
    table = text[text.index("<table") : text.index("</table>")]
    rows = re.findall(r"<tr>.*?</tr>", table)[1:]
    given = json.loads((original / "metrics.json").read_text())
    assert len(rows) == len(given)
    for html, metric in zip(rows, given, strict=True):
        assert metric["metric"] in html
        assert metric["variant"] in html
        digits = 3 if metric["mean"] < 1.5 else 2 if metric["mean"] < 10 else 1
        assert f"{metric['mean']:.{digits}f} ± {metric['std']:.{digits}f}" in html


def test_page_needs_nothing_beside_itself(text):
    assert not re.search(r"https?://", text)
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert "default-src 'none'; img-src data:; media-src data:; style-src" in text
    for tag, key, value in parse(text).attributes:
        if key in ("src", "href", "poster", "srcset", "data"):
            assert value.startswith(("data:", "#")), (tag, key, value[:60])


def test_html_is_balanced_with_unique_ids_and_words_for_every_picture(text):
    checker = parse(text)
    ids = Counter(value for _, key, value in checker.attributes if key == "id")
    assert [name for name, count in ids.items() if count > 1] == []
    links = {value[1:] for tag, key, value in checker.attributes if (tag, key) == ("a", "href")}
    assert links <= set(ids)
    assert sum(tag == "img" and key == "alt" for tag, key, _ in checker.attributes) == text.count(
        "<img"
    )


def test_captions_are_escaped(text):
    assert "<script" not in text
    assert fake.NASTY in words(text)


def test_summary_says_who_what_and_against_which_chance(text):
    assert (
        f"Trained on subjects 01 and 02, the model decoded {CLIPS} test clips from the fMRI of "
        "subject 03 (cross-subject decoding, strict pretraining) with a video 2-way accuracy of "
        "84.7 % against 50.0 % by chance (p < 0.001)."
    ) in words(text)


def test_result_at_chance_is_called_so(run):
    edit(run / "metrics.json", lambda rows: rows[0].update(p_value=0.4))
    assert "(p = 0.400), which is not distinguishable from chance." in words(
        page.write(run).read_text()
    )


def test_published_protocol_and_within_subject_decoding_are_named(run):
    config = config_module.load(
        run / "config.yaml",
        ['protocol.test_subjects=["02"]', "protocol.pretraining=published"],
    )
    (run / "config.yaml").write_text(config_module.dump(config))
    plain = words(page.write(run).read_text())
    assert "within-subject decoding, published pretraining" in plain
    assert "pretraining saw the training split of all subjects of the training data, the " in plain


def test_what_it_started_from_and_its_loss_scales_are_named(run, text):
    assert "autoencoder from random weights, as in the paper's ablation" in words(text)
    assert "loss scales of the official code" in words(text)
    changes = ["pretrain.start_from=models/fmri-pte", "cotrain.preset=paper"]
    config = config_module.load(run / "config.yaml", changes)
    (run / "config.yaml").write_text(config_module.dump(config))
    plain = words(page.write(run).read_text())
    assert "autoencoder fine-tuned from models/fmri-pte" in plain
    assert "loss scales of the paper" in plain


@pytest.mark.parametrize(
    ("decoded", "said"),
    [
        (
            ["protocol.test_store=data/other.zarr", 'protocol.test_subjects=["01"]'],
            "subject 01 of other.zarr (cross-dataset decoding, published pretraining)",
        ),
        (
            ['protocol.test_subjects=["01", "03"]'],
            "subjects 01 and 03 (cross-subject decoding for subject 03, within-subject for the "
            "rest, published pretraining)",
        ),
    ],
)
def test_a_subject_of_another_store_is_none_of_the_training_subjects(run, decoded, said):
    config = config_module.load(run / "config.yaml", ["protocol.pretraining=published", *decoded])
    (run / "config.yaml").write_text(config_module.dump(config))
    plain = words(page.write(run).read_text())
    assert said in plain
    other = config.protocol.test_store is not None
    assert ("all subjects of the training data, of whom none is decoded here" in plain) == other
    assert ("the test subjects included" in plain) != other
    assert "The same study under the strict protocol" in plain


def test_clips_are_ordered_best_median_worst(text, original):
    rows = json.loads((original / "samples" / "index.json").read_text())
    order = sorted(rows, key=lambda row: -row["scores"]["video 2-way"])
    shown = text[: text.index('<details class="gallery"')]
    expected = [order[i]["clip"] for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)]
    assert [int(n) for n in re.findall(r"clip (\d+), subject", shown)] == expected


def test_ranking_turns_round_where_lower_is_better(original):
    given = inputs.read(original).clips
    ranked = clips_module.rank(given, "ssim", lower=())
    assert ranked.score == "ssim"
    best = ranked.clips[0].scores["ssim"]
    assert best == max(clip.scores["ssim"] for clip in given)
    errors = [
        inputs.Clip(**{**vars(clip), "scores": {"EPE": clip.scores["ssim"]}}) for clip in given
    ]
    assert clips_module.rank(errors, "EPE", lower={"EPE"}).clips[0].scores["EPE"] == min(
        clip.scores["ssim"] for clip in given
    )


def test_what_is_better_is_what_the_scorer_said(run):
    """Whatever the metric is called."""
    told = {"EPE": "higher", "ssim": "lower"}

    def tell(rows: list[dict]) -> None:
        rows[:] = [row | {"better": told[row["metric"]]} for row in rows if row["metric"] in told]

    edit(run / "metrics.json", tell)
    text = page.write(run).read_text()
    assert "ssim, lower is better" in text
    assert "EPE, lower is better" not in text
    rows = json.loads((run / "samples" / "index.json").read_text())
    best = min(rows, key=lambda row: row["scores"]["ssim"])
    assert re.findall(r"clip (\d+), subject", text)[0] == str(best["clip"])


def test_clips_without_scores_keep_the_order_of_the_test_set(run):
    edit(run / "samples" / "index.json", lambda rows: [row.pop("scores") for row in rows])
    plain = words(page.write(run).read_text())
    assert "clips stand in the order of the test set" in plain
    assert "Best" not in plain


def test_what_does_not_fit_the_budget_is_named(original):
    given = inputs.read(original).clips
    html = render_clips(given, budget=1)
    gallery = html[html.index("<details") :]
    assert "data:" not in gallery
    assert gallery.count("see samples/03/") == CLIPS
    assert f"{CLIPS} of them are named by their file" in gallery


@pytest.mark.parametrize("reason", ["no GIFs", "GIFs too big"])
def test_videos_stand_in_for_gifs_and_play_unasked(run, reason):
    if reason == "no GIFs":
        drop = ("generated_gif", "truth_gif")
        edit(run / "samples/index.json", lambda rows: [[r.pop(key) for key in drop] for r in rows])
        budget = clips_module.MEDIA_BUDGET
    else:
        for path in (run / "samples").rglob("*.gif"):
            path.write_bytes(path.read_bytes() + bytes(100_000))
        budget = 1_000_000
    given = inputs.read(run).clips
    html = render_clips(given, budget=budget)
    assert "<img" not in html
    assert html.count(" autoplay muted loop playsinline></video>") == 2 * (CLIPS + 9)
    for clip in given:
        assert base64.b64encode(clip.generated.read_bytes()).decode() in html


def test_page_of_eighty_clips_stays_under_eight_megabytes(tmp_path):
    run = fake.make(tmp_path / "run", clips=80, size=64, frames=6)
    assert page.write(run).stat().st_size < 8e6


@pytest.mark.parametrize("nested", [False, True])
def test_logs_are_read_as_training_writes_them(run, nested):
    path = run / "contrast" / "log.jsonl"
    values = {5: 4.0, 10: 3.0, 15: 2.5}
    lines = [
        {"step": step, "time": 1e9 + step, **({"metrics": {"loss": v}} if nested else {"loss": v})}
        for step, v in values.items()
    ]
    path.write_text("\n".join(map(json.dumps, [*lines, lines[1]])) + '\n{"step": 20, "ti')
    log = inputs.read(run).logs["contrast"]
    assert {entry["step"]: entry["loss"] for entry in log.entries} == values
    assert "15 steps over 10 s; loss 4 at first, 2.5 at last" in words(page.write(run).read_text())


def test_damaged_lines_of_a_log_are_left_out_and_counted(run):
    """As training itself leaves them out: `training.logs.read_log`."""
    lines = [b"no", b'{"step": 1, "loss": 3}', b"\xff\xfe", b"[]", b'{"step": NaN, "loss": 1}']
    lines += [b'{"loss": 1}', b'{"step": 2, "metrics": 1}', b'{"step": 3, "metrics": {"loss": 2}}']
    (run / "cotrain" / "log.jsonl").write_bytes(b"\n".join(lines) + b'\n{"step": 4, "lo')
    log = inputs.read(run).logs["cotrain"]
    assert [(entry["step"], entry["loss"]) for entry in log.entries] == [(1, 3), (3, 2)]
    plain = words(page.write(run).read_text())
    assert "Stage 2: co-training: left out of the log as damaged: 7 lines." in plain
    assert "3 steps; loss 3 at first, 2 at last" in plain
    (run / "cotrain" / "log.jsonl").write_text("no\n")
    plain = words(page.write(run).read_text())
    assert "left out of the log as damaged: 1 line." in plain
    assert "No training log in the run folder for: Stage 2: co-training." in plain


@pytest.mark.parametrize("usual", [1.0, -1.0, 1e99, 1e-300])
def test_values_too_large_to_be_drawn_are_left_out_of_the_curve_and_counted(run, usual):
    losses = [usual, 1e308, -1e308, 2 * usual]
    lines = [{"step": step, "metrics": {"loss": loss}} for step, loss in enumerate(losses)]
    lines.append({"step": 1e308, "time": -1e308, "metrics": {"loss": usual}})
    (run / "cotrain" / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = page.write(run).read_text()
    parse(text)
    assert "Stage 2: co-training: too large to be drawn: 3 values." in words(text)
    curve = text[text.index('aria-label="Stage 2') :]
    assert not re.search(r"\b(nan|inf)\b", curve[: curve.index("</svg>")])


def test_a_log_of_nothing_but_values_too_large_is_reported(run):
    lines = [{"step": 1, "metrics": {"loss": 1e308}}, {"step": 2, "metrics": {"loss": -1e308}}]
    (run / "cotrain" / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "too large to be drawn: 2 values." in words(page.write(run).read_text())


def test_alignment_is_reported_with_correlations_and_what_is_undone(text):
    plain = words(text)
    assert "rose from 0.210 to 0.340 with alignment." in plain
    assert "Smoothing alike everywhere would give 0.270." in plain
    assert "displacement between subjects, which is known here, their layers undo 8 %." in plain
    for subject in ("01", "02", "03"):
        for when in ("before", "after"):
            assert f'alt="Flat map of visual cortex, subject {subject}, {when} alignment"' in text


def test_alignment_is_drawn_at_every_pixel_and_as_displacement(text):
    plain = words(text)
    assert "Correlation over time of each pixel between a decoded subject and another" in plain
    for when in ("before", "after"):
        assert f'alt="Flat map of visual cortex, correlation {when} alignment: mean' in text
    for kind in ("found", "true"):
        assert f"Flat map of visual cortex with arrows: {kind} displacement of subject 03" in text
    assert "The displacement found for subject 03 is" in plain
    assert "Sulci are darker" in plain


def test_maps_of_earlier_versions_are_shown_as_they_were(run):
    with np.load(run / "alignment.npz") as archive:
        old = ("mask", "subjects", "before", "after", "isc_before", "isc_after")
        np.savez(run / "alignment.npz", **{key: archive[key] for key in old})
    plain = words(page.write(run).read_text())
    assert "rose from 0.210 to 0.340 with alignment." in plain
    assert "each pixel" not in plain
    assert "Displacement" not in plain


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "Alignment (GLFA)global + local, kernel 13"),
        (["alignment.method=warp", "alignment.options={grid: 8}"], "Alignmentwarp with grid 8"),
        (
            ["alignment.method=identity", "adapt.method=ridge", "evaluation.adapted_minutes=4"],
            "Alignmentnone, maps are taken as they are Layer of subject 03ridge, to 4 minutes of "
            "clips that training subjects saw as well",
        ),
        (
            ["adapt={method: warp, data: unlabelled}", "evaluation.adapted_minutes=0.5"],
            "kernel 13 Layer of subject 03warp, to 0.5 minutes of fMRI alone, of training clips",
        ),
        (
            ["adapt={method: anatomy, options: {grid: 8}}", "evaluation.adapted_minutes=0"],
            "Layer of subject 03anatomy with grid 8, to maps of his anatomy alone, no fMRI",
        ),
        (
            ["adapt={method: ridge, encoder: {steps: 9}}", "evaluation.adapted_minutes=4"],
            "Layer and encoder of subject 03ridge, to 4 minutes of clips that training subjects "
            "saw as well; the encoder was trained with it",
        ),
    ],
)
def test_the_layers_that_maps_went_through_are_named(run, changes, said):
    if "alignment.method=warp" in changes:
        changes = [*changes, "alignment.per_subject=true", "evaluation.adapted_minutes=4"]
    config = config_module.load(run / "config.yaml", changes)
    (run / "config.yaml").write_text(config_module.dump(config))
    assert said in words(page.write(run).read_text())


def test_absent_parts_are_noted(run):
    (run / "alignment.npz").unlink()
    shutil.rmtree(run / "contrast")
    plain = words(page.write(run).read_text())
    assert "no alignment.npz, so there are no maps to show" in plain
    assert "No training log in the run folder for: Stage 1: contrastive." in plain
    config = config_module.load(
        run / "config.yaml", ["alignment.global_part=false", "alignment.local_part=false"]
    )
    (run / "config.yaml").write_text(config_module.dump(config))
    assert "(GLFA) was off in this run" in words(page.write(run).read_text())
    config = config_module.load(run / "config.yaml", ["alignment.method=identity"])
    (run / "config.yaml").write_text(config_module.dump(config))
    plain = words(page.write(run).read_text())
    assert "No alignment was asked for in this run (method identity), so there are no" in plain
    assert "GLFA)" not in plain


def _set_array(name: str, how: str | tuple[int, ...]) -> Callable[[Path], None]:
    """An array of the maps as another type, or of another shape."""

    def spoil(run: Path) -> None:
        with np.load(run / "alignment.npz") as archive:
            arrays = dict(archive)
        old = arrays[name]
        new = np.zeros(old.shape, how) if isinstance(how, str) else np.zeros(how)
        np.savez(run / "alignment.npz", **(arrays | {name: new}))

    return spoil


def _set_clip(key, value):
    return lambda run: edit(run / "samples/index.json", lambda rows: rows[3].update({key: value}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "metrics.json").unlink(), r"metrics\.json: missing; eval\.score"),
        (lambda run: shutil.rmtree(run / "samples"), r"index\.json: missing; eval\.sample"),
        (lambda run: (run / "config.yaml").unlink(), r"config\.yaml: no such file"),
        (lambda run: (run / "metrics.json").write_text("[]"), "list of at least one object"),
        (lambda run: (run / "metrics.json").write_text("{"), "not valid JSON"),
        (
            lambda run: edit(run / "metrics.json", lambda rows: rows[1].pop("chance")),
            "entry 1 has no 'chance'",
        ),
        (
            lambda run: edit(run / "metrics.json", lambda rows: rows[1].update(mean="high")),
            "entry 1: 'mean' must be a number, is 'high'",
        ),
        (
            lambda run: edit(run / "metrics.json", lambda rows: rows[1].pop("better")),
            "entry 1: 'better' must be higher or lower, is None; eval.score writes it, so",
        ),
        (lambda run: (run / "samples/truth/00004.gif").unlink(), "'truth/00004.gif', which is not"),
        (_set_clip("truth", "../../secret"), "entry 3 names '../../secret', outside"),
        (_set_clip("truth", "a" * 5000), "entry 3 names 'aaa"),
        (_set_clip("truth", "a\0b"), "entry 3 names"),
        (
            lambda run: (run / "alignment.npz").write_bytes(b"no"),
            r"alignment\.npz: truncated or no",
        ),
        (_set_array("before", "M8[s]"), r"alignment\.npz: truncated or no archive of maps"),
        (_set_array("isc_after", (2,)), r"alignment\.npz: truncated or no archive of maps"),
        (_set_array("shifts", (2, 32, 32, 2)), r"shifts \(2, 32, 32, 2\) must be \(3, 32, 32, 2\)"),
        (shutil.rmtree, "no such run folder"),
    ],
)
def test_bad_run_folder_is_one_sentence_exit_2_and_no_page(run, spoil, said, capsys):
    spoil(run)
    with pytest.raises(ReportError, match=said):
        page.write(run)
    assert main([str(run)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert not (run / "report").exists()


def test_failing_on_the_way_keeps_the_old_page_and_leaves_nothing_else(run, monkeypatch):
    before = page.write(run).read_bytes()

    def fail(self, target):
        raise OSError("disk full")

    edit(run / "metrics.json", lambda rows: rows[0].update(mean=0.5))
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match=r"index.html: cannot be written \(disk full\)"):
        page.write(run)
    assert [path.name for path in (run / "report").iterdir()] == ["index.html"]
    assert (run / "report" / "index.html").read_bytes() == before


def test_commands_of_the_caller_are_shown(run):
    html = page.write(run, commands=[("Compare <both>", "python -m x a && b")]).read_text()
    assert "Compare <both>python -m x a && b" in words(html)
    assert "Rebuild" not in html


def test_suggested_commands_name_this_run_and_what_changes(text, original):
    plain = words(text)
    assert f"--config {original / 'config.yaml'} --set name=fake-study-plain" in plain
    assert "--set alignment.global_part=false --set alignment.local_part=false" in plain
    assert "--set protocol.pretraining=published" in plain


def test_command_line_builds_the_page_without_jax(run):
    code = (
        "import sys; from glfa_jax.report.__main__ import command; code = command(sys.argv[1:]);"
        "sys.exit(9 if 'jax' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(run / "report" / "index.html") in done.stdout
    parse((run / "report" / "index.html").read_text())
