#!/usr/bin/env python3
# testhost: --clock instructions --memory 12G --timeout 3000 destructive
# smoke: --memory 4G --timeout 600 destructive
"""An NVMe controller of the host in the guest, beside QEMU's vfio-pci: what a read costs, what a start
costs, memory; a network card's virtual function likewise, what a message costs; and what the kernel
takes for mapping memory, iommufd beside type1."""

import glob
import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402

VMMS = [("hospes", bench.hospes), ("QEMU", bench.qemu)]
# Name, load's arguments, operations of the smaller run.
LOADS = [
    ("4 KiB random, depth 1", "rand 4096 1", 5000),
    ("4 KiB random, depth 32", "rand 4096 32", 10000),
]
IGB_DEVICE = "0x10c9"
PF_IP, PORT = "10.9.0.1", 5000
PACKETS = [
    ("64 bytes there and back", "rr", 64, 2000),
    ("stream from the guest, 1 KiB", "send", 1024, 6000),
]
INSTRUCTIONS = os.environ.get("HOSPES_CLOCK") == "instructions"
# A wait for the disk is real time, in which this clock runs ahead from timer to timer.
LOAD_TIMEOUT = 60 if INSTRUCTIONS else 120
ENTRY_TIMEOUT = 120
# How often a guest halts for the device is real time's chance, which is another one an hour later: guests of
# both take turns, and medians count.
ROUNDS = 1 if bench.SMOKE else 5


def huge_pages(mib):
    """So many MiB of huge pages; are there so many?"""
    path = "/proc/sys/vm/nr_hugepages"
    want = mib // 2
    with open(path, "w", encoding="ascii") as f:
        f.write(str(want))
    with open(path, encoding="ascii") as f:
        return int(f.read()) >= want


def sizes():
    """Guest memory in MiB: as asked for, else what fits beside the host's own."""
    if asked := [int(word) for word in sys.argv[1:] if word.isdigit()]:
        return asked
    with open("/proc/meminfo", encoding="ascii") as f:
        host = int(f.readline().split()[1]) >> 10
    return [256] if bench.SMOKE else [m for m in (1024, 4096, 8192, 16384) if m + 2048 < host]


def map_cost_of(kind, device, mib, count):
    """{what: (map, unmap) in ns} of tools/mapcost.c."""
    out = subprocess.run([os.environ["HOSPES_BUILD"] + "/tests/bench/mapcost", kind, device, str(mib),
                          str(count)], capture_output=True, text=True, check=False)
    if out.returncode:
        raise bench.Failed(f"mapcost {kind}: status {out.returncode}:\n{out.stdout}{out.stderr}")
    lines = [line.split()[1:] for line in out.stdout.splitlines() if line.startswith("COST ")]
    return {(what, name): (int(on), int(off)) for what, name, on, off in lines}


def map_cost():
    device = bench.find_device()
    mib, count = (64, 256) if bench.SMOKE else (1024, 8192)
    huge_pages(mib)
    got = {kind: map_cost_of(kind, device, mib, count) for kind in ("iommufd", "type1")}
    huge_pages(0)
    t = bench.Table("map-cost", "mapping memory for a device, through hospes's I/O address spaces: "
                    "microseconds per call",
                    ["what", "iommufd map", "type1 map", "ratio", "iommufd unmap", "type1 unmap", "ratio"],
                    [f"memory that is there already; region: {mib} MiB in one call; single: one of "
                     f"{count} mappings of 4 KiB, of {count // 8} of 256 KiB",
                     "the ledger and hospes's own list of mappings are in it"])
    names = {("region", "base"): f"{mib} MiB of base pages", ("region", "huge"): f"{mib} MiB of huge pages",
             ("page", "4096"): "single 4 KiB", ("page", "262144"): "single 256 KiB"}
    for key, name in names.items():
        if key not in got["iommufd"] or key not in got["type1"]:
            t.notes.append(f"{name}: no figure: not so many huge pages could be reserved")
            continue
        (im, iu), (tm, tu) = got["iommufd"][key], got["type1"][key]
        t.add(name, im / 1e3, tm / 1e3, im / tm, iu / 1e3, tu / 1e3, iu / tu)
    t.show()


def reads():
    device = bench.find_device()
    loads = []
    for name, args, count in LOADS[:1] if bench.SMOKE else LOADS:
        n = 100 if bench.SMOKE else count
        loads.append((name, [f"/load blk /dev/nvme0n1 {args} {k}" for k in (min(n, 100), n, 3 * n)], n))
    steady("passthrough-reads", "reads of a passed-through NVMe controller", "read", loads, device)


def make_vf():
    """A virtual function of the test host's igb, bound to vfio-pci; its PF has the address PF_IP."""
    for path in glob.glob("/sys/bus/pci/devices/*"):
        with open(f"{path}/device", encoding="ascii") as f:
            if f.read().strip() == IGB_DEVICE:
                break
    else:
        raise bench.Failed("no igb")
    net = os.listdir(f"{path}/net")[0]
    for command in (f"ip link set {net} up", f"ip addr add {PF_IP}/24 dev {net}",
                    f"hospes vf create {os.path.basename(path)} --count 1"):
        subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)
    vf = os.path.basename(os.readlink(f"{path}/virtfn0"))
    subprocess.run(["hospes", "vf", "bind", vf], check=True, stdout=subprocess.DEVNULL)
    return vf


def packets():
    device = make_vf()
    server = subprocess.Popen([f"{bench.TOOLS}/load", "serve", str(PORT)])
    # The function has a link when its PF has told it so.
    loads, ready = [], f"until ping -c 1 -W 1 {PF_IP} >/dev/null; do sleep 0.1; done"
    for name, kind, size, count in PACKETS[:1] if bench.SMOKE else PACKETS:
        n = 20 if bench.SMOKE else count
        loads.append((name, [f"{ready}; /load {kind} {PF_IP} {PORT} {size} {k}"
                             for k in (min(n, 100), n, 3 * n)], n))
    try:
        steady("passthrough-packets", "TCP over a passed-through igb VF, to its PF", "message", loads, device,
               "hospes.ip=10.9.0.2/24 ")
    finally:
        server.kill()
        server.wait()


def steady(table_name, title, unit, loads, device, cmdline=""):
    """Guests of each VMM that make the loads; the table."""
    samples = {}
    for turn in range(ROUNDS):
        for who, vmm in VMMS:
            got = bench.measure(
                lambda initrd, vmm=vmm: (vmm(initrd=initrd, device=device,
                                             cmdline=f"{cmdline}hospes.end=poweroff"), None, lambda: None),
                loads, f"{who}, turn {turn + 1} of {ROUNDS}", timeout=LOAD_TIMEOUT)
            results = bench.medians(samples, who, got)
            table = steady_table(table_name, title, unit, results, loads)
            table.show(final=False)
    table.show()


def steady_table(name, title, unit, results, loads):
    """What there is so far: what no guest has ended yet is an empty cell."""
    if INSTRUCTIONS:
        columns = [("guest", lambda v: v.inside), ("all", lambda v: v.busy)]
        notes = ["guest: instructions in which the guest did not halt, as it measures it, so with what the kernel "
                 "does for exits meanwhile; all: guest and host, in which this CPU was not idle"]
    else:
        columns = [("per s", lambda v: 1 / v.seconds if v.seconds > 0 else None)]
        notes = [f"per s: {unit}s, by the wall clock"]
    columns = [("returns", lambda v: v.returns), ("exits", lambda v: v.exits), *columns]
    t = bench.Table(name if INSTRUCTIONS else f"{name}-wall", f"{title}, per {unit}",
                    ["load", *[f"{who} {column}" for column, _of in columns for who, _vmm in VMMS]],
                    ["returns: of KVM_RUN to user space; exits: KVM's count of all of them, the kernel handles those "
                     "that are not returns", *notes])
    for name, _commands, _n in loads:
        h, q = (results.get(who, {}).get(name) for who, _vmm in VMMS)
        t.add(name, *(of(v) if v else None for _column, of in columns for v in (h, q)))
        for who in results:
            if name not in results[who]:
                t.missing(f"{who}, {name}")
        if h and not bench.SMOKE:
            t.target(f"returns to user space per {unit}, {name}", h.returns, 0)
        if INSTRUCTIONS and h and q and q.exits and q.inside and not bench.SMOKE:
            t.target(f"exits, of QEMU's, {name}", h.exits / q.exits, 1)
            t.target(f"guest instructions, of QEMU's, {name}", h.inside / q.inside, 1)
    return t


def start_once(argv):
    """Exec to the first KVM_RUN: (elapsed, elapsed outside map calls, CPU time, CPU time outside map
    calls) in ms, and how many map calls. What the guest does then is of no interest."""
    vm = bench.Vm(argv, maps=True)
    try:
        elapsed, cpu = vm.wait_entry(ENTRY_TIMEOUT)
        calls, map_elapsed, map_cpu = vm.map_calls()
    finally:
        vm.kill()
    return [s * 1e3 for s in (elapsed, elapsed - map_elapsed, cpu, cpu - map_cpu)] + [calls]


def warm_up():
    """Boots to the end until hospes has put the unpacked kernel away, which it does not with a file as
    new as ours is at first (firmware/cache.h)."""
    for _ in range(10):
        if glob.glob(f"{bench.TMP}/cache/hospes/**/*.kernel", recursive=True):
            return
        vm = bench.Vm(bench.hospes(cmdline="hospes.end=poweroff"), preload=False)
        try:
            vm.wait(LOAD_TIMEOUT)
        except bench.Failed as e:
            vm.kill()
            bench.progress(str(e).splitlines()[0])
    raise bench.Failed("hospes does not keep the unpacked kernel")


def start():
    device = bench.find_device()
    t = bench.Table("passthrough-start", "a device attached: exec to the first KVM_RUN, milliseconds",
                    ["guest memory", "hospes", "QEMU", "hospes outside maps", "QEMU outside maps",
                     "hospes CPU outside", "QEMU CPU outside", "hospes maps", "QEMU maps"],
                    ["outside maps: less the time in which a call that maps memory for the device was "
                     "under way; CPU outside: CPU time, less that in those calls; maps: how many calls"])
    warm_up()
    for _, vmm in VMMS:
        start_once(vmm(device=device))
    for mib in sizes():
        for huge in (False, True):
            name = f"{mib} MiB" + (", huge pages" if huge else "")
            if huge and not huge_pages(mib + 16):
                t.notes.append(f"{name}: no figure: not so many huge pages could be reserved")
                continue
            h, q = (start_once(vmm(device=device, memory=mib, huge=huge)) for _, vmm in VMMS)
            huge_pages(0)
            t.add(name, h[0], q[0], h[1], q[1], h[3], q[3], h[4], q[4])
            bench.progress(f"{name}: hospes {h[0]:.0f} ms, QEMU {q[0]:.0f} ms")
            if not bench.SMOKE:
                t.target(f"outside the map calls, of QEMU's, {name}", h[1] / q[1], 0.5)
                t.target(f"CPU time outside the map calls, of QEMU's, {name}", h[3] / q[3], 0.5)
                t.target(f"total, of QEMU's, {name}", h[0] / q[0], 1)
            t.show(final=False)
    t.show()


def memory():
    device = bench.find_device()
    t = bench.Table("passthrough-memory", "the VMM's own memory with a device attached: PSS less guest "
                    "memory, 256 MiB guest, idle", ["VMM", "KiB", "guest KiB"])
    initrd = bench.load_initrd(["echo BENCH idle", "sleep 1000"])
    for who, vmm in VMMS:
        for tries in range(bench.TRIES):
            vm = bench.Vm(vmm(initrd=initrd, device=device), preload=False)
            try:
                vm.wait_line("BENCH idle", LOAD_TIMEOUT)
                own, guest = bench.own_pss(vm.proc.pid, 256 << 20)
                break
            except bench.Failed as e:
                bench.progress(f"{who}: try {tries + 1}: " + str(e).splitlines()[0])
            finally:
                vm.kill()
        else:
            t.missing(who)
            continue
        t.add(who, own, guest)
        if who == "hospes":
            t.target("MiB of its own", own / 1024, 5)
    t.show()


# One of them alone: passthrough.py map_cost|reads|packets|start|memory; start takes sizes in MiB too.
# A real card's functions and link are left alone.
ALL = [map_cost, reads, *([packets] if os.environ.get("HOSPES_TESTHOST") == "l1" else []), start, memory]
bench.main(*([f for f in ALL if f.__name__ in sys.argv[1:]] or ALL))
