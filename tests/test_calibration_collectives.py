"""Collectives calibrated: known parameters come back from logs made with them; an override foretells a real log."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nccl_logs import SIZES, log, timed
from ruamel.yaml import YAML

from sim.api import cluster, exchange_seconds, run
from sim.calibration.collectives import calibrate, changed, error
from sim.errors import ScenarioError
from sim.importing.nccl_tests import read

SAMPLE = Path(__file__).parent / "fixtures" / "nccl-tests" / "p5-x2.txt"
TRUE = {
    "nvlink.efficiency": 0.70, "nvlink.base_latency": 20e-6, "nvlink.step_latency": 5e-6, "nics.efficiency": 0.80,
    "nics.step_latency": 30e-6, "nics.tree_latency": 40e-6, "nics.all_to_all": 0.75,
}  # fmt: skip


def known():
    """A DGX A100 on a slow day: without a switch that adds, so that rings and trees show every parameter."""
    return changed(cluster("dgx-a100", ["cluster.nodes=4"]), TRUE)


def sweeps(tmp_path, runs, spec):
    found = []
    for number, (kind, nodes, gpus) in enumerate(runs):
        path = tmp_path / f"{number}-{kind}.log"
        path.write_text(log(timed(spec, kind, nodes, gpus, SIZES[::3]), kind, nodes, gpus))
        found += read(path)
    return found


def test_known_latencies_and_bandwidths_come_back(tmp_path):
    inside, across = [("all_reduce", 1, 8), ("all_gather", 1, 8)], [("all_reduce", 4, 8), ("reduce_scatter", 4, 8)]
    runs = [*inside, *across, ("all_to_all", 2, 8)]
    spec = cluster("dgx-a100", ["cluster.nodes=4"])
    found = calibrate(sweeps(tmp_path, runs, known()), "dgx-a100", spec, tmp_path / "mine.yaml", in_place=False)
    assert set(found.parameters) == set(TRUE)
    for name, (_, value, spread) in found.parameters.items():
        assert value == pytest.approx(TRUE[name], rel=0.03), name
        assert spread < 0.2  # what 5 % of noise on each time would leave
    assert error(found.rows, "before", large=True) > 0.10
    assert error(found.rows, "after", large=True) < 0.005
    assert error(found.rows, "unseen", large=True) < 0.005


def test_what_a_log_does_not_decide_is_held(tmp_path):
    """Only large buffers inside one node: no latency shows, and no adapter is used."""
    spec = known()
    path = tmp_path / "large.log"
    path.write_text(log(timed(spec, "all_gather", 1, 8, [2.0**k for k in range(33, 37)]), "all_gather", 1, 8))
    found = calibrate(read(path), "dgx-a100", cluster("dgx-a100"), tmp_path / "o.yaml", in_place=False)
    assert set(found.parameters) == {"nvlink.efficiency"}
    assert found.parameters["nvlink.efficiency"][1] == pytest.approx(0.70, rel=0.01)
    assert set(found.held) == {"nvlink.base_latency", "nvlink.step_latency"}


def test_a_node_without_nvlink(tmp_path):
    """Two cards over PCIe: what both directions carry together, and the hop."""
    base = cluster("rtx4090-x8")
    spec = replace(base, p2p=True, host_link=replace(base.host_link, duplex=30e9, latency=12e-6))
    path = tmp_path / "pcie.log"
    path.write_text(log(timed(spec, "all_reduce", 1, 2), "all_reduce", 1, 2))
    found = calibrate(read(path), "rtx4090-x8", replace(base, p2p=True), tmp_path / "o.yaml", in_place=False)
    assert found.parameters["host_link.duplex"][1] == pytest.approx(30e9, rel=0.02)
    assert found.parameters["host_link.latency"][1] == pytest.approx(12e-6, rel=0.05)


def test_end_to_end_a_run_with_the_override_foretells_the_log_better(stepline, tmp_path):
    """A public log of p5 against the shipped DGX H100, whose network is InfiniBand: the override closes the gap."""
    code, said, err = stepline("calibrate", "nccl-tests", str(SAMPLE), "--cluster", "dgx-h100", "--out", "mine.yaml")
    assert code == 0, err
    assert "stepline run SCENARIO --set cluster=./mine.yaml" in " ".join(said.split())
    (sweep,) = read(SAMPLE)
    members = [(node, gpu) for node in range(2) for gpu in range(8)]
    large = [row for row in sweep.rows if row.size >= 2**20]
    measured = np.array([row.out_of_place for row in large])

    def mean(name):
        spec = cluster(name, ["cluster.nodes=2"])
        (seconds,) = exchange_seconds(spec, [("all_reduce", [row.size for row in large], members)])
        return float(np.abs(np.array(seconds) / measured - 1).mean())

    assert mean("./mine.yaml") < 0.06
    assert mean("./mine.yaml") < 0.8 * mean("dgx-h100")
    written = YAML(typ="safe", pure=True).load((tmp_path / "mine.yaml").read_text())
    assert all(set(written[part]) - {"sources"} == set(written[part]["sources"]) for part in ("nics",))
    two = ["cluster.nodes=2", "layout.dp=16"]
    times = [run("quickstart", [f"cluster={name}", *two]).result.step_time for name in ("./mine.yaml", "dgx-h100")]
    assert times[0] != times[1]


def test_an_override_of_an_override_finds_its_base(stepline, tmp_path):
    (tmp_path / "base.yaml").write_text("extends: dgx-a100\nname: base\n")
    (tmp_path / "sub").mkdir()
    few = [2.0**k for k in range(28, 32)]
    (tmp_path / "a.log").write_text(log(timed(known(), "all_gather", 1, 8, few), "all_gather", 1, 8))
    for out in ("mine.yaml", "sub/mine.yaml"):
        code, _, err = stepline("calibrate", "nccl-tests", "a.log", "--cluster", "./base.yaml", "--out", out)
        assert code == 0, err
        assert cluster(f"./{out}").name == "mine"


def test_the_cluster_follows_from_the_gpu_or_is_asked_for(stepline, tmp_path):
    (tmp_path / "a.log").write_text(log(timed(cluster("dgx-h100"), "all_reduce", 1, 8), "all_reduce", 1, 8))
    code, said, _ = stepline("calibrate", "nccl-tests", "a.log")
    assert (code, "cluster taken to be dgx-h100" in said, "nothing written" in said) == (0, True, True)
    code, _, err = stepline("calibrate", "nccl-tests", str(SAMPLE))
    assert (code, "--cluster" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (lambda: log([(2.0**20, 1e-4)], "all_reduce", 1, 16), "dgx-h100", "16 ranks, 16 on a host"),
        (lambda: log([(2.0**20, 1e-4)], "all_reduce", 2, 8), "rtx4090-x8", "has no network"),
        (lambda: log([(2.0**20, 1e-4)], "all_reduce", 1, 6).replace("on    host0 device  5", "on    host9 device  5"),
         "dgx-h100", "unevenly over hosts (5, 1)"),
    ],
)  # fmt: skip
def test_logs_that_do_not_fit_the_cluster_are_refused(text, name, words, tmp_path):
    (tmp_path / "a.log").write_text(text())
    with pytest.raises(ScenarioError) as caught:
        calibrate(read(tmp_path / "a.log"), name, cluster(name), tmp_path / "o.yaml", in_place=False)
    assert words in str(caught.value)
