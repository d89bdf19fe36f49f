"""Offload: bytes on every link, order of things, and what lives where, for each policy, against closed forms.

M parameters on n data-parallel ranks; the equations are those of the ZeRO-Offload and ZeRO-Infinity papers.
"""

from collections import Counter

import numpy as np
import pytest

from scenarios import TINY
from sim.api import simulate
from sim.spec.load import load
from sim.workload.build import build
from sim.workload.model import layer_params, params

LAYERS = 6
BASE = [*TINY, f"model.layers={LAYERS}", "recompute=full"]
DRIVES = ["cluster.nvme={read: 6 GB/s, write: 3 GB/s, capacity: 8 TB, source: made up}", "offload.optimizer=nvme"]
PARAMS_ON_HOST = ["layout.zero=3", "offload.parameters=cpu"]


def made(*more, base="zero-offload-10b-v100"):
    return load(base, [*BASE, *more]).scenario


def moved(scenario, rank_class=0):
    """Bytes by kind of copy in a step."""
    timeline = simulate(scenario).timeline
    total = Counter()
    for number in timeline.spans.op.tolist():
        op = timeline.ops[number]
        if op.rank_class == rank_class and op.kind in ("h2d", "d2h", "nvme_read", "nvme_write"):
            total[op.kind] += op.size
    return total


def host_traffic(scenario):
    """Bytes of host DRAM that CPU Adam moves in a step on one rank."""
    return sum(
        op.work.size
        for program in build(scenario).programs[:1]
        for block in program.blocks
        for op in block.ops
        if getattr(op.work, "kind", "") == "adam"
    )


def ends(timeline, part):
    """Ends of spans whose op's name holds ``part``, and their starts."""
    mine = np.flatnonzero(np.array([part in op.name for op in timeline.ops])[timeline.spans.op])
    return timeline.spans.start[mine], timeline.spans.end[mine]


def held(scenario, where):
    return dict(getattr(build(scenario).programs[0], f"resident_{where}"))


@pytest.mark.parametrize("dp", [1, 4])
@pytest.mark.parametrize("zero", [1, 2])
def test_zero_offload_moves_four_bytes_a_parameter_over_n(dp, zero):
    """2M/n gradients down, 2M/n parameters up (Ren et al. 2021, section 3): 4M/n in all; Adam moves 28 M/n."""
    scenario = made(f"layout.dp={dp}", f"layout.zero={zero}")
    mine = params(scenario.model) / dp
    found = moved(scenario)
    assert found["d2h"] == pytest.approx(2 * mine, rel=1e-6)
    assert found["h2d"] == pytest.approx(2 * mine, rel=1e-6)
    assert host_traffic(scenario) == pytest.approx(28 * mine, rel=1e-6)


@pytest.mark.parametrize("dp", [1, 4])
def test_zero_3_with_parameters_on_the_cpu_fetches_a_shard_for_each_pass(dp):
    """Per microbatch 2M/n for forward and again for backward (but for embedding and head, which stay), 2M/n down."""
    scenario = made(f"layout.dp={dp}", *PARAMS_ON_HOST, "batch.accumulation=2")
    layers = LAYERS * layer_params(scenario.model)
    total = params(scenario.model)
    found = moved(scenario)
    sums = 2 * total / dp  # the sum of the first microbatch returns to the GPU with the second
    assert found["h2d"] == pytest.approx(2 * (2 * total + 2 * layers) / dp + sums, rel=1e-6)
    assert found["d2h"] == pytest.approx(2 * 2 * total / dp, rel=1e-6)


def test_parameters_that_stay_gathered_are_not_fetched():
    scenario = made(*PARAMS_ON_HOST)
    model = scenario.model
    kept = made(*PARAMS_ON_HOST, f"layout.persistence_threshold={8 * model.hidden}")
    vectors = (
        6 * model.hidden + model.ffn + 3 * model.heads * model.head_dim
    )  # two norms, and the biases of qkv, out, down and up
    biases = LAYERS * vectors + 2 * model.hidden
    assert held(kept, "gpu")["parameters"] == 2 * biases
    assert held(scenario, "gpu")["parameters"] == 0
    both = LAYERS * vectors
    assert moved(scenario)["h2d"] - moved(kept)["h2d"] == pytest.approx(2 * (biases + both))


def test_a_limit_of_live_parameters_shortens_the_prefetch():
    layer = layer_params(made().model)
    wide, narrow = (
        simulate(made(*PARAMS_ON_HOST, "layout.prefetch=3", f"layout.live_parameters={n * layer}")).result
        for n in (4, 1)
    )
    gathered = [max(np.max(u.by_owner.get("parameters.gathered", 0)) for u in r.memory) for r in (wide, narrow)]
    assert gathered[0] - gathered[1] == pytest.approx(3 * 2 * layer, rel=0.02)
    assert narrow.step_time >= wide.step_time


def test_partial_offload_moves_its_part_and_runs_both_optimizers_at_once():
    whole, part = made(), made("offload.ratio=0.25")
    mine = params(whole.model)
    for kind in ("d2h", "h2d"):
        assert moved(part)[kind] == pytest.approx(0.25 * 2 * mine, rel=1e-6)
    assert held(part, "gpu")["optimizer states"] == pytest.approx(0.75 * 12 * mine)
    assert held(part, "host")["optimizer states"] == pytest.approx(0.25 * 12 * mine)
    timeline = simulate(part).timeline
    gpu, cpu = ends(timeline, "optimizer.adam"), ends(timeline, "CPU Adam")
    assert gpu[0].min() < cpu[1].max()


def test_accumulating_on_the_host_brings_each_sum_back():
    """DeepSpeed's: k microbatches send k gradients down and k - 1 sums up; accumulating on the GPU sends one down."""
    mine = 2 * params(made().model)
    host, gpu = (moved(made("batch.accumulation=4", f"offload.accumulate={where}")) for where in ("host", "gpu"))
    assert host["d2h"] == pytest.approx(4 * mine)
    assert host["h2d"] == pytest.approx((3 + 1) * mine)
    assert gpu["d2h"] == gpu["h2d"] == pytest.approx(mine)


def test_casts_on_the_gpu_put_fp32_on_the_link():
    mine = params(made().model)
    found = moved(made("offload.casts=gpu"))
    assert found["d2h"] == found["h2d"] == pytest.approx(4 * mine)


def test_states_on_drives_are_read_updated_and_written_in_turn():
    """12 M down and up; with enough pieces the time is that of the drives: 12M/read + 12M/write."""
    scenario = made(*DRIVES, "offload.sub_group=1000000", "model.hidden=512", "model.layers=12")
    mine = params(scenario.model)
    found = moved(scenario)
    assert found["nvme_read"] == found["nvme_write"] == pytest.approx(12 * mine)
    timeline = simulate(scenario).timeline
    (start, _), (_, end) = ends(timeline, "states from drives"), ends(timeline, "states to drives")
    drives = 12 * mine / 6e9 + 12 * mine / 3e9
    assert end.max() - start.min() == pytest.approx(drives, rel=0.1)
    assert held(scenario, "nvme")["optimizer states"] == pytest.approx(12 * mine)
    assert held(scenario, "host")["optimizer states.buffers"] == pytest.approx(4 * 1e6 * 12)


def test_a_sub_group_is_not_read_before_its_buffer_was_written():
    timeline = simulate(made(*DRIVES, "offload.sub_group=20000", "offload.buffers=2")).timeline
    reads, writes = ends(timeline, "states from drives"), ends(timeline, "states to drives")
    assert len(reads[0]) > 4
    assert (reads[0][2:] >= writes[1][:-2] - 1e-12).all()
    assert (np.sort(reads[0]) == reads[0]).all()


def test_parameters_on_drives_are_read_for_each_pass_and_written_once():
    scenario = made(*DRIVES, "layout.zero=3", "offload.parameters=nvme")
    total = params(scenario.model)
    layers = LAYERS * layer_params(scenario.model)
    found = moved(scenario)
    assert found["nvme_read"] == pytest.approx(12 * total + 2 * (total + layers))
    assert found["nvme_write"] == pytest.approx(12 * total + 2 * total)
    assert found["h2d"] == pytest.approx(2 * (total + layers))


def test_checkpoints_on_the_cpu_go_down_and_come_back():
    plain, away = made(), made("offload.activations=cpu")
    batch, hidden = plain.batch, plain.model.hidden
    stash = LAYERS * batch.micro * batch.sequence * hidden * 2
    base = moved(plain)
    assert moved(away)["d2h"] - base["d2h"] == pytest.approx(stash)
    assert moved(away)["h2d"] - base["h2d"] == pytest.approx(stash)
    peaks = [
        max(np.max(u.by_owner["activations.checkpoints"]) for u in simulate(s).result.memory if u.where == "gpu")
        for s in (plain, away)
    ]
    assert peaks[1] <= peaks[0] / 2
    host = next(u for u in simulate(away).result.memory if u.where == "host")
    assert np.max(host.by_owner["activations"]) == pytest.approx(stash)
    assert host.by_owner["activations"][-1] == pytest.approx(0)


def test_activations_of_the_first_layers_alone_go_down():
    base = moved(made())["d2h"]
    all_of_them, one = (made("offload.activations=cpu", *more) for more in ((), ("offload.activation_layers=1",)))
    assert moved(one)["d2h"] - base == pytest.approx((moved(all_of_them)["d2h"] - base) / LAYERS)


def test_a_delayed_update_runs_under_the_step_and_its_parameters_go_back_at_the_end():
    after, delayed = (simulate(made(f"offload.update={u}")) for u in ("after", "delayed"))
    start, end = ends(delayed.timeline, "CPU Adam")
    assert start.min() < 0.5 * delayed.result.step_time
    back, _ = ends(delayed.timeline, "parameters to GPU")
    _, computed = ends(delayed.timeline, "grad")
    assert back.min() >= max(end.max(), computed.max()) - 1e-9
    assert delayed.result.step_time < after.result.step_time
    assert moved(made("offload.update=delayed")) == moved(made("offload.update=after"))


def test_a_speculative_update_follows_each_bucket():
    scenario = made("offload.update=speculative", "layout.grad_bucket=200kB")
    timeline = simulate(scenario).timeline
    arrived, updated, back = (ends(timeline, n) for n in ("gradients to CPU", "CPU Adam", "parameters to GPU"))
    assert len(updated[0]) == len(arrived[0]) > 3
    assert (updated[0] >= arrived[1] - 1e-12).all()
    assert (back[0] >= updated[1] - 1e-12).all()
    assert moved(scenario) == moved(made())


def test_retained_buckets_leave_no_tail_on_the_host():
    """SuperOffload's bucket retention: the gradients that come last are updated on the GPU."""
    scenario = made("offload.update=speculative", "offload.ratio=0.8", "layout.grad_bucket=100kB")
    timeline = simulate(scenario).timeline
    _, backward = ends(timeline, "embedding")
    _, there = ends(timeline, "gradients to CPU")
    assert there.max() < backward.max()
    assert moved(scenario)["d2h"] == pytest.approx(0.8 * 2 * params(scenario.model), rel=1e-6)


def test_unbound_processes_cross_the_socket_link():
    near, far = (
        simulate(made(f"cluster.host.binding={b}", "cluster.host.socket_link=1GB/s")) for b in ("local", "remote")
    )
    assert far.result.step_time > near.result.step_time
    assert any("socket_link" in name for name in far.result.utilisation)
    assert not any("socket_link" in name for name in near.result.utilisation)


def test_a_process_on_all_sockets_has_all_their_memory():
    """One rank of a host of two sockets: its CPU work takes half as long, an equal part on each."""
    one, all_of_them = (simulate(made(f"cluster.host.binding={b}")) for b in ("local", "spread"))
    adam = [next(op for op in step.timeline.ops if op.kind == "adam") for step in (one, all_of_them)]
    assert adam[0].duration == pytest.approx(2 * adam[1].duration)
    used = [share for name, share in all_of_them.result.utilisation.items() if name.endswith(".cores")]
    assert all(share > 0 for share in used)
    assert used
    full = [simulate(made(f"cluster.host.binding={b}", "layout.dp=16")).timeline for b in ("local", "spread")]
    spent = [next(op.duration for op in timeline.ops if op.kind == "adam") for timeline in full]
    assert spent[0] == pytest.approx(spent[1]), "sixteen ranks share two sockets either way"
