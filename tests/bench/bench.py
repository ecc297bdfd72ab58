"""What the benchmarks share: VMMs and their command lines, guests that do a load, and what it cost.

Runs in the test host (tools/testhost run --clock instructions tests/bench/X.py), where every
instruction takes 4 ns, in host and guest alike. So a time in which the CPU is busy is a number of
instructions; nothing here shows caches, TLBs or their misses. A wait jumps that clock to the next
timer: for I/O, only busy time and counts mean something.

The cost of an operation is what the host spends on it: user and system time of everything (VMM,
kernel, vhost's threads) less the guest's own time and less what the other end of a network
connection spends in user mode, between two lines on the guest's console. Each load is run with N
and with 3N operations, and the difference counts, so that its start and end do not. How long the CPU
was busy is exact; how it shared that out is sampled at the kernel's ticks, 250 in a second: with n
of them in a load, 1/sqrt(n) and less of noise.
"""

import glob
import json
import math
import os
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import typing

SMOKE = os.environ.get("HOSPES_BENCH_SMOKE", "") not in ("", "0")
NS_PER_INSTRUCTION = 4
TOOLS = os.environ["HOSPES_BUILD"] + "/tests/bench"
if not os.path.exists(f"{TOOLS}/bench-exec"):
    build = os.environ["HOSPES_BUILD"]
    sys.exit(f"{TOOLS}/bench-exec is missing: this build has no tests; "
             f"'meson configure {build} -Dtests=enabled && ninja -C {build}' builds them")
QEMU = "qemu-system-x86_64"
NVME_CLASS = "0x010802"
TMP = tempfile.mkdtemp(prefix="bench-")
# In memory: waiting for a disk is not what is measured, and its length means nothing on this clock.
KERNEL, VMLINUX, INITRD = (shutil.copy(os.environ[f"HOSPES_GUEST_{name}"], TMP)
                           for name in ("BZIMAGE", "VMLINUX", "INITRD"))
HERE = os.path.dirname(os.path.realpath(__file__))
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}
# Likewise the larger program, which is on a disk at first.
if program := shutil.which(QEMU):
    with open(program, "rb") as f:
        while f.read(1 << 20):
            pass

HZ = os.sysconf("SC_CLK_TCK")
CMDLINE = "console=ttyS0 quiet"
# Enough for the longest load and for a boot, on either clock; the rest is hanging.
INSTRUCTIONS = os.environ.get("HOSPES_CLOCK") == "instructions"
LOAD_TIMEOUT = 10 if INSTRUCTIONS else 120
TRIES = 4


class Failed(Exception):
    pass


def idle_ns():
    """Nanoseconds that the CPUs were idle since boot, exactly, as the kernel's list of timers has them
    (CPUs that are idle at this moment not included: on the instruction clock there is one, ours)."""
    with open("/proc/timer_list", encoding="ascii", errors="replace") as f:
        return sum(int(n) for n in re.findall(r"\.(?:idle|iowait)_sleeptime\s*:\s*(\d+)", f.read()))


def cpu_times():
    """Seconds since boot: (busy, host, guest). The last two are counted in ticks of the kernel's timer and
    say how busy time is shared out; user time contains the guest's."""
    with open("/proc/stat", encoding="ascii") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal, guest, guest_nice = v[:10]
    host, guest = (user + nice + system + irq + softirq - guest - guest_nice) / HZ, guest / HZ
    exact = (time.monotonic_ns() - idle_ns()) / 1e9
    return exact if INSTRUCTIONS else host + guest, host, guest


def user_time(pid):
    """User-mode seconds of a process, in ticks."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return int(f.read().rpartition(")")[2].split()[11]) / HZ


def progress(text):
    """Long runs are watched."""
    print(f"# … {text}", file=sys.stderr, flush=True)


class Vm:
    """A VMM in the background; its console output is read line by line."""

    def __init__(self, argv, preload=True, console=True, maps=False):
        self.argv = argv
        self.counts = f"{TMP}/kvmrun.{time.monotonic_ns()}"
        env = dict(os.environ, XDG_CACHE_HOME=f"{TMP}/cache")
        if preload:
            env.update(BENCH_KVMRUN=self.counts, BENCH_PRELOAD=f"{TOOLS}/libkvmrun.so")
            argv = [f"{TOOLS}/bench-exec", *argv]
            if maps:
                env["BENCH_MAPS"] = "1"
        self.start = time.monotonic()
        self.proc = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE if console else subprocess.DEVNULL,
                                     stderr=subprocess.STDOUT)
        self.log = []
        # Consoles come back too: a guest that hangs has said why.
        out = os.environ.get("OUT")
        self.console = open(f"{out}/console.log", "ab", 0) if out else None
        if self.console:
            self.console.write(f"\n$ {' '.join(argv)}\n".encode())

    def _lines(self):
        for raw in self.proc.stdout:
            if self.console:
                self.console.write(raw)
            self.log.append(raw.decode(errors="replace").rstrip())
            yield self.log[-1]

    def wait_line(self, pattern, timeout=600):
        """The match of the first console line from here on that fits."""
        rx = re.compile(pattern)
        old = signal.signal(signal.SIGALRM, self._expired)
        signal.alarm(timeout)
        try:
            for line in self._lines():
                if m := rx.search(line):
                    return m
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, old)
        raise Failed(f"{self.argv[0]} ended without '{pattern}':\n" + "\n".join(self.log[-60:]))

    def _expired(self, *_):
        self.proc.kill()

    def wait(self, timeout=600):
        """Seconds from start to end, which must be a good one."""
        old = signal.signal(signal.SIGALRM, self._expired)
        signal.alarm(timeout)
        try:
            if self.proc.stdout:
                for _ in self._lines():
                    pass
            status = self.proc.wait()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, old)
        took = time.monotonic() - self.start
        if status:
            raise Failed(f"{' '.join(self.argv)}: status {status}:\n" + "\n".join(self.log[-60:]))
        return took

    def kvm_run(self):
        """(seconds from exec to the first KVM_RUN, how many KVM_RUN so far)."""
        started, first, runs = self._counts()[:3]
        return (first - started) / 1e9, runs

    def _counts(self):
        """The numbers of tools/kvmrun.c."""
        with open(self.counts, "rb") as f:
            return struct.unpack("<7Q", f.read(56))

    def map_calls(self):
        """With maps=True: of the ioctls that mapped memory for devices so far: (calls, seconds during which one was
        under way, seconds of CPU time in them)."""
        calls, ns, cpu_ns = self._counts()[4:]
        return calls, ns / 1e9, cpu_ns / 1e9

    def wait_entry(self, timeout=60):
        """(Seconds from exec to the first KVM_RUN, CPU time until then), once there was one."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.proc.poll() is None:
            if os.path.exists(self.counts) and os.path.getsize(self.counts) == 56:
                started, first, _runs, cpu = self._counts()[:4]
                if first:
                    return (first - started) / 1e9, cpu / 1e9
            time.sleep(0.02)
        raise Failed(f"{' '.join(self.argv)}: did not enter its guest")

    def kill(self):
        self.proc.kill()
        self.proc.wait()


def find_device():
    """An NVMe controller that tests may use, bound to vfio-pci."""
    allowed = os.environ.get("HOSPES_DEVICES", "").split(",")
    for path in sorted(glob.glob("/sys/bus/pci/devices/*")):
        bdf = os.path.basename(path)
        with open(f"{path}/class", encoding="ascii") as f:
            if f.read().strip() != NVME_CLASS:
                continue
        if os.environ.get("HOSPES_TESTHOST") == "l1" or bdf in allowed:
            subprocess.run(["hospes", "vf", "bind", bdf], check=True, stdout=subprocess.DEVNULL)
            return bdf
    raise Failed("no NVMe controller that may be used")


def have(program):
    return shutil.which(program) is not None


# The command lines that are compared. 'disk' is a raw file, 'tap' an existing interface, 'device' the
# address of a PCI device that is bound to vfio-pci, 'iommu' iommufd or type1, 'viommu' that the device is
# behind a virtual IOMMU (hospes: 'transport' is how its requests travel).

def compression(path):
    """How the payload of a bzImage is compressed (boot protocol 2.08: payload_offset behind the set-up)."""
    with open(path, "rb") as f:
        data = f.read()
    start = (data[0x1f1] + 1) * 512 + struct.unpack_from("<I", data, 0x248)[0]
    return next((name for magic, name in COMPRESSIONS.items() if data[start:].startswith(magic)), "unknown")


def hospes(*, kernel=KERNEL, initrd=INITRD, cmdline="", memory=256, disk=None, tap=None,
           vhost=False, device=None, iommu="iommufd", huge=False, viommu=False, transport="exit",
           strategy="strict", extra=()):
    argv = ["hospes", "run", "--kernel", kernel, "--initrd", initrd,
            "--memory", f"{memory}M" + (",backing=hugetlb-2M" if huge else ""),
            "--cmdline", f"{CMDLINE} {cmdline}"]
    if device:
        argv += ["--passthrough", device + (f",strategy={strategy}" if viommu else ""), "--iommu", iommu]
    if viommu:
        argv += ["--viommu", f"on,transport={transport}"]
    if disk:
        argv += ["--disk", f"path={disk}", "--io-threads", "1"]
    if tap:
        argv += ["--net", f"tap={tap},mac=52:54:00:00:00:02" + (",vhost=on" if vhost else "")]
    return argv + list(extra)


def qemu(*, machine="q35", kernel=KERNEL, initrd=INITRD, cmdline="", memory=256, disk=None,
         tap=None, vhost=False, device=None, iommu="iommufd", huge=False, viommu=False, extra=()):
    microvm = machine.startswith("microvm")
    bus = "device" if microvm else "pci"
    argv = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", f"{machine},accel=kvm", "-cpu", "host", "-smp", "1", "-m", f"{memory}M",
            "-kernel", kernel, "-initrd", initrd, "-append", f"{CMDLINE} {cmdline}",
            "-serial", "stdio"]
    if huge:
        argv += ["-object", f"memory-backend-memfd,id=m0,size={memory}M,hugetlb=on,hugetlbsize=2M",
                 "-machine", "memory-backend=m0"]
    if device and iommu == "iommufd":
        argv += ["-object", "iommufd,id=iommufd0"]
    if viommu:  # first: devices that are made before it are not behind it
        argv += ["-device", "virtio-iommu-pci"]
    if device:
        argv += ["-device", f"vfio-pci,host={device}" +
                 (",iommufd=iommufd0" if iommu == "iommufd" else "")]
    if disk:
        argv += ["-object", "iothread,id=io0",
                 "-drive", f"if=none,id=d0,file={disk},format=raw,cache=writeback,aio=io_uring",
                 "-device", f"virtio-blk-{bus},drive=d0,iothread=io0"]
    if tap:
        argv += ["-netdev", f"tap,id=n0,ifname={tap},script=no,downscript=no,"
                            f"vhost={'on' if vhost else 'off'}",
                 "-device", f"virtio-net-{bus},netdev=n0,mac=52:54:00:00:00:02"]
    return argv + list(extra)


def kvmtool(*, kernel=KERNEL, initrd=INITRD, cmdline="", memory=256, disk=None, tap=None,
            vhost=False, extra=()):
    argv = ["lkvm", "run", "--name", f"bench{os.getpid()}", "-c", "1", "-m", str(memory),
            "-k", kernel, "-i", initrd, "-p", f"{CMDLINE} {cmdline}", "--console", "serial"]
    if disk:
        argv += ["-d", disk]
    if tap:
        argv += ["-n", f"mode=tap,tapif={tap},guest_mac=52:54:00:00:00:02"
                       f"{',vhost=1' if vhost else ''}"]
    else:
        argv += ["-n", "mode=none"]
    return argv + list(extra)


def load_initrd(commands):
    """The guest's initramfs with 'load' and a script in it."""
    where = tempfile.mkdtemp(dir=TMP)
    shutil.copy(f"{TOOLS}/load", f"{where}/load")
    with open(f"{where}/hospes.sh", "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n" + "\n".join(commands) + "\n")
    os.chmod(f"{where}/hospes.sh", 0o755)
    out = f"{TMP}/initrd.{os.path.basename(where)}"
    shutil.copy(INITRD, out)
    names = b"./load\n./hospes.sh\n"
    with open(out, "ab") as f:
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc", "-R", "0:0"], cwd=where,
                       input=names, stdout=f, stderr=subprocess.DEVNULL, check=True)
    shutil.rmtree(where)
    return out


def kvm_exits():
    """Exits of all guests that there are, most of which the kernel handles itself; not a number where
    it does not tell."""
    try:
        with open("/sys/kernel/debug/kvm/exits", encoding="ascii") as f:
            return int(f.read())
    except OSError:
        return float("nan")


def own_pss(pid, guest_bytes):
    """(PSS in KiB of all mappings but the guest's memory, the guest's). The guest's memory is what
    maps as much as it has, in one or two mappings of which one is larger than half."""
    own = guest = 0
    size = pss = None
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as f:
        for line in f:
            if m := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                size = int(m[2], 16) - int(m[1], 16)
            elif line.startswith("Pss:"):
                pss = int(line.split()[1])
                if size * 2 > guest_bytes:
                    guest += pss
                else:
                    own += pss
    return own, guest


class Cost(typing.NamedTuple):
    """Of a load, or of one operation of it: seconds of host and VMM and of the guest, or instructions;
    KVM_RUNs; exits of the guest; seconds that went by (they mean nothing on the instruction clock);
    host and guest together, which is exact on that clock; what the guest itself measured (tools/load.c),
    if it did; what a benchmark counts besides."""
    host: float
    guest: float
    returns: float
    exits: float
    seconds: float
    busy: float
    inside: float
    counted: float


def one_load(vm, server, timeout, count):
    """From the guest's next BENCH begin to its end."""
    vm.wait_line("BENCH begin", timeout)
    busy, host, guest = cpu_times()
    other = user_time(server) if server else 0
    runs, exits, counted, start = vm.kvm_run()[1], kvm_exits(), count(), time.monotonic()
    inside = vm.wait_line(r"BENCH end \d+(?: (\d+))?", timeout)[1]
    seconds = time.monotonic() - start
    counted = count() - counted
    exits = kvm_exits() - exits
    runs = vm.kvm_run()[1] - runs
    busy2, host2, guest2 = cpu_times()
    other = user_time(server) - other if server else 0
    host, guest = host2 - host, guest2 - guest
    # Loads that are mostly idle have no ticks: how they share the time is not known.
    share = (busy2 - busy) / (host + guest) if host + guest else float("nan")
    return Cost((host - other) * share, guest * share, runs, exits, seconds, busy2 - busy,
                int(inside) / 1e9 if inside else float("nan"), counted)


def measure_once(argv, loads, server, results, title, timeout, end, count):
    """One guest that makes the loads; each that is complete is in results, whatever comes later. end: then
    it is waited for, and must end well."""
    vm = Vm(argv)
    try:
        for name, _commands, operations in loads:
            _warm, small, large = [one_load(vm, server, timeout, count) for _ in range(3)]
            results[name] = per_operation(small, large, 2 * operations)
            got = results[name]
            progress(f"{title}, {name}: {got.host:.0f} instructions of the host, {got.busy:.0f} in all, "
                     f"{got.returns:.2f} returns")
        if end:
            vm.wait(timeout)
        else:
            vm.kill()
    except Failed:
        vm.kill()
        raise


def measure(make, loads, title, timeout=LOAD_TIMEOUT, end=True, count=lambda: 0):
    """Runs a guest that makes several loads, each (name, commands, operations): three commands, one
    that is not counted, one of so many operations and one of three times as many. make(initrd) gives
    (argv, pid of the other end or None, how to clean up). count() is a number that grows. Returns by name
    the Cost of an operation.

    A guest that hangs or dies is the test host's failure or a bug; what is missing then is run in
    another guest, and that is said. Only TRIES guests in a row that end nothing are given up, and what
    is missing is missing in the result."""
    results, fruitless = {}, 0
    while fruitless < TRIES and (left := [load for load in loads if load[0] not in results]):
        argv, server, cleanup = make(load_initrd([c for load in left for c in load[1]]))
        before = len(results)
        try:
            measure_once(argv, left, server, results, title, timeout, end, count)
        except Failed as e:
            progress(f"{title}: again: " + str(e).splitlines()[0])
        finally:
            cleanup()
        fruitless = 0 if len(results) > before else fruitless + 1
    return results


def per_operation(small, large, operations):
    """The Cost of an operation, in instructions, from two runs, with N and 3N operations."""
    scale = {"returns": 1, "exits": 1, "seconds": 1, "counted": 1}
    return Cost(*((b - a) / operations * scale.get(name, 1e9 / NS_PER_INSTRUCTION)
                  for name, a, b in zip(Cost._fields, small, large)))


def median(costs):
    """Of each figure of several Costs the median, of those that are numbers."""
    def middle(values):
        known = [v for v in values if not math.isnan(v)]
        return statistics.median(known) if known else float("nan")
    return Cost(*(middle(values) for values in zip(*costs)))


def medians(samples, who, got):
    """One more turn: what measure() got for 'who' joins the samples. Returns by name, for each, the median Costs."""
    own = samples.setdefault(who, {})  # there though it ended nothing, so that this is seen
    for name, cost in got.items():
        own.setdefault(name, []).append(cost)
    return {w: {name: median(costs) for name, costs in of.items()} for w, of in samples.items()}


class Table:
    def __init__(self, name, title, columns, notes=()):
        self.name, self.title, self.columns = name, title, columns
        self.rows, self.notes, self.missed, self.absent = [], list(notes), [], []

    def add(self, *row):
        """What is not a number is not known."""
        self.rows.append([None if isinstance(v, float) and v != v else v for v in row])

    def missing(self, what):
        """No run of it ended: the table says so, and the benchmark has failed."""
        self.notes.append(f"NO FIGURE: {what}: none of {TRIES} guests in a row finished it")
        self.absent.append(what)

    def target(self, what, value, limit):
        """A target of the project; a miss is said in the table, not hidden."""
        ok = value <= limit
        self.notes.append(f"{'met' if ok else 'MISSED'}: {what}: {value:.3g}, at most {limit:g}")
        if not ok:
            self.missed.append(what)

    @staticmethod
    def text(v):
        if v is None:
            return "-"
        if isinstance(v, float):
            return f"{v:.0f}" if abs(v) >= 1000 else f"{v:.3g}"
        return str(v)

    def show(self, final=True):
        """final False: to the file alone."""
        self._save()
        if not final:
            return
        rows = [self.columns] + [[self.text(c) for c in r] for r in self.rows]
        widths = [max(len(r[i]) for r in rows) for i in range(len(self.columns))]
        print(f"# {self.title}" + (" (smoke: the figures mean nothing)" if SMOKE else ""))
        for r in rows:
            print("# " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                                   for i, (c, w) in enumerate(zip(r, widths))).rstrip())
        for note in self.notes:
            print(f"#   {note}")
        sys.stdout.flush()
        if not SMOKE and os.environ.get("HOSPES_L1_KERNEL", "default") != "default":
            raise Failed("figures are made on the default kernel of L1 only")
        if self.absent:
            raise Failed("no figure for " + ", ".join(self.absent))

    def _save(self):
        out = os.environ.get("OUT")
        if out:
            with open(f"{out}/{self.name}.json", "w", encoding="utf-8") as f:
                json.dump({"title": self.title, "smoke": SMOKE, "columns": self.columns,
                           "rows": self.rows, "notes": self.notes,
                           "clock": os.environ.get("HOSPES_CLOCK", "wall"),
                           "host": os.uname().release, "versions": commands()}, f, indent=1)


def commands():
    """The peers' versions, to go with the figures."""
    versions = {}
    for argv in (["hospes", "--version"], [QEMU, "--version"], ["lkvm", "version"]):
        if have(argv[0]):
            r = subprocess.run(argv, capture_output=True, text=True, check=False)
            versions[argv[0]] = (r.stdout or r.stderr).splitlines()[:1]
    return versions


def main(*benchmarks):
    """TAP: one test per benchmark, which is that it ran and made a table."""
    print(f"1..{len(benchmarks)}", flush=True)
    status = 0
    try:
        for n, run in enumerate(benchmarks, 1):
            name = run.__name__.replace("_", " ")
            try:
                run()
                print(f"ok {n} - {name}", flush=True)
            except Failed as e:
                print(f"not ok {n} - {name}\n# " + str(e).replace("\n", "\n# "), flush=True)
                status = 1
    finally:
        shutil.rmtree(TMP, ignore_errors=True)
    sys.exit(status)
