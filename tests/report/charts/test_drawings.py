"""Content and layout of each chart, and that it stays well-formed whatever comes."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart, scatter
from tunelab.report.charts.matrices import heat_map
from tunelab.report.charts.svg import text_width, wrap_text

SVG = "{http://www.w3.org/2000/svg}"
NAMES = {"x_label": "step", "y_label": "loss"}


def tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in tree(svg).iter(f"{SVG}text")]


def markers(svg: str) -> dict[str, tuple[float, float]]:
    """Where each marker stands, by the words that the pointer tells."""
    found = {}
    for element in [*tree(svg).iter(f"{SVG}circle"), *tree(svg).iter(f"{SVG}path")]:
        said, place = element.find(f"{SVG}title"), element.get("transform")
        if said is not None and place:
            x, y = re.match(r"translate\((\S+) (\S+)\)", place).groups()  # type: ignore[union-attr]
            found[said.text or ""] = (float(x), float(y))
    return found


def test_points_stand_where_a_linear_scale_says() -> None:
    spots = list(markers(line_chart([Series("a", [0, 1, 4], [0, 10, 40])], title="t", **NAMES)).values())

    # Then a quarter of the way along is a quarter of the way up
    (x0, y0), (x1, y1), (x2, y2) = spots
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=0.002)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.25, abs=0.002)
    assert y2 < y0  # larger is higher up


def test_equal_factors_are_equal_distances_on_a_log_scale() -> None:
    chart = line_chart(
        [Series("a", [1e-4, 1e-3, 1e-2], [1, 10, 100])], title="t", x_scale="log", y_scale="log", **NAMES
    )

    (x0, y0), (x1, y1), (x2, y2) = markers(chart).values()
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)


def test_zero_on_a_log_scale_is_left_out_and_told() -> None:
    chart = line_chart([Series("a", [1, 2, 3, 4], [1, 0, -1, 10])], title="t", y_scale="log", **NAMES)

    assert len(markers(chart)) == 2
    assert any(words.startswith("Not drawn: 2 points that are at or below 0") for words in texts(chart))


def test_a_value_that_is_not_finite_breaks_the_line_and_is_told() -> None:
    chart = line_chart([Series("a", range(5), [1, 2, math.nan, 3, 4])], title="t", **NAMES)

    lines = [path for path in tree(chart).iter(f"{SVG}path") if path.get("fill") == "none"]
    assert len(lines) == 2
    assert "Not drawn: 1 value that is not finite." in texts(chart)


def test_a_band_reaches_from_low_to_high_around_its_line() -> None:
    plain, high, low = [1.0, 2.0], [1.5, 3.0], [0.5, 1.0]
    chart = line_chart([Series("a", [0, 1], plain, low, high)], title="t", **NAMES)

    # Given where the edges would stand as lines of their own
    def edge(ys: Sequence[float]) -> set[float]:
        drawn = line_chart([Series("a", [0, 1], plain, low, high), Series("b", [0, 1], ys)], title="t", **NAMES)
        shift = markers(drawn)["a: 0, 1 (0.5 to 1.5)"][1] - markers(chart)["a: 0, 1 (0.5 to 1.5)"][1]
        return {round(y - shift, 1) for said, (_, y) in markers(drawn).items() if said.startswith("b:")}

    # Then the corners of the band are those
    band = next(path for path in tree(chart).iter(f"{SVG}path") if path.get("fill-opacity") == ".16")
    corners = {float(y) for y in re.findall(r"[ML]\S+ ([\d.]+)", band.get("d", ""))}
    assert corners == edge(low) | edge(high)


def test_a_band_that_dips_below_0_is_cut_on_a_log_scale_and_told() -> None:
    chart = line_chart([Series("a", [1, 2], [1, 2], [-1, 0.5], [3, 4])], title="t", y_scale="log", **NAMES)

    assert any("The band goes down to 0" in words for words in texts(chart))


@pytest.mark.parametrize("text", ["<script>\"&'", "a\x00b\x1b[31m", "\ud800", "漢字" * 30])
def test_any_text_is_escaped(text: str) -> None:
    one = Series(text, [1, 2], [1, 2], tooltip_names=[text, text])
    charts = [
        line_chart([one, one], title=text, x_label=text, y_label=text, marks=[ReferenceLine(1, text)]),
        scatter([one, one], title=text, x_label=text, y_label=text),
        bar_chart([text], [Bars(text, [1])], title=text, value_label=text),
        heat_map([text], [text], [[1]], title=text, x_label=text, y_label=text),
    ]

    for chart in charts:
        tree(chart)  # well-formed
        assert "<script" not in chart
        chart.encode()  # as a file must be


ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(st.tuples(ANY, ANY), max_size=6), st.sampled_from(["linear", "log"]), st.sampled_from(["linear", "log"])
)
def test_whatever_numbers_come_the_drawing_is_well_formed_and_its_points_are_inside(pairs, x_scale, y_scale) -> None:  # type: ignore[no-untyped-def]
    one = Series("a", [x for x, _ in pairs], [y for _, y in pairs])

    for draw in (line_chart, scatter):
        chart = draw([one], title="t", x_scale=x_scale, y_scale=y_scale, **NAMES)
        _, _, wide, high = map(float, tree(chart).get("viewBox", "").split())
        assert all(0 <= x <= wide and 0 <= y <= high for x, y in markers(chart).values())
        assert "nan" not in re.sub(r"<title>.*?</title>", "", chart).replace("no values", "")


def test_a_line_through_a_cloud_is_a_line_under_the_points() -> None:
    chart = scatter([Series("rows", [0, 4], [1, 3])], title="t", lines=[Series("perfect", [0, 4], [0, 4])], **NAMES)

    drawn = [
        one for one in tree(chart).iter() if one.tag.endswith(("path", "circle")) and one.get("aria-label") is None
    ]
    (line,) = [one for one in drawn if (one.get("d") or "").count("L") == 1 and one.get("stroke-dasharray")]
    assert line.get("fill") == "none"
    assert chart.index(str(line.get("d"))) < chart.index("rows: 4, 3"), "the points lie on it"
    assert {"rows", "perfect"} <= set(texts(chart))


def test_without_values_the_chart_says_so() -> None:
    assert "no values" in texts(line_chart([], title="t", **NAMES))
    assert "no values" in texts(scatter([Series("a", [math.nan], [1])], title="t", **NAMES))
    assert "no values" in texts(bar_chart([], [], title="t", value_label="v"))
    assert "no values" in texts(heat_map([], [], [], title="t"))


def test_the_numbers_along_an_axis_do_not_touch() -> None:
    chart = line_chart([Series("a", [0, 123_456_789], [1, 2])], title="t", **NAMES)

    along = [
        (float(element.get("x", "")), text_width(element.text or ""))
        for element in tree(chart).iter(f"{SVG}text")
        if element.get("text-anchor") == "middle" and (element.text or "").endswith("M")
    ]
    assert len(along) >= 3
    assert all(b - a > (u + v) / 2 for (a, u), (b, v) in pairwise(along))


def test_words_of_two_marks_at_one_place_stand_under_each_other() -> None:
    chart = line_chart(
        [Series("a", [0, 9], [0, 9])], title="t", marks=[ReferenceLine(4, "first"), ReferenceLine(4, "second")], **NAMES
    )

    places = {e.text: float(e.get("y", "")) for e in tree(chart).iter(f"{SVG}text") if e.text in ("first", "second")}
    assert abs(places["first"] - places["second"]) >= 16


def test_a_line_of_many_points_keeps_its_spikes() -> None:
    ys = [0.0] * 20_000
    ys[7777] = 100.0
    chart = line_chart([Series("a", range(20_000), ys)], title="t", **NAMES)

    # Then the drawing is small, and the spike stands at the top
    line = next(path for path in tree(chart).iter(f"{SVG}path") if path.get("fill") == "none")
    heights = [float(y) for y in re.findall(r"[ML]\S+ ([\d.]+)", line.get("d", ""))]
    assert len(heights) < 2500
    assert min(heights) < max(heights) - 200


def test_two_series_differ_in_more_than_colour() -> None:
    chart = line_chart([Series("a", [0, 1], [0, 1]), Series("b", [0, 1], [1, 0])], title="t", **NAMES)

    dashes = {e.get("stroke-dasharray") for e in tree(chart).iter(f"{SVG}path") if e.get("fill") == "none"}
    assert len(dashes) == 2
    assert {"a", "b"} <= set(texts(chart))


def test_bars_grow_from_0_by_their_value() -> None:
    chart = bar_chart(["p", "q", "r"], [Bars("", [1, 2, -1], [0.5, 1, -2], [1.5, 3, -0.5])], title="t", value_label="v")

    high = [float(e.get("height", "")) for e in tree(chart).iter(f"{SVG}rect") if e.find(f"{SVG}title") is not None]
    assert high[1] == pytest.approx(2 * high[0], abs=0.2)
    assert high[2] == pytest.approx(high[0], abs=0.2)
    assert chart.count('class="whisker"') == 9


def test_long_names_lay_the_bars_down_and_are_told_in_full() -> None:
    name = "regularization.label_smoothing_of_the_run"
    chart = bar_chart([name, "b"], [Bars("", [2, 1])], title="t", value_label="v")

    wide = [float(e.get("width", "")) for e in tree(chart).iter(f"{SVG}rect") if e.find(f"{SVG}title") is not None]
    assert wide[0] == pytest.approx(2 * wide[1], abs=0.2)
    assert name in texts(chart)


def test_a_bar_without_a_finite_value_is_named_below() -> None:
    chart = bar_chart(["p", "q"], [Bars("one", [1, math.nan])], title="t", value_label="v")

    assert "Not drawn: q, one: not a number." in texts(chart)


def test_every_cell_of_a_heat_map_shows_its_number_and_stronger_colour_means_more() -> None:
    chart = heat_map(["a", "b"], ["c", "d"], [[0.1, 0.5], [0.9, math.nan]], title="t")

    cells = [e for e in tree(chart).iter(f"{SVG}rect") if e.find(f"{SVG}title") is not None]
    assert {"0.1", "0.5", "0.9", "-"} <= set(texts(chart))
    strengths = [float(cell.get("fill-opacity", "")) for cell in cells]
    assert strengths == sorted(strengths)
    assert len(strengths) == 3


def test_a_heat_map_around_a_centre_has_two_colours() -> None:
    chart = heat_map(["a"], ["b", "c", "d"], [[-1, 0, 1]], title="t", centre=0)

    hues = [e.get("class") for e in tree(chart).iter(f"{SVG}rect") if e.find(f"{SVG}title") is not None]
    assert hues[0] != hues[2]


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="2 places and 1 values"):
        Series("a", [1, 2], [1])
    with pytest.raises(ValueError, match="another shape"):
        heat_map(["a"], ["b"], [[1, 2]], title="t")
    with pytest.raises(ValueError, match="1 values for 2 groups"):
        bar_chart(["a", "b"], [Bars("", [1])], title="t", value_label="v")


def test_every_drawing_has_a_name_and_a_style_of_its_own() -> None:
    chart = tree(line_chart([Series("a", [1], [1])], title="Loss", **NAMES))

    assert chart.get("role") == "img"
    assert chart.get("aria-label") == "Loss"
    assert chart.findtext(f"{SVG}title") == "Loss"
    style = chart.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme:dark" in style
    assert "var(" not in style  # viewers of single files know no variables


def test_lines_of_text_fit_their_room_and_lose_no_word() -> None:
    words = "a title of many words that needs more than one line"

    assert " ".join(wrap_text(words, 150)) == words
    assert all(text_width(line) <= 150 for line in wrap_text(words, 150))
