"""Colours can be told apart by everybody: measured, not claimed."""

from itertools import combinations

import numpy as np
import pytest

from sim.report.theme import CATEGORIES

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


def _lab(code, matrix):
    """CIELAB (CIE 1976) of an sRGB colour as a kind of vision sees it."""
    value = np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ np.clip(np.asarray(matrix) @ linear, 0.0, 1.0) / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_measure_is_right():
    """White is (100, 0, 0); CIELAB of sRGB red is (53.2, 80.1, 67.2)."""
    assert _lab("#FFFFFF", np.eye(3)) == pytest.approx([100.0, 0.0, 0.0], abs=0.05)
    assert _lab("#FF0000", np.eye(3)) == pytest.approx([53.2, 80.1, 67.2], abs=0.1)


@pytest.mark.parametrize("vision", list(VISION))
def test_no_two_categories_look_alike(vision):
    """13 is over five times a just noticeable difference (2.3, Mahy et al. 1994)."""
    seen = {category: _lab(code, VISION[vision]) for category, (code, _) in CATEGORIES.items()}
    distance, *pair = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(seen, 2))
    assert distance >= 13.0, pair


def test_every_category_of_a_breakdown_is_in_the_table():
    named = "forward recompute backward optimizer dp param_gather tp pp cp ep h2d d2h cpu_adam nvme host_launch bubble"
    assert set(CATEGORIES) == set(named.split())
    assert all(words for _, words in CATEGORIES.values())
