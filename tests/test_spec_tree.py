"""YAML by hand: the core schema of YAML 1.2, places, and limits."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sim.errors import ScenarioError
from sim.spec.tree import MAX_NODES, read_text, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [  # YAML 1.2.2, section 10.3.2 (core schema tag resolution)
        ("", None), ("~", None), ("null", None), ("Null", None),
        ("true", True), ("FALSE", False),
        ("yes", "yes"), ("off", "off"), ("no", "no"),  # 1.1 booleans are words in 1.2
        ("12", 12), ("-19", -19), ("0o14", 12), ("0xC", 12), ("012", 12), ("1:30", "1:30"), ("1_000", "1_000"),
        ("12e03", 12e3), ("-2E+05", -2e5), (".5", 0.5), ("1.", 1.0), (".inf", math.inf), ("-.INF", -math.inf),
        ("450 GB/s", "450 GB/s"), ("1e9999", math.inf), ("1" * 40, 1.1111111111111112e39),
    ],
)  # fmt: skip
def test_plain_scalars(text, value):
    read = scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_quoted_scalars_are_text():
    assert read_text("a: '1'\nb: \"true\"\nc: |\n  null\n", "f").plain() == {"a": "1", "b": "true", "c": "null\n"}


def test_places_are_those_of_keys():
    tree = read_text("a:\n  b: 1\n  c: [x,\n      y]\n", "f.yaml")
    places = {".".join(path): (node.place.line, node.place.column) for path, node in tree.walk()}
    assert places == {"": (1, 1), "a": (1, 1), "a.b": (2, 3), "a.c": (3, 3), "a.c.0": (3, 7), "a.c.1": (4, 7)}


def test_an_alias_is_a_copy():
    assert read_text("a: &x {k: [1]}\nb: *x\n", "f").plain() == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_the_node_limit_counts_what_aliases_stand_for():
    fits = "a: &a [" + "1, " * 99 + "1]\nb: [" + "*a, " * 150 + "1]\n"
    assert len(read_text(fits, "f").plain()["b"]) == 151
    with pytest.raises(ScenarioError, match=f"more than {MAX_NODES} nodes once aliases are written out"):
        read_text("a: &a [" + "1, " * 99 + "1]\nb: [" + "*a, " * 300 + "1]\n", "f")


KEY = st.text("abc", min_size=1, max_size=3)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text("ab:c #-", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_reads_what_an_independent_writer_wrote(value):
    import io

    stream = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.dump(value, stream)
    try:  # ruamel writes a few texts, such as [": a"], so that it cannot read them back itself
        assume(YAML(typ="safe", pure=True).load(stream.getvalue()) == value)
    except YAMLError:
        assume(False)
    assert read_text(stream.getvalue(), "f").plain() == value
