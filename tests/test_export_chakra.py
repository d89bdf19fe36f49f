"""Execution traces, decoded by the protobuf library: whole, in order, and the same work as the step's."""

import json
from collections import Counter
from dataclasses import replace

import pytest

pytest.importorskip("google.protobuf", reason="the decoder is a development extra")

from chakra_schema import attributes, read

from scenarios import A100, V100, data_parallel
from sim.analysis.transfers import sent_bytes
from sim.api import program, run, scenario_of, simulate
from sim.export import wire
from sim.export.chakra import COLLECTIVE, COMPUTE, LOAD, RECEIVE, SEND, STORE, Program, write_traces

PIPE = scenario_of("lecture-64-pp", [
    "batch.size=null", "batch.accumulation=4", "model.layers=4", "layout.pp=4", "layout.dp=2", "cluster.nodes=1",
])  # fmt: skip
RINGS = replace(
    A100, layout=replace(A100.layout, cp=4), batch=replace(A100.batch, size=2, micro=2), cluster=A100.cluster
)


def traced(scenario, ranks, out):
    workload, plan, rank_class = program(scenario)
    out.mkdir(exist_ok=True)
    what = Program(workload=workload, plan=plan, rank_class=rank_class)
    paths = list(write_traces(what, tuple(ranks), out))
    assert paths[-1].name == "comm_groups.json"
    return (
        workload,
        {rank: read(path) for rank, path in zip(ranks, paths, strict=False)},
        json.loads(paths[-1].read_text()),
    )


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return traced(PIPE, range(8), tmp_path_factory.mktemp("pipe"))


OFFLOAD = data_parallel(2, 2, base=V100, offload=True)


@pytest.mark.parametrize("scenario", [PIPE, data_parallel(4, 3), OFFLOAD, RINGS], ids=["pp", "zero3", "offload", "cp"])
def test_nodes_are_numbered_and_wait_for_earlier_ones_only(scenario, tmp_path):
    _, traces, _ = traced(scenario, range(scenario.layout.world), tmp_path)
    for version, nodes in traces.values():
        assert version == "0.0.4"
        assert [node.id for node in nodes] == list(range(len(nodes)))
        for node in nodes:
            assert all(wait < node.id for wait in node.data_deps)
            assert len(set(node.data_deps)) == len(node.data_deps)
            assert node.name
            assert not node.ctrl_deps
            assert "is_cpu_op" in attributes(node)


def test_all_ranks_together_do_the_work_of_the_step(pipe):
    _, traces, _ = pipe
    timeline = simulate(PIPE).timeline
    count = Counter(timeline.spans.op.tolist())
    work = sum(op.flops * count[n] * timeline.rank_classes[op.rank_class].members for n, op in enumerate(timeline.ops))
    done = sum(attributes(node).get("num_ops", 0) for _, nodes in traces.values() for node in nodes)
    assert done == pytest.approx(work, rel=1e-9)


def test_every_message_is_received_once(pipe):
    _, traces, _ = pipe
    sent, received = Counter(), Counter()
    for rank, (_, nodes) in traces.items():
        for node in nodes:
            if node.type in (SEND, RECEIVE):
                said = attributes(node)
                assert said["comm_src" if node.type == SEND else "comm_dst"] == rank
                way = (said["comm_src"], said["comm_dst"], said["comm_tag"], said["comm_size"])
                (sent if node.type == SEND else received)[way] += 1
    assert sent
    assert sent == received
    assert set(sent.values()) == {1}


def test_members_of_a_group_meet_in_the_same_order(pipe):
    _, traces, groups = pipe
    calls = {}
    for rank, (_, nodes) in traces.items():
        for node in nodes:
            if node.type == COLLECTIVE:
                said = attributes(node)
                calls.setdefault(said["pg_name"], {}).setdefault(rank, []).append(
                    (said["comm_type"], said["comm_size"])
                )
    assert calls
    for name, by_rank in calls.items():
        assert sorted(by_rank) == sorted(groups[name])
        assert len({str(rows) for rows in by_rank.values()}) == 1


def test_ring_steps_are_a_send_and_a_receive(tmp_path):
    _, traces, _ = traced(RINGS, range(4), tmp_path)
    kinds = Counter(node.type for node in traces[1][1])
    assert kinds[SEND] == kinds[RECEIVE] > 0
    ways = {(attributes(n)["comm_src"], attributes(n)["comm_dst"]) for n in traces[1][1] if n.type in (SEND, RECEIVE)}
    assert ways == {(0, 1), (1, 2)}


def test_sizes_are_those_that_the_format_means(tmp_path):
    """All-gather: the shard; reduce-scatter: the whole. Both send S(n-1)/n of the whole S."""
    scenario = data_parallel(4, 3)
    _, traces, _ = traced(scenario, [0], tmp_path)
    step = simulate(scenario)
    count = Counter(step.timeline.spans.op.tolist())
    moved = sum(sent_bytes(op) * count[n] for n, op in enumerate(step.timeline.ops) if op.group_size > 1)
    sent = 0.0
    for node in traces[0][1]:
        said = attributes(node)
        if node.type == COLLECTIVE:
            part = {0: 2 * 3 / 4, 2: 3.0, 7: 3 / 4}[said["comm_type"]]
            sent += said["comm_size"] * part
    assert sent == pytest.approx(moved, rel=1e-5)


def test_copies_and_host_work_are_what_they_are(tmp_path):
    _, traces, _ = traced(OFFLOAD, [1], tmp_path)
    nodes = traces[1][1]
    assert {LOAD, STORE, COMPUTE, COLLECTIVE} == {node.type for node in nodes}
    assert any(attributes(node)["is_cpu_op"] for node in nodes if node.type == COMPUTE)
    assert all(attributes(node)["tensor_size"] > 0 for node in nodes if node.type in (LOAD, STORE))


@pytest.mark.parametrize("name", ["quickstart", "lecture-64-dp"])
def test_run_without_exchanges_a_trace_is_a_lower_bound_of_the_step(name, tmp_path):
    """The longest path through a rank's dependencies, exchanges free: no longer than the step, and most of it."""
    sets = ["batch.size=null", "batch.accumulation=2", "model.layers=4"] if name != "quickstart" else []
    _, traces, _ = traced(scenario_of(name, sets), [0], tmp_path)
    end = {}
    for node in traces[0][1]:
        end[node.id] = max((end[wait] for wait in node.data_deps), default=0) + node.duration_micros
    step = run(name, sets).result.step_time * 1e6
    assert 0.7 * step < max(end.values()) <= step + 1


def test_durations_are_rounded_so_that_their_sum_is_right(tmp_path):
    _, traces, _ = traced(scenario_of("quickstart"), [0], tmp_path)
    _, plan, _ = program(scenario_of("quickstart"))
    blocks = plan.ranks[0].blocks
    seconds = sum(op.latency + op.duration for block, _ in plan.ranks[0].actions for op in blocks[block])
    assert sum(node.duration_micros for node in traces[0][1]) == pytest.approx(seconds * 1e6, abs=2)


@pytest.mark.parametrize(("value", "bytes_"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_varints_as_the_encoding_guide_has_them(value, bytes_):
    assert wire.varint(value).hex() == bytes_
    assert wire.varint(-1) == b"\xff" * 9 + b"\x01"
    assert wire.number(1, 150).hex() == "089601"
    assert wire.text(2, "testing").hex() == "120774657374696e67"
    assert wire.packed(6, [3, 270, 86942]).hex() == "3206038e029ea705"
    assert wire.packed(6, []) == b""
