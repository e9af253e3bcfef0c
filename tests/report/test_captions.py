"""The page on which captions are corrected: what it shows, and what it would save."""

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from glfa_jax.report import captions
from glfa_jax.report.pictures import still

ROWS = [
    {"stim_file": "a.mp4", "caption": "a dog", "votes": "3/3", "others": "", "model": "m@1"},
    {"stim_file": "b/ü.mp4", "caption": '</script> & "sea"', "votes": "2/3", "others": "sand <b>"},
    {"stim_file": "c.mp4", "caption": "a cat"},
    {"stim_file": "d.mp4", "caption": "soft\u00adly \u200e\u200b\x00 \u202esea", "votes": "1/1"},
]
OTHER = {"stim_file": "z.mp4", "caption": 'of "another"\tstudy', "checked": "me", "note": "x"}
COLUMNS = ("stim_file", "caption", "votes", "others", "model", "checked")
# What the script asks of a browser, with a field and a box for every article of the page.
BROWSER = """
const page = require("fs").readFileSync(0, "utf8");
const part = (pattern) => page.match(pattern)[1];
const classes = () => ({ toggle() {}, contains: () => false });
const element = (more) => ({ addEventListener() {}, classList: classes(), ...more });
const articles = page.match(/<article[^]*?<\\/article>/g).map((text) => {
  const parts = {
    textarea: element({ value: text.match(/<textarea[^>]*>([^]*?)<\\/textarea>/)[1] }),
    input: element({ checked: /<input[^>]* checked/.test(text) }),
  };
  return element({ querySelector: (name) => parts[name] });
});
const elements = {
  rows: { textContent: part(/<script id="rows"[^>]*>([^]*?)<\\/script>/) },
  filters: element({ elements: { show: { value: "all" }, text: { value: "" } } }),
};
globalThis.document = {
  getElementById: (id) => elements[id] ??= element({}),
  querySelectorAll: () => articles,
};
globalThis.addEventListener = () => {};
const end = "\\nprocess.stdout.write(JSON.stringify([table(), state.textContent]));";
new Function("process", part(/<script>([^]*?)<\\/script>/) + end)(process);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "captions.html"
    rows = [{**dict.fromkeys(COLUMNS, ""), **row} for row in ROWS]
    rows[2]["checked"] = "yes"
    picture = still(np.zeros((9, 16, 3), np.uint8), words="Middle frame of a.mp4")
    captions.write(
        path,
        rows,
        {"a.mp4": picture},
        table=path.with_suffix(".tsv"),
        divided=["b/ü.mp4"],
        others=[OTHER],
    )
    return path.read_text()


def test_every_clip_has_its_row(page):
    articles = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert len(articles) == 4
    assert 'src="data:image/jpeg' in articles[0]
    assert "no frame" in articles[1]
    assert ['class="divided"' in article for article in articles] == [False, True, False, False]
    assert "others: sand &lt;b&gt;" in articles[1]
    assert "&lt;/script&gt; &amp; &quot;sea&quot;</textarea>" in articles[1]
    assert [" checked" in article for article in articles] == [False, False, True, False]


def test_the_rows_that_are_saved_are_those_of_the_table(page):
    (data,) = re.findall(r'<script id="rows"[^>]*>(.*?)</script>', page, re.DOTALL)
    tree = json.loads(data)
    assert tree["name"] == "captions.tsv"
    assert tree["others"] == [OTHER]
    for row, given in zip(tree["rows"], ROWS, strict=True):
        assert list(row) == list(COLUMNS)
        assert {key: row[key] for key in given} == given


def test_only_its_own_script_may_run(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in script


@pytest.fixture(scope="module")
def saved(page):
    """The table that an untouched page saves, and what the page says of it."""
    if (node := shutil.which("node")) is None:
        pytest.skip("runs the page's script by node")
    ran = subprocess.run(
        [node, "-e", BROWSER], input=page, capture_output=True, check=True, encoding="utf-8"
    )
    table, said = json.loads(ran.stdout)
    header, *rows = csv.reader(io.StringIO(table), delimiter="\t", strict=True)
    return [dict(zip(header, row, strict=True)) for row in rows], said


def test_what_nobody_touched_is_saved_as_it_was(saved):
    (*rows, other), said = saved
    assert said == "0 corrected, 1 of 4 checked"
    assert other == {**dict.fromkeys(COLUMNS, ""), **OTHER}
    for row, given in zip(rows, ROWS, strict=True):
        assert {key: row[key] for key in given} == given
        assert row["checked"] == ("yes" if row["stim_file"] == "c.mp4" else "")
