"""Units: published factors, refusals, and the round trip from number to text and back."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import units
from sim.units import DIMENSIONS, UnitError, format, is_quantity, parse


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        # SI prefixes are powers of ten, IEC 80000-13 prefixes powers of two, and a byte has eight bits
        ("1 GB", "bytes", 1_000_000_000),
        ("1 GiB", "bytes", 1_073_741_824),
        ("80 GiB", "bytes", 80 * 1024**3),
        ("0 B", "bytes", 0),
        ("1.5 kB", "bytes", 1500),
        ("2 TB", "bytes", 2e12),
        ("450 GB/s", "bytes_per_s", 450e9),
        ("450GB/s", "bytes_per_s", 450e9),
        ("200 Gb/s", "bytes_per_s", 25e9),
        ("1 GiB/s", "bytes_per_s", 2**30),
        ("989 TFLOP/s", "flops_per_s", 989e12),
        ("2.25 PFLOP/s", "flops_per_s", 2.25e15),
        ("3 GFLOP", "flops", 3e9),
        ("2 us", "seconds", 2e-6),
        ("2 \u00b5s", "seconds", 2e-6),
        ("5.3 us", "seconds", 5.3e-6),
        ("7 ns", "seconds", 7e-9),
        ("1e3 ms", "seconds", 1),
        ("2 min", "seconds", 120),
        ("1 h", "seconds", 3600),
        (" 3 s ", "seconds", 3),
    ],
)
def test_value_is_the_nearest_double(text, dimension, expected):
    assert parse(text, dimension) == expected
    assert is_quantity(text)


@pytest.mark.parametrize(
    ("text", "dimension", "words"),
    [
        ("450", "bytes_per_s", ["has no unit", '"450 GB/s"']),
        ("450 GB", "bytes_per_s", ["a size in bytes", "a rate in bytes per second is expected"]),
        ("450 Gb/s", "bytes", ["a rate in bytes per second", "a size in bytes is expected"]),
        ("450 gb/s", "bytes_per_s", ["did you mean GB/s or Gb/s?"]),
        ("5 parsec", "seconds", ["ns, us, ms, s, min, h"]),
        ("-5 s", "seconds", ["negative"]),
        ("soon", "seconds", ["not a number with a unit"]),
        ("", "seconds", ["not a number with a unit"]),
        ("1,5 s", "seconds", ["not a number"]),
        ("1_000 B", "bytes", ["not a number"]),
        ("inf s", "seconds", ["not a number"]),
        ("1  s", "seconds", ["not a number"]),
        ("\u0661 s", "seconds", ["not a number"]),
        ("1e999 s", "seconds", ["too large"]),
        ("1" * 10_000 + " s", "seconds", ["not a number", "..."]),
    ],
)
def test_refusal_says_what_would_do(text, dimension, words):
    with pytest.raises(UnitError) as caught:
        parse(text, dimension)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (26.1234, "seconds", "26.1 s"),
        (0.5, "seconds", "500 ms"),
        (4000, "seconds", "4000 s"),
        (12.3e9, "bytes_per_s", "12.3 GB/s"),
        (20.48e9, "bytes", "20.5 GB"),
        (999.6e6, "bytes", "1.00 GB"),
        (999.4e6, "bytes", "999 MB"),
        (0, "bytes", "0 B"),
        (-2e-6, "seconds", "-2.00 us"),
        (312e12, "flops_per_s", "312 TFLOP/s"),
        (float("inf"), "seconds", "inf s"),
    ],
)
def test_format_leaves_one_to_three_digits_before_the_point(value, dimension, text):
    assert format(value, dimension) == text


@given(st.floats(min_value=1e-9, max_value=1e20), st.sampled_from(DIMENSIONS))
def test_round_trip(value, dimension):
    assert parse(format(value, dimension, digits=17), dimension) == pytest.approx(value, rel=1e-15)
    assert parse(format(value, dimension), dimension) == pytest.approx(value, rel=0.5e-2)


@given(st.integers(0, 10**6), st.sampled_from([(d, u) for d in DIMENSIONS for u in units.UNITS[d]]))
def test_each_unit_is_linear_in_its_factor(number, unit):
    dimension, name = unit
    assert parse(f"{number} {name}", dimension) == float(number * units.UNITS[dimension][name])


@given(st.text(max_size=30), st.sampled_from(DIMENSIONS))
def test_any_text_is_a_quantity_or_a_unit_error(text, dimension):
    try:
        value = parse(text, dimension)
    except UnitError:
        return
    assert value >= 0


def test_examples_are_quantities():
    assert all(parse(units.EXAMPLES[d], d) > 0 for d in DIMENSIONS)
    assert doctest.testmod(units).failed == 0
