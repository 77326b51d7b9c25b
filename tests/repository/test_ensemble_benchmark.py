"""The committed figures of bench/ensemble agree with each other."""

import csv
from statistics import fmean

import pytest

from support.paths import ROOT

HERE = ROOT / "bench" / "ensemble"


def test_the_page_says_what_the_figures_say() -> None:
    # Given the figures of three sets
    with (HERE / "results.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    page = (HERE / "results.md").read_text(encoding="utf-8")

    assert {line["set"] for line in lines} == {"sib200", "sms_spam", "banking77"}
    for line in lines:
        sign = -1 if line["score"] == "loss" else 1
        assert float(line["gain"]) == pytest.approx(sign * (float(line["ensemble"]) - float(line["single"])))
        assert float(line["low"]) <= float(line["gain"]) <= float(line["high"])

    # Then the verdict of the page is that of their mean
    soft = fmean(float(line["gain"]) for line in lines if line["method"] == "soft" and line["score"] == "accuracy")
    assert f"{100 * soft:+.2f} points of accuracy" in page
    assert ("does not beat" in page) == (soft <= 0)
