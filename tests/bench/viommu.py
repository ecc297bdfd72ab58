#!/usr/bin/env python3
# testhost: --clock instructions --memory 4G --timeout 3400 destructive
# smoke: --memory 4G --timeout 900 destructive
"""An NVMe controller of the host behind a virtual IOMMU, beside QEMU's virtio-iommu: what a read
costs beyond one without it, when the guest unmaps each buffer at once (strict) and when it does so later,
many together (lazy). On the wall clock (tools/testhost run tests/bench/viommu.py) it tells time too."""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402

INSTRUCTIONS = os.environ.get("HOSPES_CLOCK") == "instructions"
# Name, load's arguments, operations of the smaller run, target: of QEMU's cost over direct. Pages of a read are no
# neighbours in the guest's memory, as they are after a while of use; or all are.
LOADS = [
    ("4 KiB", "scattered 4096 1", 2000, 0.5),
    ("64 KiB", "scattered 65536 1", 1000, 0.5),
    ("512 KiB", "scattered 524288 1", 100, 1),
    ("512 KiB huge", "huge 524288 1", 300, 1),
]
# A wait for the disk is real time, in which the clock of instructions runs ahead.
LOAD_TIMEOUT = 200 if INSTRUCTIONS else 240

# On the wall clock one guest's reads take half again as long as the next one's: they take turns, and medians count.
TURNS = 1 if INSTRUCTIONS or bench.SMOKE else 5

# Name, VMM, further arguments, iommu.strict of the guest (None: no IOMMU).
GUESTS = [
    ("hospes, direct", bench.hospes, {}, None),
    ("hospes, strict", bench.hospes, {"viommu": True}, 1),
    ("hospes, strict, loop", bench.hospes, {"viommu": True, "transport": "loop"}, 1),
    ("hospes, strict, poll", bench.hospes, {"viommu": True, "transport": "poll"}, 1),
    ("hospes, lazy", bench.hospes, {"viommu": True}, 0),
    ("hospes, batched", bench.hospes, {"viommu": True, "strategy": "batched"}, 1),
    ("hospes, staged", bench.hospes, {"viommu": True, "strategy": "staged"}, 1),
    ("hospes, cached", bench.hospes, {"viommu": True, "strategy": "cached"}, 1),
    ("hospes, deferred", bench.hospes, {"viommu": True, "strategy": "deferred"}, 1),
    ("QEMU, direct", bench.qemu, {}, None),
    ("QEMU, strict", bench.qemu, {"viommu": True}, 1),
    ("QEMU, lazy", bench.qemu, {"viommu": True}, 0),
]
# Targets by size: buffers return in these loads.
BATCHED = (0.5, 0.25, 0.25, 1)
CACHED = (0.35, 0.15, 0.15, 1)
BASES = {"hospes": "hospes, direct", "QEMU": "QEMU, direct"}


def wanted():
    """Guests named on the command line, or those that make sense on this clock."""
    if names := [g for g in GUESTS if g[0] in sys.argv[1:]]:
        return names
    if bench.SMOKE:
        return [g for g in GUESTS if g[0] in ("hospes, direct", "hospes, strict")]
    # One CPU for all: a poller keeps it from the guest until its turn is over.
    return [g for g in GUESTS if not (INSTRUCTIONS and g[0].endswith("poll"))]


def loads(strict):
    """Without an IOMMU a read costs so little that it takes more of them to be seen beside what else the
    host does; and that is subtracted from all the others."""
    chosen = LOADS[:1] if bench.SMOKE else LOADS
    more = 1 if bench.SMOKE or strict is not None else 5
    return [(name, [f"/load blk /dev/nvme0n1 {args} {k}" for k in (min(n, 100), n, 3 * n)], n)
            for name, args, n in ((name, args, 100 if bench.SMOKE else count * more)
                                  for name, args, count, _target in chosen)]


def make(initrd, device, vmm, arguments, strict):
    cmdline = "" if strict is None else f"iommu.strict={strict}"
    return vmm(initrd=initrd, device=device, cmdline=cmdline, **arguments), None, lambda: None


def cost(v):
    """Instructions of guest and host, or microseconds that went by."""
    return v.busy if INSTRUCTIONS else v.seconds * 1e6


def table(results, sizes):
    unit = "instructions of guest and host" if INSTRUCTIONS else "microseconds of wall clock"
    t = bench.Table("viommu" if INSTRUCTIONS else "viommu-wall",
                    f"reads of a passed-through NVMe controller at depth 1, {unit} per read",
                    ["guest", *[c for s in sizes for c in (s, "over direct", "exits", "returns")]],
                    ["over direct: what a read takes beyond one of the same VMM without an IOMMU of the "
                     "guest's own", "no misses of a real IOMMU's cache and none of its invalidations are "
                     "in this"])
    for name, *_ in wanted():
        base = results.get(BASES[name.split(",", maxsplit=1)[0]], {})
        row = []
        for size in sizes:
            v, b = results.get(name, {}).get(size), base.get(size)
            row += [cost(v) if v else None, cost(v) - cost(b) if v and b else None,
                    v.exits if v else None, v.returns if v else None]
            if not v:
                t.missing(f"{name}, {size}")
        t.add(name, *row)
    return t


def targets(t, results):
    def extra(who, kind, size):
        try:
            return cost(results[f"{who}, {kind}"][size]) - cost(results[f"{who}, direct"][size])
        except KeyError:
            return None
    for kind, theirs_kind, limits in (("strict", "strict", None), ("strict, poll", "strict", None),
                                      ("lazy", "lazy", (1, 1, 1, 1)), ("batched", "strict", BATCHED),
                                      ("cached", "strict", CACHED), ("deferred", "strict", None)):
        for i, (size, _args, _n, limit) in enumerate(LOADS):
            ours, theirs = extra("hospes", kind, size), extra("QEMU", theirs_kind, size)
            if ours is not None and theirs:
                t.target(f"over direct, of QEMU's {theirs_kind}, {kind}, {size}", ours / theirs,
                         limits[i] if limits else limit)


def viommu():
    device = bench.find_device()
    # A wait by looking is busy, and how long it lasts is the disk's affair.
    with open("/sys/module/kvm/parameters/halt_poll_ns", "w", encoding="ascii") as f:
        f.write("0")
    sizes = [load[0] for load in loads(None)]
    samples = {}
    for turn in range(TURNS):
        for name, vmm, arguments, strict in wanted():
            got = bench.measure(
                lambda initrd, g=(vmm, arguments, strict): make(initrd, device, *g),
                loads(strict), f"{name}, turn {turn + 1} of {TURNS}", timeout=LOAD_TIMEOUT, end=False)
            results = bench.medians(samples, name, got)
            table(results, sizes).show(final=False)
    t = table(results, sizes)
    if not bench.SMOKE:
        targets(t, results)
    t.show()


if __name__ == "__main__":
    bench.main(viommu)
