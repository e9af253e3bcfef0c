"""Tables of confounds that are not as they should be."""

import pytest

from glfa_jax.config import Censor, Cleaning, Confounds
from glfa_jax.data import DataError
from glfa_jax.data.cleaning.confounds import displacement_of, regressors, with_tables
from glfa_jax.data.layouts import Problems
from tests.data.cleaning.runs import BEGIN, VOLUMES, columns, run_in, table_in, write_table

ROWS = BEGIN + VOLUMES
SIMPLE = Cleaning(confounds=Confounds(strategy="simple"))
OWN = Cleaning(confounds=Confounds(columns=("csf",)))
CENSOR = Cleaning(censor=Censor(std_dvars=1.5))


@pytest.mark.parametrize("cleaning", [SIMPLE, OWN, CENSOR])
def test_a_table_has_a_row_for_every_volume_of_the_file(tmp_path, cleaning):
    table = write_table(table_in(tmp_path), columns(ROWS - 1))
    run = run_in(tmp_path, table=table)
    says = rf"timeseries\.tsv: has {ROWS - 1} rows, must have one for each of the {ROWS} volumes of"
    with pytest.raises(DataError, match=says):
        regressors(run, cleaning, volumes=VOLUMES)


@pytest.mark.parametrize(
    ("cleaning", "changes", "says"),
    [
        (OWN, {"csf": ["n/a"] * ROWS}, r"csf is n/a throughout"),
        (SIMPLE, {"csf": ["n/a"] * ROWS}, r"csf is n/a throughout"),
        (CENSOR, {"std_dvars": ["n/a"] * ROWS}, r"std_dvars is n/a throughout"),
        (OWN, {"csf": ["1"] * 9 + ["n/a"] + ["1"] * (ROWS - 10)}, r"csf is no number in volume 9 "),
        (OWN, {"csf": ["one"] * ROWS}, r"line 2: csf must be a number or n/a, is 'one'"),
    ],
)
def test_columns_without_numbers(tmp_path, cleaning, changes, says):
    run = run_in(tmp_path, table=table_in(tmp_path, **changes))
    with pytest.raises(DataError, match=says):
        regressors(run, cleaning, volumes=VOLUMES)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"columns": ("csf", "edge_comp_*")}, r"has no column edge_comp_\* \(data\.clean\.conf"),
        ({"strategy": "compcor"}, r"nilearn cannot take data\.clean\.confounds \(compcor\)"),
        ({"parts": ("global_signal",)}, r"\(global_signal\) from it \(\S.*missing"),
        ({"strategy": "simple", "n_compcor": 5}, r"\(simple\) from it \(.* are not needed"),
        ({"strategy": "ica_aroma"}, r"L_bold\.func\.gii: .* desc-smoothAROMAnonaggr in their"),
    ],
)
def test_what_the_table_does_not_have(tmp_path, given, says):
    run = run_in(tmp_path, table=table_in(tmp_path))
    with pytest.raises(DataError, match=says):
        regressors(run, Cleaning(confounds=Confounds(**given)), volumes=VOLUMES)


def test_a_run_without_a_table_is_left_out_where_one_is_needed(tmp_path):
    run = run_in(tmp_path)
    assert with_tables([run], Cleaning(polynomial=1), Problems(skip=False)) == (run,)
    for cleaning, option in ((OWN, "confounds"), (CENSOR, "censor")):
        problems = Problems(skip=True)
        assert with_tables([run], cleaning, problems) == ()
        [said] = problems.noted
        assert "has no table of confounds beside it" in said
        assert f"data.clean.{option} needs one" in said


def test_displacement_is_shown_where_there_is_any(tmp_path):
    assert displacement_of(run_in(tmp_path), volumes=VOLUMES) is None
    given = columns()
    table = table_in(tmp_path)
    assert displacement_of(run_in(tmp_path, table=table), volumes=VOLUMES) == pytest.approx(0.1)
    del given["framewise_displacement"]
    write_table(table, given)
    assert displacement_of(run_in(tmp_path, table=table), volumes=VOLUMES) is None
