"""The shipped files: they parse, are called what their file is called, and every number says where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sim import api, units
from sim.cluster.build import build
from sim.cluster.types import NodeKind
from sim.spec.load import Loaded, load
from sim.spec.types import ModelSpec
from sim.workload.model import params

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGIES = sorted((ROOT / "topologies").rglob("*.yaml"))
MODELS = sorted((ROOT / "scenarios" / "models").glob("*.yaml"))
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))
CLUSTERS = [p for p in TOPOLOGIES if p.parent.name in ("nodes", "clusters")]


def stem(path: Path) -> str:
    return path.stem


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def is_number(value: object) -> bool:
    if isinstance(value, str):
        return units.is_quantity(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def unsourced(node: object, vouched: bool = False, where: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths of numbers with no ``source`` in their mapping or above it, nor a line of their own in ``sources``."""
    if isinstance(node, Mapping):
        here = vouched or bool(node.get("source"))
        own = node.get("sources", {})
        for key, child in node.items():
            if key not in ("source", "sources", "description", "name"):
                yield from unsourced(child, here or bool(own.get(key)), (*where, str(key)))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from unsourced(child, vouched, (*where, str(index)))
    elif is_number(node) and not vouched:
        yield ".".join(where)


def extended(path: Path) -> dict[str, Any]:
    """A model's keys over those of the model it extends: flat, so a plain update does."""
    own = read(path)
    base = own.pop("extends", None)
    return {**(extended(path.with_name(f"{base}.yaml")) if base else {}), **own}


@pytest.mark.parametrize("path", TOPOLOGIES + MODELS + SCENARIOS, ids=stem)
def test_file_parses_and_is_called_what_its_file_is_called(path: Path) -> None:
    assert read(path)["name"] == path.stem


def test_names_are_unique_where_a_reference_may_mean_either() -> None:
    names = [p.stem for p in CLUSTERS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", TOPOLOGIES + MODELS, ids=stem)
def test_every_number_has_a_source(path: Path) -> None:
    assert list(unsourced(read(path))) == []


def test_a_number_without_a_source_is_found() -> None:
    vouched = {"a": {"source": "data sheet", "b": "3 GB/s"}, "d": 1, "sources": {"d": "estimate"}}
    node = {**vouched, "c": 4, "e": [{"f": "2 us"}]}
    assert list(unsourced(node)) == ["c", "e.0.f"]


@pytest.mark.parametrize("path", SCENARIOS, ids=stem)
def test_scenario_loads_and_every_number_behind_it_has_a_source(path: Path) -> None:
    loaded = load(path.stem)
    assert loaded.scenario.name == path.stem
    assert [row.key for row in loaded.sources if not row.source] == []


def on(cluster: Path) -> Loaded:
    """A scenario that every cluster can hold, on all GPUs of this one, in fp32 so that every device can compute it."""
    spec = extended_cluster(cluster)
    gpus = spec["nodes"] * spec["gpus_per_host"]
    stack = "stack=megatron-deepspeed-2020"
    return load("quickstart", [f"cluster={cluster.stem}", f"layout.dp={gpus}", "precision=fp32", stack])


def extended_cluster(path: Path) -> dict[str, Any]:
    own = read(path)
    base = own.get("extends")
    found = next(p for p in CLUSTERS if p.stem == base) if base else None
    return {**(extended_cluster(found) if found else {}), **own}


@pytest.mark.parametrize("path", CLUSTERS, ids=stem)
def test_cluster_is_whole(path: Path) -> None:
    """Physics that a slip of the pen breaks: two directions carry at most twice one, a fast path beats a slow one."""
    spec = on(path).scenario.cluster
    link = spec.host_link
    assert max(link.h2d, link.d2h) <= link.duplex <= link.h2d + link.d2h
    assert link.pageable < min(link.h2d, link.d2h)
    assert spec.gpus_per_host % spec.host.sockets == 0
    # half: Jean Zay has 512 GB beside 640 GB on its GPUs; less than that is a slip of the pen
    assert spec.host.dram > spec.gpus_per_host * spec.device.memory / 2
    assert spec.nvlink is None or spec.nvlink.bandwidth > link.h2d
    assert spec.nvme is None or spec.nvme.write <= spec.nvme.read


MACHINES = {
    "DGX-2": "dgx-2", "DGX A100": "dgx-a100", "DGX H100": "dgx-h100", "HGX B200": "hgx-b200",
    "GB200 NVL72": "gb200-nvl72",
    "GB300 NVL72": "gb300-nvl72", "GH200": "gh200", "AWS p4d": "aws-p4d", "AWS p4de": "aws-p4de", "AWS p5": "aws-p5",
    "Azure NDv4": "azure-ndv4", "Azure NDv5": "azure-ndv5", "8x A100-PCIe": "a100-pcie-x8", "RTX 4090": "rtx4090",
    "RTX 4090 without P2P": "rtx4090-x8", "RTX 4090 with P2P": "rtx4090-x8-p2p", "MI300X": "mi300x-x8",
    "Selene": "selene", "Eos": "eos", "Jean Zay": "jean-zay", "24K-H100 RoCE": "h100-24k-roce",
    "24K-H100 IB": "h100-24k-ib",
}  # fmt: skip
"""Machines that a network engineer would look for, by the name of their file."""


@pytest.mark.parametrize("name", MACHINES.values())
def test_the_machines_that_everybody_asks_for_are_there(name: str) -> None:
    assert any(path.stem == name for path in CLUSTERS)


def lone(kind: NodeKind, route: tuple[int, ...]) -> float:
    return min(kind.resources[local].capacity / route.count(local) for local in route)


def test_a_rack_of_72_is_trays_of_two_graces_that_share_their_links() -> None:
    """Two GPUs a Grace share its C2C and its memory; a Grace reaches the other one of its tray only."""
    kind = build(api.cluster("gb200-nvl72")).kinds[0]
    names = [resource.name for resource in kind.resources]
    assert [name for name in names if name.startswith("socket4-")] == ["socket4-5.socket_link"]
    assert sum("socket_link" in name for name in names) == 36
    ways = [{names[local] for local in kind.places[gpu].h2d} for gpu in range(3)]
    assert ways[0] & ways[1] == {"socket0.dram", "switch0.uplink.in"}
    assert not ways[1] & ways[2]
    assert lone(kind, kind.places[0].h2d) == pytest.approx(201e9)
    assert kind.resources[kind.places[0].dram].capacity < 2 * 201e9


def test_peer_access_takes_the_copy_out_of_host_memory() -> None:
    without, peer = (build(api.cluster(name)).kinds[0] for name in ("rtx4090-x8", "rtx4090-x8-p2p"))
    assert any(without.resources[local].kind == "dram" for local in without.peer[0][5])
    assert not any(peer.resources[local].kind == "dram" for local in peer.peer[0][5])
    assert len(peer.peer[0][5]) < len(without.peer[0][5])


def test_hosts_of_the_cloud_are_their_own() -> None:
    """PCIe 3 under p4d and p4de, a PCIe 4 port under the PCIe 5 of p5's GPUs (topology files of aws-ofi-nccl)."""
    rates = {name: api.cluster(name).host_link for name in ("aws-p4d", "aws-p4de", "aws-p5", "dgx-a100", "dgx-h100")}
    assert rates["aws-p4d"] == rates["aws-p4de"]
    assert rates["aws-p4de"].uplink < 16e9 < rates["dgx-a100"].h2d
    assert rates["aws-p5"].h2d < 32e9 < rates["dgx-h100"].h2d


def test_pods_of_the_24k_machine_on_ethernet_are_oversubscribed_seven_times() -> None:
    ethernet, infiniband = build(api.cluster("h100-24k-roce")), build(api.cluster("h100-24k-ib"))
    assert (ethernet.pods, ethernet.leaves, infiniband.pods) == (8, 0, 0)
    up = ethernet.resource(ethernet.at(ethernet.nodes, 0)).capacity
    assert up == pytest.approx(3072 * 50e9 * 0.95 / 7)


@pytest.mark.parametrize("path", [p for p in TOPOLOGIES if p.parent.name == "devices"], ids=stem)
def test_device_is_whole(path: Path) -> None:
    node = "cluster=dgx-a100"
    loaded = load("quickstart", [node, f"cluster.device={path.stem}", "precision=fp32", "stack.attention=math"])
    device = loaded.scenario.cluster.device
    assert device.unaligned_flops_per_s < device.gemm["fp16"].peak * device.gemm["fp16"].e
    assert device.naive_fraction < device.fused_fraction
    assert all(fit.p_inf < device.gemm["fp16"].peak for fits in device.flash.values() for fit in fits)


# (name, parameters): the number of the released checkpoint, tied matrices counted once. BERT: the pretraining model
# (110,106,428 and 336,226,108) less its next-sentence output, 2 x hidden + 2, which Stepline leaves out.
PUBLISHED = [
    ("gpt2-124m", 124_439_808), ("gpt2-355m", 354_823_168), ("gpt2-774m", 774_030_080), ("gpt2-1.5b", 1_557_611_200),
    ("llama2-7b", 6_738_415_616), ("llama2-13b", 13_015_864_320), ("llama2-70b", 68_976_648_192),
    ("llama3-8b", 8_030_261_248), ("llama3-70b", 70_553_706_496), ("llama3.1-405b", 405_853_388_800),
    ("mistral-7b", 7_241_732_096), ("qwen2.5-7b", 7_615_616_512), ("tinyllama-1.1b", 1_100_048_384),
    ("bert-base", 110_106_428 - 1_538), ("bert-large", 336_226_108 - 2_050),
]  # fmt: skip


def model(name: str) -> ModelSpec:
    keys = extended(ROOT / "scenarios" / "models" / f"{name}.yaml")
    known = {f.name for f in fields(ModelSpec)}
    return ModelSpec(**{key: value for key, value in keys.items() if key in known})


@pytest.mark.parametrize(("name", "published"), PUBLISHED)
def test_model_has_the_published_number_of_parameters(name: str, published: int) -> None:
    assert params(model(name)) == published


@pytest.mark.parametrize(
    ("name", "billions", "digits"),
    [
        ("gpt3-175b", 174.6, 1),  # Brown et al. 2020, table 2.1 prints 175.0; table D.1 174,600M
        ("gpt3-13b", 12.85, 2),  # table D.1: 12,850M
        ("gpt2-10b", 10.27, 2),  # DeepSpeed ZeRO-Offload tutorial log
    ],
)
def test_model_has_about_the_published_number_of_parameters(name: str, billions: float, digits: int) -> None:
    assert round(params(model(name)) / 1e9, digits) == pytest.approx(billions, rel=2e-3)
