#!/usr/bin/env python3
# testhost: --clock instructions --memory 4G --timeout 1800
# smoke: --memory 4G --timeout 600
"""virtio-blk: what a read costs VMM and host kernel, beside QEMU with an iothread. The image lies in
memory (tmpfs), through the page cache on both sides, io_uring on both sides."""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402

IMAGE_BYTES = 256 << 20
# Name, load's arguments, operations of the smaller run.
LOADS = [
    ("4 KiB random, depth 1", "rand 4096 1", 3000),
    ("4 KiB random, depth 32", "rand 4096 32", 10000),
    ("128 KiB sequential, depth 4", "seq 131072 4", 1000),
]


def make_image():
    path = f"{bench.TMP}/disk.img"
    with open(path, "wb") as f:
        block = os.urandom(1 << 20)
        for _ in range(IMAGE_BYTES >> 20):
            f.write(block)
    return path


def floor(disk, block, count):
    """What the copy out of the page cache costs alone: instructions of a loop of preads of the same
    file, without any guest. On the instruction clock, elapsed time is instructions."""
    seconds = []
    for n in (count, 3 * count):
        out = subprocess.run([f"{bench.TOOLS}/load", "pread", disk, str(block), str(n)], check=True,
                             capture_output=True, text=True).stdout
        seconds.append(int(out.split()[-1]) / 1e9)
    return (seconds[1] - seconds[0]) / (2 * count) * 1e9 / bench.NS_PER_INSTRUCTION


def blk():
    t = bench.Table("blk", "virtio-blk reads: instructions of VMM and host kernel, and returns to user "
                    "space, per operation",
                    ["load", "hospes", "QEMU", "ratio", "hospes returns", "QEMU returns", "preads alone"],
                    ["QEMU: q35, iothread, cache=writeback, aio=io_uring",
                     "preads alone: a loop of them on the image, without a guest: no VMM that copies "
                     "from the page cache costs less"])
    disk = make_image()
    loads, floors = [], {}
    for name, args, count in LOADS:
        n = 40 if bench.SMOKE else count
        loads.append((name, [f"/load blk /dev/vda {args} {k}" for k in (min(n, 100), n, 3 * n)], n))
        floors[name] = floor(disk, int(args.split()[1]), 40 if bench.SMOKE else 100)
    h, q = (bench.measure(
        lambda initrd, vmm=vmm: (vmm(initrd=initrd, disk=disk, cmdline="hospes.end=poweroff"),
                                 None, lambda: None),
        loads, who)
        for who, vmm in (("hospes", bench.hospes), ("QEMU", bench.qemu)))
    for name, _args, _count in LOADS:
        if name not in h or name not in q:
            t.missing(name)
            continue
        ratio = h[name].host / q[name].host if q[name].host >= 1 else None
        t.add(name, h[name].host, q[name].host, ratio, h[name].returns, q[name].returns, floors[name])
        if ratio is not None and not bench.SMOKE:
            t.target(f"of QEMU's instructions, {name}", ratio, 0.8)
    t.show()


bench.main(blk)
