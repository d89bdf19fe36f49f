"""Logs of nccl-tests made for tests: what a machine with known parameters would print."""

import json

from sim.api import exchange_seconds

PROGRAM = {
    "all_reduce": "all_reduce_perf", "all_gather": "all_gather_perf", "reduce_scatter": "reduce_scatter_perf",
    "broadcast": "broadcast_perf", "all_to_all": "alltoall_perf", "ring_step": "sendrecv_perf",
}  # fmt: skip
SIZES = [2.0**k for k in range(10, 33)]


def timed(spec, kind, nodes, gpus, sizes=SIZES):
    members = [(node, gpu) for node in range(nodes) for gpu in range(gpus)]
    return list(zip(sizes, exchange_seconds(spec, [(kind, sizes, members)])[0], strict=True))


def factor(kind, n):
    return {"all_reduce": 2 * (n - 1) / n, "broadcast": 1.0, "ring_step": 1.0}.get(kind, (n - 1) / n)


def log(rows, kind, nodes, gpus, *, prefix="", product="NVIDIA H100 80GB HBM3", devices=True):
    """Text as nccl-tests prints it, NCCL_DEBUG's noise between."""
    n, reduces = nodes * gpus, kind in ("all_reduce", "reduce_scatter")
    lines = [f"# Collective test starting: {PROGRAM[kind]}", "# nThread 1 nGpus 1", "#", "# Using devices"]
    if devices:
        lines += [
            f"#  Rank {r:2} Group  0 Pid {100 + r:6} on    host{r // gpus} device {r % gpus:2} [0x0f] {product}"
            for r in range(n)
        ]
    lines += ["host0:100:200 [0] NCCL INFO Using network IB", "#"]
    lines += ["#       size         count      type   redop    root " + "    time   algbw   busbw #wrong" * 2]
    lines += ["#        (B)    (elements)                           " + "    (us)  (GB/s)  (GB/s)       " * 2]
    for size, seconds in rows:
        algorithm = size / seconds / 1e9
        body = f"{seconds * 1e6:.5g} {algorithm:.2f} {algorithm * factor(kind, n):.2f}"
        lines.append(f"{int(size):12} {int(size) // 4:12} float {'sum' if reduces else 'none'} -1 {body} 0 {body} N/A")
    lines += ["# Out of bounds values : 0 OK", "# Avg bus bandwidth    : 1.0"]
    return "".join(prefix + line + "\n" for line in lines)


def report(rows, kind, nodes, gpus):
    """The JSON of -J."""
    devices = [
        {"rank": r, "group": 0, "pid": r, "hostname": f"h{r // gpus}", "device": r % gpus, "device_hex": "0x1",
         "device_info": "NVIDIA H100 80GB HBM3"}
        for r in range(nodes * gpus)
    ]  # fmt: skip
    results = [
        {"size": int(size), "count": int(size) // 4, "type": "float", "redop": "sum", "root": "    -1",
         "out_of_place": {"time": seconds * 1e6, "alg_bw": size / seconds / 1e9, "bus_bw": 1.0, "nwrong": 0.0},
         "in_place": {"time": seconds * 2e6, "alg_bw": 1.0, "bus_bw": "nan", "nwrong": None}, "actual_iterations": 20}
        for size, seconds in rows
    ]  # fmt: skip
    head = {"version": 3, "start_time": "2026-01-01", "args": [f"./build/{PROGRAM[kind]}", "-b", "8"], "env": []}
    return json.dumps({**head, "config": {"nthreads": 1, "devices": devices}, "results": results, "errors": []})
