#!/usr/bin/env python3
# testhost: --clock instructions --memory 4G --timeout 900
# smoke: --memory 4G --timeout 600
"""Process start to guest power-off: one vCPU, 256 MiB, the same small kernel and initramfs; the median of
three. Each row of a bzImage says how that is compressed."""

import os
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402

END = "hospes.end=poweroff"


# On the instruction clock runs differ by a percent or two.
RUNS = 1 if bench.SMOKE else 3


def once(argv):
    """A boot that works; those that hang are made again (bench.measure says why), and said."""
    for tries in range(bench.TRIES):
        vm = bench.Vm(argv, preload=False)
        try:
            took = vm.wait(bench.LOAD_TIMEOUT)
            if any("HOSPES-GUEST: up" in line for line in vm.log):
                return took
            last = bench.Failed(f"{argv[0]}: the guest did not come up:\n" + "\n".join(vm.log[-15:]))
        except bench.Failed as e:
            vm.kill()
            last = e
        bench.progress(f"{argv[0]}: try {tries + 1}: " + str(last).splitlines()[0])
    raise last


def seconds(argv, before=lambda: None):
    """The median of three."""
    took = []
    for _ in range(RUNS):
        before()
        took.append(once(argv))
    bench.progress(f"{argv[0]}: " + ", ".join(f"{s:.3f}" for s in sorted(took)) + " s")
    return sorted(took)[RUNS // 2]


def peer_seconds(t, name, argv):
    """After a run that is not counted. A peer that does not work here takes its row with it, not the
    table."""
    try:
        once(argv)
        return seconds(argv)
    except bench.Failed as e:
        t.notes.append(f"{name}: " + str(e).splitlines()[-1][:100])
        return None


def boot():
    image = f"bzImage ({bench.compression(bench.KERNEL)})"
    t = bench.Table("boot", "boot to power-off, 1 vCPU, 256 MiB, small kernel and initramfs",
                    ["VMM and image", "seconds", "of hospes"])
    # Everything is done once before it is measured, so that programs and libraries are in memory.
    once(bench.hospes(cmdline=END))
    first = seconds(bench.hospes(cmdline=END),
                    lambda: shutil.rmtree(f"{bench.TMP}/cache", ignore_errors=True))
    cached = seconds(bench.hospes(cmdline=END))
    cases = [(f"hospes {image}, unpacked kernel cached", cached),
             (f"hospes {image}, first time", first)]
    peers = [
        (f"hospes {image}, cached, without KASLR",
         lambda: bench.hospes(cmdline=END, extra=["--kaslr", "off"])),
        ("hospes vmlinux", lambda: bench.hospes(kernel=bench.VMLINUX, cmdline=END)),
    ]
    if bench.have("lkvm"):
        peers.append((f"kvmtool {image}", lambda: bench.kvmtool(cmdline=END)))
    peers += [
        ("QEMU q35 vmlinux (PVH)", lambda: bench.qemu(kernel=bench.VMLINUX, cmdline=END)),
        (f"QEMU q35 {image}", lambda: bench.qemu(cmdline=END)),
        ("QEMU microvm vmlinux (PVH)", lambda: bench.qemu(
            machine="microvm,acpi=on,rtc=on", kernel=bench.VMLINUX, cmdline=END)),
    ]
    for name, argv in peers[:1] if bench.SMOKE else peers:
        cases.append((name, peer_seconds(t, name, argv())))
    for name, took in cases:
        t.add(name, took, took / cached if took else None)
    if not bench.SMOKE:
        t.target("seconds with the kernel cached", cached, 0.9)
        t.target("seconds the first time", first, 1.4)
    t.show()


bench.main(boot)
