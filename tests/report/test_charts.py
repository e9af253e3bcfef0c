"""Dot plots: where values lie on the page, and what is read out of them."""

from glfa_jax.report.charts import Chart, Point
from glfa_jax.report.html import environment


def test_interval_places_values_in_proportion():
    point = Point("m", 0.5, filled=True, low=0.25, high=0.75, mark=0.0)
    chart = Chart([point], (0.0, 1.0), title="all", mark="chance")
    svg = environment().get_template("macros.html").module.dots(chart)
    assert 'cx="50.00%"' in svg
    assert 'x1="26.00%" x2="74.00%"' in svg
    assert 'x1="2.00%" x2="2.00%" y1="3"' in svg
    words = "all, m: 0.500, 95 % interval 0.250 to 0.750, chance 0.000"
    assert f'aria-label="{words}"' in svg
