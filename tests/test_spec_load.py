"""Loading: how files combine, what ``--set`` may do, what is derived, and where each number came from."""

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sim.errors import ScenarioError
from sim.spec import blocks, catalogue, network_blocks, types
from sim.spec.load import load
from sim.spec.schema import json_schema
from sim.spec.template import scenario_template

HERE = Path(__file__).parent


@pytest.fixture
def _fixtures(monkeypatch):
    monkeypatch.setattr(catalogue, "root", lambda: HERE / "fixtures" / "shipped")
    monkeypatch.chdir(HERE / "fixtures")


pytestmark = pytest.mark.usefixtures("_fixtures")


def base(*overrides):
    return load("./base.yaml", overrides).scenario


def messages(*overrides, path="./base.yaml"):
    with pytest.raises(ScenarioError) as caught:
        load(path, overrides)
    return str(caught.value).splitlines()


def test_quantities_become_si():
    cluster = base().cluster
    assert cluster.device.memory == 80e9
    assert cluster.device.gemm["bf16"].t0 == 5e-6
    assert cluster.device.gemm_alignment == 16
    assert isinstance(cluster.device.gemm_alignment, int)
    assert cluster.nics == types.NicSpec(count=8, bandwidth=25e9, efficiency=0.9, step_latency=5e-6)
    assert cluster.device.flash == {
        "flash2": (
            types.FlashFit(head_dim=64, causal=True, p_inf=175e12, s0=508),
            types.FlashFit(head_dim=64, causal=False, p_inf=179e12, s0=180),
        )
    }


def test_cluster_file_overrides_its_node():
    cluster = base().cluster
    assert (cluster.name, cluster.nodes, cluster.gpus) == ("test-cluster", 4, 32)
    assert cluster.host.dram_bandwidth == 150e9  # the cluster's
    assert cluster.host.dram == 1e12  # the node's
    assert cluster.nvme == types.NvmeSpec(read=20e9, write=10e9, capacity=15e12)


def test_scenario_extends_scenario():
    child = load("./child.yaml").scenario
    assert child.name == "child"
    assert child.description == ""
    assert child.cluster.nvlink is None  # null takes an optional block away
    assert child.cluster.device.memory == 40e9
    assert child.cluster.device.hbm_bandwidth == 2e12
    assert (child.precision.compute, child.precision.grads) == ("bf16", "bf16")


def test_shipped_names():
    first = load("first").scenario
    assert (first.name, first.model.name) == ("first", "gpt-a")
    assert (first.cluster.name, first.stack.name) == ("cluster-a", "stack-a")
    assert first.cluster.device.name == "gpu-a"
    assert first.layout.prefetch == 4


def test_a_path_is_relative_to_the_file_that_says_it(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "m.yaml").write_text("extends: gpt-a\nlayers: 7\n")
    (tmp_path / "deep" / "base.yaml").write_text("extends: first\nmodel: er/m.yaml\n")
    (tmp_path / "top.yaml").write_text("extends: deep/base.yaml\n")
    assert load(str(tmp_path / "top.yaml")).scenario.model.layers == 7


# -- derived


def test_model_shape_defaults():
    model = base().model
    assert (model.kv_heads, model.head_dim, model.ffn) == (16, 64, 4096)
    given = base("model.kv_heads=4", "model.head_dim=64", "model.ffn=11008").model
    assert (given.kv_heads, given.head_dim, given.ffn) == (4, 64, 11008)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{micro: 4, accumulation: 2, size: null}", (64, 4, 2)),
        ("{micro: 4, accumulation: null, size: 96}", (96, 4, 3)),
        ("{micro: null, accumulation: 2, size: 64}", (64, 4, 2)),
        ("{micro: 1, accumulation: 1, size: 8}", (8, 1, 1)),
    ],
)
def test_batch_third_is_derived(given, expected):
    batch = base(f"batch={given}").batch
    assert (batch.size, batch.micro, batch.accumulation) == expected


def test_what_the_layout_leaves_out_the_stack_decides():
    layout = base().layout
    assert (layout.grad_bucket, layout.gather_bucket, layout.prefetch) == (25 * 2**20, 200e6, 2)
    assert layout.overlap_grad_reduce is True
    own = base("layout.grad_bucket=1 GB", "layout.overlap_grad_reduce=false").layout
    assert (own.grad_bucket, own.overlap_grad_reduce) == (1e9, False)


def test_precision_words_and_defaults():
    assert base().precision == types.PrecisionSpec(compute="bf16", grads="fp32", grad_comm="bf16", master=True)
    assert base("precision=fp16").precision == types.PrecisionSpec(
        compute="fp16", grads="fp16", grad_comm="fp16", master=True
    )
    fit = "{peak: 19.5 TFLOP/s, e: 0.9, am: 0, an: 0, ak: 0, t0: 0 s, eb: 0.7}"
    full = base(
        "precision=fp32", "precision.grads=fp32", "precision.grad_comm=fp32", f"cluster.device.gemm.fp32={fit}"
    ).precision
    assert full.master is False


def test_offload_none_and_cpu():
    assert base("offload=none").offload == types.OffloadSpec()
    on = base("offload.optimizer=cpu", "offload.gradients=cpu", "offload.pinned=false").offload
    assert on == types.OffloadSpec(optimizer="cpu", gradients="cpu", pinned=False)
    alone = base("offload={optimizer: cpu, gradients: cpu}", "layout={zero: 0, dp: 1}", "cluster.nodes=1")
    assert alone.layout.zero == 0


@pytest.mark.parametrize("dp", [8, 16, 24, 32])
def test_whole_nodes_are_accepted(dp):
    assert base(f"layout.dp={dp}").layout.world == dp


@pytest.mark.parametrize("dp", [1, 3, 8])
def test_part_of_a_lone_node_is_accepted(dp):
    assert base("cluster.nodes=1", f"layout.dp={dp}").layout.world == dp


def test_rotary_model_without_a_table_and_fewer_gpus_than_sockets():
    assert base("model.positions=rotary", "model.max_positions=0", "batch.sequence=9000").batch.sequence == 9000
    lone = base("cluster.nodes=1", "cluster.gpus_per_host=1", "cluster.nics.count=1", "layout.dp=1")
    assert lone.cluster.host.sockets == 2


# -- overrides


def test_set_reaches_through_names():
    scenario = load("first", ["cluster.host.dram_bandwidth=99 GB/s", "cluster.device.gemm.bf16.e=0.5"]).scenario
    assert scenario.cluster.host.dram_bandwidth == 99e9
    assert scenario.cluster.device.gemm["bf16"].e == 0.5


def test_set_replaces_names_and_makes_blocks():
    scenario = base(
        "cluster=node-a",
        "cluster.device=gpu-b",
        "cluster.nvme.read=1 GB/s",
        "cluster.nvme.write=2 GB/s",
        "cluster.nvme.capacity=1 TB",
        "cluster.nvlink=null",
        "stack.sustained={odd.name: 0.8}",
        "stack.sustained.odd.name=0.7",
        "cluster.device.flash.flash2.1.s0=1",
        "model={extends: gpt-a, layers: 2}",
    )
    assert scenario.cluster.name == "node-a"
    assert scenario.cluster.device.memory == 40e9
    assert scenario.cluster.nvme == types.NvmeSpec(read=1e9, write=2e9, capacity=1e12)
    assert scenario.cluster.nvlink is None
    assert scenario.stack.sustained == {"test-gpu": 0.95, "odd.name": 0.7}
    assert scenario.cluster.device.flash["flash2"][1].s0 == 1
    assert (scenario.model.name, scenario.model.layers) == ("gpt-a", 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layout.dp", "--set: 'layout.dp' is not of the form key.path=value"),
        ("layout..dp=1", "--set: 'layout..dp=1' is not of the form key.path=value"),
        ("layout.zer=1", "--set: layout.zer: unknown key; did you mean 'zero'? keys here: "
         + ", ".join(blocks.LayoutFile.model_fields)),
        ("cluster.host.dram=5", "--set: cluster.host.dram: must carry its unit: 5 is a bare number; write a size in "
         'bytes, such as "80 GiB"'),
        ("cluster=nod-a", "--set: cluster: unknown cluster 'nod-a'; did you mean 'node-a'? choices: cluster-a, node-a, "
         "or a path ending in .yaml"),
        ("layout.dp.x=1", "--set: layout.dp.x: layout.dp is 8, which has no key 'x'"),
        ("cluster.device.flash.flash2.7.s0=1", "--set: cluster.device.flash.flash2.7.s0: cluster.device.flash.flash2 "
         "is a list of 2; '7' is not an index into it"),
        ("model.extends=gpt-a", "--set: model.extends: extends is settled when files are read; set the key it would "
         "change, or cluster=NAME and the like"),
        ("layout.dp=[", "--set: layout.dp: '[' is not a value: YAML syntax: expected the node content, but found "
         "'<stream end>'"),
        ("a" + ".a" * 70 + "=1", "--set: a" + ".a" * 70 + ": is more than 64 deep"),
    ],
)  # fmt: skip
def test_set_errors_point_at_set(override, message):
    assert messages(override) == [message]


# -- what is kept


def test_every_key_knows_its_place():
    places = load("./child.yaml").positions
    assert dataclasses.astuple(places["cluster.nvlink"]) == ("child.yaml", 2, 11)
    assert dataclasses.astuple(places["cluster.host.dram_bandwidth"]) == ("cluster.yaml", 4, 8)
    assert dataclasses.astuple(places["cluster.host.dram"]) == ("node.yaml", 9, 3)
    assert dataclasses.astuple(places["model.layers"]) == ("model.yaml", 3, 1)


def test_sources_follow_their_numbers():
    rows = {row.key: (row.value, row.source) for row in load("./child.yaml", ["model.layers=9"]).sources}
    assert rows["model.layers"] == ("9", "--set")
    assert rows["model.hidden"] == ("1024", "made up")
    assert rows["cluster.device.memory"] == ("40 GB", "")  # overridden: no longer the data sheet's
    assert rows["cluster.device.hbm_bandwidth"] == ("2 TB/s", "round numbers")
    assert rows["cluster.device.gemm.bf16.peak"] == ("312 TFLOP/s", "fit on round numbers")
    assert rows["cluster.device.gemm.fp16.peak"] == ("312 TFLOP/s", "round numbers")
    assert rows["cluster.host.dram_bandwidth"] == ("150 GB/s", "")
    assert rows["cluster.device.flash.flash2.0.p_inf"] == ("175 TFLOP/s", "round numbers")
    assert not any("sources" in key or "tied" in key for key in rows)


@pytest.mark.parametrize("path", ["./base.yaml", "./child.yaml", "first"])
def test_the_document_loads_again_to_the_same_scenario(path, tmp_path):
    loaded = load(path, ["layout.grad_bucket=3 MB"])
    again = tmp_path / "again.yaml"
    with again.open("w") as stream:
        YAML(typ="safe").dump(dict(loaded.document), stream)
    assert load(str(again)).scenario == loaded.scenario


def test_loading_twice_gives_equal_and_ordered_results():
    first, second = load("./child.yaml"), load("./child.yaml")
    assert repr(first) == repr(second)


def test_where_ranks_sit(tmp_path):
    """Words, a list with ranges both ways, and a file that holds the list: beside the scenario or set by hand."""
    assert base().layout.placement == "packed"
    assert base("layout.placement=scattered").layout.placement == "scattered"
    devices = (3, 2, 1, 0, 8, 16, 17, 18)
    assert base("layout.placement=[3-0, 8, 16-18]").layout.placement == devices
    assert base("layout.dp=12", "layout.placement=scattered", "batch.size=null").layout.world == 12
    (tmp_path / "ranks.yaml").write_text("[3-0, 8, 16-18]")
    assert base(f"layout.placement={tmp_path}/ranks.yaml").layout.placement == devices
    assert base(f"layout={{placement: {tmp_path}/ranks.yaml}}").layout.placement == devices


# -- the schema and the types


PAIRS = [
    (types.ModelSpec, blocks.ModelFile),
    (types.GemmFit, blocks.GemmFile),
    (types.FlashFit, blocks.FlashFile),
    (types.DeviceSpec, blocks.DeviceFile),
    (types.HostSpec, blocks.HostFile),
    (types.HostLinkSpec, blocks.HostLinkFile),
    (types.NvlinkSpec, blocks.NvlinkFile),
    (types.NicSpec, network_blocks.NicFile),
    (types.NvmeSpec, blocks.NvmeFile),
    (types.ClusterSpec, blocks.ClusterFile),
    (types.VariationSpec, network_blocks.VariationFile),
    (types.DimensionSpec, network_blocks.DimensionFile),
    (types.FabricSpec, network_blocks.FabricFile),
    (types.CollectivesSpec, network_blocks.CollectivesFile),
    (types.NodeGroupSpec, blocks.NodeGroupFile),
    (types.LayoutSpec, blocks.LayoutFile),
    (types.BatchSpec, blocks.BatchFile),
    (types.PrecisionSpec, blocks.PrecisionFile),
    (types.OffloadSpec, blocks.OffloadFile),
    (types.StackSpec, blocks.StackFile),
    (types.Scenario, blocks.ScenarioFile),
]


@pytest.mark.parametrize(("spec", "block"), PAIRS, ids=lambda kind: kind.__name__)
def test_schema_and_types_have_the_same_keys_and_defaults(spec, block):
    fields = {field.name: field for field in dataclasses.fields(spec)}
    assert list(block.model_fields) == list(fields)
    for key, field in block.model_fields.items():
        plain = isinstance(field.default, bool | int | float | str)
        if plain and fields[key].default is not dataclasses.MISSING:
            assert field.default == fields[key].default, key


def test_json_schema_describes_every_key():
    schema = json_schema()
    for block in (schema, *schema["$defs"].values()):
        assert "required" not in block
        assert all(said.get("description") for said in block["properties"].values())
    assert schema["properties"]["cluster"]["anyOf"][0]["examples"] == ["cluster-a", "node-a"]
    assert "GB/s" in schema["$defs"]["HostFile"]["properties"]["dram_bandwidth"]["description"]


def test_template_holds_every_block_of_a_scenario():
    text = scenario_template('mine: "yes"')
    held = YAML(typ="safe").load(text)
    assert held["name"] == 'mine: "yes"'
    assert set(held) == set(blocks.ScenarioFile.model_fields)
