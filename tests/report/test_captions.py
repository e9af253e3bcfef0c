"""The page on which captions are corrected: what it shows, and what it would save."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest

from glfa_jax.report import captions
from glfa_jax.report.pictures import still

ROWS = [
    {"stim_file": "a.mp4", "caption": "a dog", "votes": "3/3", "others": "", "model": "m@1"},
    {"stim_file": "b/ü.mp4", "caption": '</script> & "sea"', "votes": "2/3", "others": "sand <b>"},
    {"stim_file": "c.mp4", "caption": "a cat"},
]
COLUMNS = ("stim_file", "caption", "votes", "others", "model", "checked")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "captions.html"
    rows = [{**dict.fromkeys(COLUMNS, ""), **row} for row in ROWS]
    rows[2]["checked"] = "yes"
    picture = still(np.zeros((9, 16, 3), np.uint8), words="Middle frame of a.mp4")
    captions.write(
        path, rows, {"a.mp4": picture}, table=path.with_suffix(".tsv"), divided=["b/ü.mp4"]
    )
    return path.read_text()


def test_every_clip_has_its_row(page):
    articles = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert len(articles) == 3
    assert 'src="data:image/jpeg' in articles[0]
    assert "no frame" in articles[1]
    assert ['class="divided"' in article for article in articles] == [False, True, False]
    assert "others: sand &lt;b&gt;" in articles[1]
    assert "&lt;/script&gt; &amp; &quot;sea&quot;</textarea>" in articles[1]
    assert [" checked" in article for article in articles] == [False, False, True]


def test_the_rows_that_are_saved_are_those_of_the_table(page):
    (data,) = re.findall(r'<script id="rows"[^>]*>(.*?)</script>', page, re.DOTALL)
    tree = json.loads(data)
    assert tree["name"] == "captions.tsv"
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
