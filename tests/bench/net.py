#!/usr/bin/env python3
# testhost: --clock instructions --memory 4G --timeout 3000
# smoke: --memory 4G --timeout 600
"""virtio-net over a tap: what TCP costs VMM and host kernel per message, beside QEMU without vhost,
and both with vhost-net. The other end is in the host; its user mode is not counted. On the wall clock: how
long a request waits for its answer."""

import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402

PORT = 5000
SIZES = [64, 1024, 65536]
KINDS = [("rr", "request/response"), ("send", "stream from the guest"),
         ("receive", "stream to the guest")]


# Enough that the larger run takes a second or two of this clock, mostly some hundred ticks in the host.
COUNTS = {"rr": (1500, 1500, 200), "send": (20000, 12000, 400), "receive": (20000, 12000, 400)}


def count_of(kind, size):
    return 20 if bench.SMOKE else COUNTS[kind][SIZES.index(size)]


def tap(on):
    subprocess.run(["ip", "tuntap", "add" if on else "del", "tapb", "mode", "tap", *(["vnet_hdr"] if on else [])],
                   check=True)
    if on:
        subprocess.run(["ip", "addr", "add", "10.7.0.1/24", "dev", "tapb"], check=True)
        subprocess.run(["ip", "link", "set", "tapb", "up"], check=True)


def packets():
    """Through the tap so far, both ways."""
    total = 0
    for way in ("rx", "tx"):
        with open(f"/sys/class/net/tapb/statistics/{way}_packets", encoding="ascii") as f:
            total += int(f.read())
    return total


def setup(vmm, vhost, initrd):
    tap(True)
    server = subprocess.Popen([f"{bench.TOOLS}/load", "serve", str(PORT)])

    def cleanup():
        server.kill()
        server.wait()
        tap(False)

    return (vmm(initrd=initrd, tap="tapb", vhost=vhost,
                cmdline="hospes.ip=10.7.0.2/24 hospes.end=poweroff"), server.pid, cleanup)


def loads_of(kind, title):
    """Those that have one of the command's words in their names, or all without any."""
    for size in SIZES[:1] if bench.SMOKE else SIZES:
        n = count_of(kind, size)
        name = f"{title}, {size} bytes"
        if not any(word in name for word in sys.argv[1:] or [name]):
            continue
        yield (name,
               [f"/load {kind} 10.7.0.1 {PORT} {size} {k}" for k in (min(n, 50), n, 3 * n)], n)


def table(results, peers):
    """What there is so far: a peer or load that is not there yet is an empty cell."""
    t = bench.Table("net", "virtio-net, TCP: instructions of VMM and host kernel per message, and returns "
                    "to user space",
                    ["load", "hospes", "QEMU", "ratio", "hospes returns", "QEMU returns",
                     "hospes packets", "QEMU packets", "hospes vhost", "QEMU vhost"],
                    ["QEMU: q35, virtio-net-pci over the same tap",
                     "packets: through the tap, both ways, per message: TCP puts messages together for an end "
                     "that takes its time, and leaves them apart for one that does not"])
    for kind, title in KINDS:
        for name, _commands, _n in loads_of(kind, title):
            got = {who: results[who].get(name) for who, _vmm, _vhost in peers if who in results}
            h, q = got.get("hospes"), got.get("QEMU")
            ratio = h.host / q.host if h and q and q.host >= 1 else None
            t.add(name, *(v.host if v else None for v in (h, q)), ratio,
                  *(v.returns if v else None for v in (h, q)), *(v.counted if v else None for v in (h, q)),
                  *(got[who].host if got.get(who) else None for who in ("hospes vhost", "QEMU vhost")))
            for who in got:
                if not got[who]:
                    t.missing(f"{who}, {name}")
            if ratio is not None and not bench.SMOKE:
                t.target(f"of QEMU's instructions, {name}", ratio, 0.8)
    return t


def net():
    peers = [("hospes", bench.hospes, False), ("QEMU", bench.qemu, False)]
    if os.path.exists("/dev/vhost-net"):
        peers += [("hospes vhost", bench.hospes, True), ("QEMU vhost", bench.qemu, True)]
    # What one guest does. A fault of it costs its loads only, which a smoke run need not mind.
    guests = [list(loads_of(kind, title)) for kind, title in KINDS]
    if bench.SMOKE:
        guests = [sum(guests, [])]
    results = {}
    for who, vmm, vhost in peers:
        results[who] = {}
        for loads in guests:
            results[who].update(bench.measure(
                lambda initrd, vmm=vmm, vhost=vhost: setup(vmm, vhost, initrd), loads, who, count=packets))
        table(results, peers).show(final=False)
    table(results, peers).show()


TURNS = 1 if bench.SMOKE else 5


def without_moderation(**how):
    """hospes whose queues are all served at once."""
    return [a + ",moderation_us=0" if a.startswith("tap=") else a for a in bench.hospes(**how)]


def latencies(vmm, vhost):
    """By size: (median, 99th percentile, largest), in ns, of requests and answers of one guest."""
    sizes, count = SIZES[:1] if bench.SMOKE else SIZES[:2], 50 if bench.SMOKE else 5000
    argv, _pid, cleanup = setup(vmm, vhost, bench.load_initrd(
        [f"/load latency 10.7.0.1 {PORT} {size} {count}" for size in sizes]))
    vm = bench.Vm(argv, preload=False)
    try:
        return {size: tuple(int(ns) for ns in vm.wait_line(r"BENCH latency (\d+) (\d+) (\d+)",
                                                          bench.LOAD_TIMEOUT).groups()) for size in sizes}
    finally:
        vm.kill()
        cleanup()


def latency():
    """By the wall clock: how long a request waits for its answer, by turns."""
    peers = [("hospes", bench.hospes, False), ("hospes, moderation_us=0", without_moderation, False)]
    if not bench.SMOKE:
        peers.append(("QEMU", bench.qemu, False))
        if os.path.exists("/dev/vhost-net"):
            peers += [("hospes vhost", bench.hospes, True), ("QEMU vhost", bench.qemu, True)]
    samples = {}
    for turn in range(TURNS):
        for who, vmm, vhost in peers:
            for size, got in latencies(vmm, vhost).items():
                samples.setdefault((size, who), []).append(got)
                bench.progress(f"turn {turn + 1}: {who}, {size} bytes: {got} ns")
    t = bench.Table("latency", "virtio-net, TCP, wall clock: microseconds from request to answer",
                    ["bytes", "VMM", "median", "99th percentile", "largest"],
                    [f"medians of {TURNS} guests each, by turns; 5000 requests"])
    for (size, who), all_of in samples.items():
        t.add(size, who, *(statistics.median(values) / 1000 for values in zip(*all_of)))
    t.show()


# Instructions on their clock, time on the other; a smoke run shows that both work.
bench.main(*([net] if bench.INSTRUCTIONS or bench.SMOKE else []), *([] if bench.INSTRUCTIONS else [latency]))
