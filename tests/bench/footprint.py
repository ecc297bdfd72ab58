#!/usr/bin/env python3
# testhost: --clock instructions --memory 18G --timeout 900
# smoke: --memory 4G --timeout 600
"""What a machine costs the host besides its guest's memory, and how soon it enters its guest."""

import os
import re
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402


# On the instruction clock every run is the same.
ENTRIES = 1 if os.environ.get("HOSPES_CLOCK") == "instructions" or bench.SMOKE else 20


def tap(on):
    subprocess.run(["ip", "tuntap", "add" if on else "del", "tapb", "mode", "tap"], check=True)


def memory():
    t = bench.Table("memory", "the VMM's own memory: PSS less guest memory, 256 MiB guest, one disk, "
                    "one NIC, idle", ["VMM", "KiB", "guest KiB"])
    disk = f"{bench.TMP}/disk.img"
    with open(disk, "wb") as f:
        f.truncate(64 << 20)
    initrd = bench.load_initrd(["echo BENCH idle", "sleep 1000"])
    for name, vmm in ("hospes", bench.hospes), ("QEMU q35", bench.qemu), ("kvmtool", bench.kvmtool):
        if not bench.have({"hospes": "hospes", "kvmtool": "lkvm"}.get(name, bench.QEMU)):
            continue
        tap(True)
        vm = bench.Vm(vmm(initrd=initrd, disk=disk, tap="tapb"), preload=False)
        try:
            vm.wait_line("BENCH idle")
            own, guest = bench.own_pss(vm.proc.pid, 256 << 20)
        finally:
            vm.kill()
            tap(False)
        t.add(name, own, guest)
        if name == "hospes":
            t.target("MiB of its own", own / 1024, 4)
    t.show()


def stripped_bytes(path):
    """The size without symbols and debugging information, as strip(1) would leave it."""
    with open(path, "rb") as f:
        elf = f.read()
    shoff, = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3a)
    end = 0
    for i in range(count):
        kind, flags, _addr, offset, length = struct.unpack_from("<IQQQQ", elf, shoff + i * size + 4)
        if flags & 2 and kind != 8:
            end = max(end, offset + length)
    return end + count * size


def binaries():
    build = os.environ["HOSPES_BUILD"]
    t = bench.Table("binaries", "command and shared library, stripped", ["file", "KiB"])
    total = 0
    for root, _dirs, files in os.walk(build):
        for name in files:
            path = f"{root}/{name}"
            if os.path.islink(path) or not re.fullmatch(r"hospes|libhospes\.so[0-9.]*", name):
                continue
            with open(path, "rb") as f:
                if f.read(4) != b"\x7fELF":
                    continue
            n = stripped_bytes(path)
            total += n
            t.add(name, n / 1024)
    t.target("MiB together", total / (1 << 20), 1.5)
    t.show()


def entry_ms(argv):
    """Milliseconds from exec to the first KVM_RUN, and of CPU time until then. What the guest does then
    is of no interest. The first run fills caches, hospes's of unpacked kernels among them; on the
    wall clock the least of the others counts, since the machine may have other work."""
    took = []
    for _ in range(1 + ENTRIES):
        vm = bench.Vm(argv)
        try:
            took.append([s * 1e3 for s in vm.wait_entry()])
        finally:
            vm.kill()
    return [min(column) for column in zip(*took[1:])]


def first_entry():
    t = bench.Table("first-entry", "exec to the first KVM_RUN, milliseconds",
                    ["VMM", "256 MiB", "CPU time", "16 GiB", "CPU time"])
    sizes = [256] if bench.SMOKE else [256, 16384]
    rows = {}
    for name, vmm in ("hospes", bench.hospes), ("QEMU q35", bench.qemu):
        if not bench.have(vmm()[0]):
            continue
        rows[name] = [ms for mib in sizes for ms in entry_ms(vmm(memory=mib))]
        t.add(name, *rows[name], *[None] * (4 - len(rows[name])))
        bench.progress(f"{name}: " + ", ".join(f"{ms:.1f}" for ms in rows[name]) + " ms")
    if not bench.SMOKE:
        t.target("ms, 256 MiB", rows["hospes"][0], 10)
        t.target("ms, 16 GiB", rows["hospes"][2], 15)
    t.show()


# A real machine has no test host's memory to fill: 'footprint.py entry' is the last table alone.
bench.main(*([first_entry] if sys.argv[1:] == ["entry"] else [memory, binaries, first_entry]))
