"""Node files made of foreign ones: they load and simulate at once, say where every number is from, and guess aloud."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_catalogue import unsourced

from sim.api import cluster, run, topology
from sim.errors import ScenarioError
from sim.importing import identities, nccl_topo, nvidia_smi
from sim.importing.node_file import comment, node_file
from sim.spec import catalogue
from sim.spec.write import to_yaml

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "tests" / "fixtures" / "import"
FILES = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".xml", ".txt") and "nccl" not in path.name)


def imported(name, gpu="", like=""):
    reader = nccl_topo if name.endswith(".xml") else nvidia_smi
    return node_file(reader.read(SAMPLES / name), SAMPLES / name, Path(name).stem, gpu, like)


def written(tmp_path, name, **options):
    found = imported(name, **options)
    path = tmp_path / f"{Path(name).stem}.yaml"
    path.write_text(to_yaml(found.document, comment(found, "a test")))
    return path, found


@pytest.mark.parametrize("name", FILES)
def test_every_sample_becomes_a_node_that_loads_and_shows_and_some_run(name, tmp_path):
    path, found = written(tmp_path, name)
    plain = YAML(typ="safe", pure=True).load(path.read_text())
    assert list(unsourced(plain)) == []
    assert found.told >= 4
    assert found.filled > 10
    assert len(topology(str(path))[0].pair) == plain["gpus_per_host"]
    if name in ("ncv4.xml", "h100-smi.txt", "h200-dump.xml"):
        _runs(path, plain["gpus_per_host"])


def _runs(path, gpus):
    few = ["batch={micro: 1, accumulation: 1, sequence: 128}", f"layout.dp={gpus}"]
    wanted = [f"cluster={path}", *few, "precision=fp16", "stack=megatron-deepspeed-2020"]
    assert run("quickstart", wanted).result.step_time > 0


def test_what_the_file_says_is_kept(tmp_path):
    spec = cluster(str(written(tmp_path, "ndv4.xml")[0]))
    assert (spec.device.name, spec.gpus_per_host, spec.host.sockets, spec.host.cores_per_socket) == (
        "a100-sxm-80gb", 8, 2, 48,
    )  # fmt: skip
    assert (spec.host_link.gpus_per_uplink, spec.nics.count) == (2, 8)
    spec = cluster(str(written(tmp_path, "ndv5.xml")[0]))
    assert (spec.device.name, spec.host_link.gpus_per_uplink, spec.nics.count) == ("h100-sxm-80gb", 1, 8)
    spec = cluster(str(written(tmp_path, "ndv2.xml")[0]))
    assert (spec.device.name, spec.nics.count, spec.nvlink.kind) == ("v100-sxm2-32gb", 1, "mesh")
    spec = cluster(str(written(tmp_path, "ncv4.xml")[0]))
    assert (spec.device.name, spec.nvlink, spec.gpus_per_host) == ("a100-pcie-80gb", None, 4)
    assert spec.nics.bandwidth == 100e9 / 8


def test_a_weak_slot_and_a_lost_link_become_variations(tmp_path):
    spec = cluster(str(written(tmp_path, "h200-dump.xml")[0]))
    slow = {(v.part, v.index): v.speed for v in spec.variations}
    assert slow == {("pcie", 5): 0.5, ("nvlink", 2): pytest.approx(17 / 18, abs=1e-4)}


def test_filled_numbers_are_those_of_the_shipped_node_and_say_so():
    found = imported("ndv5.xml", like="azure-ndv5").document
    assert found["nvlink"]["base_latency"] == "25 us"
    assert found["nvlink"]["sources"]["base_latency"].startswith("filled from the catalogue, azure-ndv5: ")
    assert found["sources"]["device"] == "--like azure-ndv5"


def test_a_guess_is_told_and_can_be_overruled():
    guessed, told = imported("ndv5.xml"), imported("ndv5.xml", gpu="h200-sxm-141gb")
    assert "h200-sxm-141gb" in guessed.notes[0]
    assert "--gpu" in guessed.notes[0]
    assert told.document["device"] == "h200-sxm-141gb"
    assert not any("also fits" in note for note in told.notes)


def test_a_file_that_does_not_tell_the_gpu_asks_for_it(tmp_path):
    path = tmp_path / "pcie.txt"
    path.write_text("GPU0 GPU1 CPU Affinity\nGPU0 X PHB 0-7 0\nGPU1 PHB X 0-7 0\n")
    with pytest.raises(ScenarioError, match=r"--gpu NAME: a100-pcie-40gb"):
        node_file(nvidia_smi.read(path), path, "x")
    assert node_file(nvidia_smi.read(path), path, "x", "rtx4090-24gb").document["p2p"] is False


def test_a_gpu_that_is_named_but_not_shipped_is_not_taken_for_another(tmp_path):
    """Eighteen NVLinks are an H100's too; the table above the matrix says B300."""
    path = tmp_path / "b300.txt"
    text = (SAMPLES / "h100-smi.txt").read_text()
    path.write_text(text.replace("NVIDIA H100 80GB HBM3 ", "NVIDIA B300 SXM6 AC   "))
    with pytest.raises(ScenarioError, match=r"its GPU \(NVIDIA B300 SXM6 AC"):
        node_file(nvidia_smi.read(path), path, "x")
    path = tmp_path / "new.xml"
    path.write_text((SAMPLES / "h200-dump.xml").read_text().replace("0x2335", "0xbeef"))
    with pytest.raises(ScenarioError, match=r"PCI id 10de:beef"):
        node_file(nccl_topo.read(path), path, "x")
    assert node_file(nccl_topo.read(path), path, "x", "h200-sxm-141gb").document["device"] == "h200-sxm-141gb"


def made(tmp_path, cpus, gpu):
    """A topology of GPUs in NCCL's words: the attributes of each cpu, the GPUs on each, what each GPU's device says."""
    numbers = iter(range(64))
    body = ""
    for cpu, count in cpus:
        inside = "".join(gpu(next(numbers)) for _ in range(count))
        body += f"<cpu {cpu}>{inside}</cpu>"
    path = tmp_path / "made.xml"
    path.write_text(f'<system version="2">{body}</system>')
    found = node_file(nccl_topo.read(path), path, "made")
    (tmp_path / "made.yaml").write_text(to_yaml(found.document))
    return cluster(str(tmp_path / "made.yaml")), found


def test_a_full_mesh_of_xgmi(tmp_path):
    """Eight MI300X in RCCL's words: a link from each to each other."""

    def gpu(i):
        links = "".join(f'<xgmi target="b{j}" count="1" tclass="0x120000"/>' for j in range(8) if j != i)
        dev = f'<gpu dev="{i}" gcn="gfx942" arch="38911" gdr="1">{links}</gpu>'
        return f'<pci busid="b{i}" class="0x120000" vendor="0x1002" device="0x74a1">{dev}</pci>'

    cpus = [(f'numaid="{n}" arch="x86_64" vendor="AuthenticAMD" familyid="25" modelid="17"', 4) for n in (0, 1)]
    spec, found = made(tmp_path, cpus, gpu)
    assert (spec.device.name, spec.nvlink.kind, spec.nvlink.bandwidth) == ("mi300x-192gb", "full", 7 * 64e9)
    assert found.document["host"]["name"] == "2 x AMD EPYC 9004, Genoa"


def test_a_tray_of_grace_and_its_copies_over_c2c(tmp_path):
    """Half a GB200 tray shares an NVLink domain with nobody: two GPUs, one Grace, a C2C link."""

    def gpu(i):
        inside = '<nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/><c2c bw="44712" count="5"/>'
        dev = f'<gpu dev="{i}" sm="100" gdr="1">{inside}</gpu>'
        known = 'class="0x030200" vendor="0x10de" device="0x2941"'
        return f'<pci busid="b{i}" {known} link_speed="" link_width="0">{dev}</pci>'

    spec, _ = made(tmp_path, [('numaid="0" affinity="0000ffff" arch="arm64"', 2)], gpu)
    assert (spec.device.name, spec.host_link.kind, spec.host.sockets) == ("gb200-186gb", "c2c", 1)
    assert (spec.nvlink.kind, spec.nvlink.bandwidth, spec.host.cores_per_socket) == ("switch", 900e9, 16)


@pytest.mark.parametrize(("gpu", "like", "words"), [("h10", "", "--gpu: unknown name"), ("", "dgx", "--like: unknown")])
def test_unknown_names_list_the_choices(gpu, like, words):
    with pytest.raises(ScenarioError, match=words):
        imported("ndv5.xml", gpu, like)


def test_identities_name_what_is_shipped():
    assert set(identities.gpus()) <= set(catalogue.names("devices"))
    nodes = set(catalogue.names("nodes"))
    assert {node for cpu in identities.cpus() for node in cpu.nodes} <= nodes
    assert {one.node for one in identities.pcie().values()} <= nodes
    for one in identities.gpus().values():
        for node in (s for s in identities.shelves() if s.device == one.device and s.value("nvlink")):
            assert node.number("nvlink.bandwidth") == one.links * one.link, node.name
    assert identities.by_product("0, NVIDIA H200, 570.1").device == "h200-sxm-141gb"
    assert identities.by_product("NVIDIA A100-SXM4-80GB").device == "a100-sxm-80gb"
    assert identities.by_product("NVIDIA H2000") is None


def test_the_command_writes_prints_and_refuses(stepline, tmp_path):
    source = str(SAMPLES / "ndv4.xml")
    code, _, said = stepline("import", "nccl-topo", source, "--out", "mine.yaml")
    assert code == 0, said
    assert "topology show ./mine.yaml" in " ".join(said.split())
    assert cluster(str(tmp_path / "mine.yaml")).name == "mine"
    code, _, said = stepline("import", "nccl-topo", source, "--out", "mine.yaml")
    assert (code, "left alone" in said) == (2, True)
    _, printed, _ = stepline("import", "nvidia-smi-topo", str(SAMPLES / "h100-smi.txt"))
    assert YAML(typ="safe", pure=True).load(printed)["device"] == "h100-sxm-80gb"
    code, _, said = stepline("import", "nccl-topo", str(SAMPLES / "h100-smi.txt"))
    assert (code, "not well-formed" in said) == (2, True)
