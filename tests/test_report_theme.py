"""Colours can be told apart by everybody: measured, not claimed."""

import re
from itertools import combinations

import numpy as np
import pytest

from sim.report.page.page import stylesheet
from sim.report.theme import CATEGORIES, DARK, GROUND, colour

# Machado, Oliveira, Fernandes: "A physiologically-based model for simulation of color vision deficiency", IEEE TVCG
# 15(6), 2009, severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1, D65
WHITE = np.array([0.9505, 1.0, 1.0890])


def _linear(code):
    value = np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(code, matrix):
    """CIELAB (CIE 1976) of an sRGB colour as a kind of vision sees it."""
    ratio = XYZ @ np.clip(np.asarray(matrix) @ _linear(code), 0.0, 1.0) / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_measure_is_right():
    """White is (100, 0, 0); CIELAB of sRGB red is (53.2, 80.1, 67.2)."""
    assert _lab("#FFFFFF", np.eye(3)) == pytest.approx([100.0, 0.0, 0.0], abs=0.05)
    assert _lab("#FF0000", np.eye(3)) == pytest.approx([53.2, 80.1, 67.2], abs=0.1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("vision", list(VISION))
def test_no_two_categories_look_alike(vision, dark):
    """13 is over five times a just noticeable difference (2.3, Mahy et al. 1994)."""
    seen = {category: _lab(colour(category, dark=dark), VISION[vision]) for category in CATEGORIES}
    distance, *pair = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(seen, 2))
    assert distance >= 13.0, pair


def test_every_category_of_a_breakdown_is_in_the_table():
    named = "forward recompute backward optimizer dp param_gather tp pp cp ep h2d d2h cpu_adam nvme host_launch bubble"
    assert set(CATEGORIES) == set(named.split())
    assert all(words for _, words in CATEGORIES.values())


def _contrast(one, other):
    """Ratio of luminances (WCAG 2.2, 1.4.3)."""
    light, dark = sorted((float(XYZ[1] @ _linear(code)) for code in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_of_contrast_is_right():
    """Black on white is 21, #767676 on white the least grey that passes 4.5."""
    assert _contrast("#000000", "#FFFFFF") == pytest.approx(21.0, abs=0.01)
    assert _contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.02)


def test_categories_stand_out_from_a_dark_ground():
    """Graphics need 3 (WCAG 2.2, 1.4.11); waiting is to recede."""
    assert all(_contrast(code, GROUND["dark"]) >= 3.0 for name, code in DARK.items() if name != "bubble")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_of_the_page_can_be_read(dark):
    """Text needs 4.5 on both its grounds."""
    blocks = re.findall(r":root[^{]*\{([^}]*--ground[^}]*)\}", stylesheet())
    words = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[1 if dark else 0]))
    assert words["ground"].upper() == GROUND["dark" if dark else "light"]
    for ink in ("ink", "soft", "link", "good", "bad"):
        assert _contrast(words[ink], words["ground"]) >= 4.5, ink
        assert _contrast(words[ink], words["paper"]) >= 4.5, ink
