"""Tables as pandas, R and spreadsheets write them, and those that are none."""

import csv

import pytest

from glfa_jax.data import DataError, tables
from glfa_jax.data.captions import read_captions
from glfa_jax.data.tables import read_table

HEADER = "stim_file\tcaption\n"


@pytest.fixture
def read(tmp_path):
    """The rows of a text, as lists of line, clip and caption."""

    def rows(text: str | bytes, **options):
        path = tmp_path / "captions.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        found = read_table(path, columns=("stim_file", "caption"), **options)
        return [(row.line, row["stim_file"], row["caption"]) for row in found]

    return rows


@pytest.mark.parametrize(
    "caption",
    [
        'a "small" red ball',
        '"small" and red',
        "two\nlines",
        "carriage\rreturn",
        "a\ttab",
        *(f"a{mark}b" for mark in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"),
        "x" * 131_072,
    ],
)
def test_what_a_writer_of_tables_writes_is_read_back(tmp_path, caption):
    path = tmp_path / "captions.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([("stim_file", "caption"), ("a.mp4", caption), ("b.mp4", "other")])
    assert read_captions(path) == {"a.mp4": caption, "b.mp4": "other"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_every_way(read, end):
    text = end.join(["stim_file\tcaption", "a.mp4\tone", "", '"b.mp4"\t"two"', "\t", ""])
    for mark in (b"", b"\xef\xbb\xbf"):
        assert read(mark + text.encode()) == [(2, "a.mp4", "one"), (4, "b.mp4", "two")]


def test_a_quote_within_a_value_stays_as_it_is(read):
    assert read(HEADER + 'a.mp4\tthe 5" disk, "so called"\n')[0][2] == 'the 5" disk, "so called"'


def test_columns_are_found_by_name_in_quotes_and_at_any_place(read):
    text = '"n"\t"caption"\t"stim_file"\n"1"\t"one"\t"a.mp4"\n'
    assert read(text) == [(2, "a.mp4", "one")]


def test_empty_values_beyond_the_last_column_do_no_harm(read):
    assert read(HEADER + "a.mp4\tone\t\t\n") == [(2, "a.mp4", "one")]


def test_lines_are_counted_as_an_editor_counts_them(read):
    text = HEADER + 'a.mp4\t"one\n\nline"\nb.mp4\ttwo\nc.mp4\n'
    told: list[DataError] = []
    assert [line for line, *_ in read(text, failed=told.append)] == [2, 5]
    assert "line 6 has no value for caption" in str(*told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column stim_file, its first line names none"),
        ("stim_file,caption\n", "has no column stim_file, its first line names stim_file,caption"),
        ("stim_file\tcaption\tcaption\na\tb\tc\n", "has several columns caption, its first line"),
        (HEADER + '"1"\t"a.mp4"\t"one"\n', "line 2 has 3 values for 2 columns; names of rows"),
        (HEADER + 'a.mp4\tone\nb.mp4\t"two\nc.mp4\tthree\n', r"line 3 is no row .*must end with"),
        (HEADER + 'a.mp4\t"one" and two\n', "line 2 is no row of tab-separated values"),
        (HEADER + f"a.mp4\t{'x' * 131_073}\n", r"line 2 is no row .*\(field larger than"),
        (HEADER + "a.mp4\tone\0\n", "line 2 holds a NUL"),
        ((HEADER + "a.mp4\tone\n").encode("utf-16"), "must be UTF-8 text"),
        ((HEADER + "a.mp4\tone\n").encode("utf-16-le"), "line 1 holds a NUL, must be UTF-8 text"),
        (b"\xff\xfe" + 40 * b"\x00", "must be UTF-8 text"),
    ],
)
def test_what_is_no_table_is_one_sentence(read, text, message):
    with pytest.raises(DataError, match=rf"captions\.tsv: {message}") as caught:
        read(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_more_rows_than_any_study_has_are_rejected(read, monkeypatch):
    monkeypatch.setattr(tables, "MOST_ROWS", 3)
    told: list[DataError] = []
    with pytest.raises(DataError, match="has more than 3 rows"):
        read(HEADER + "a\n" * 5, failed=told.append)
    assert len(told) == 3


STRANGE = (
    *("", ".", "..", "./", "/", "/a.mp4", "../a.mp4", "a/../b.mp4", "a.mp4/", "a/.", "stimuli"),
    *("stimuli/", "./stimuli", "n/a", "a\\b.mp4", '"a\nb.mp4"', 256 * "x", "\u00e4" * 128),
)


@pytest.mark.parametrize("name", STRANGE)
def test_a_clip_must_be_a_file_inside_stimuli(tmp_path, name):
    path = tmp_path / "captions.tsv"
    path.write_text(f"{HEADER}{name}\tone\nb.mp4\ttwo\n")
    with pytest.raises(DataError, match=r"line 2: stim_file must name a file inside stim"):
        read_captions(path)
    told: list[DataError] = []
    assert read_captions(path, failed=told.append) == {"b.mp4": "two"}
    assert len(told) == 1


def test_clips_are_the_same_however_they_are_spelled(tmp_path):
    path = tmp_path / "captions.tsv"
    names = ("stimuli/a/b.mp4", "./c.mp4", "./stimuli//d.mp4", "stimuli/stimuli/e.mp4")
    path.write_text(HEADER + "".join(f"{name}\tone\n" for name in names))
    assert list(read_captions(path)) == ["a/b.mp4", "c.mp4", "d.mp4", "stimuli/e.mp4"]


def test_a_clip_of_two_captions_has_none_where_the_rest_is_wanted(tmp_path):
    path = tmp_path / "captions.tsv"
    path.write_text(HEADER + "a.mp4\tone\nb.mp4\ttwo\na.mp4\tthree\na.mp4\tone\nb.mp4\t two \n")
    told: list[DataError] = []
    assert read_captions(path, failed=told.append) == {"b.mp4": "two"}
    assert len(told) == 2
