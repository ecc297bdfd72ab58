#!/bin/bash
# testhost: --memory 5G --timeout 3000 destructive long=4
# Machines with an NVMe controller, one after the other: 10 in one process of libhospes by iommufd, 10 in one by
# type1, 2 in processes of their own (HOSPES_LONG=1: four times 125, 25, 10). Then all is as it was: the process's
# memory, fds, threads, mappings, the kernel's pins, I/O page tables and free memory.
. "$(dirname "$0")/lib.sh"
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
with_vfio "$nvme"

cat >"$TMP/many.py" <<'PYTHON'
# many.py N BACKEND DEVICE CONSOLE: N machines, one after the other; each is stopped as its guest starts, every
# tenth powers off by itself. Prints what the process has, by and by, and what the first of them allocated
# and did not free: by mtrace(3), since sizes do not tell a leak from what an allocator or Python keeps.
import ctypes, gc, os, re, subprocess, sys, time
sys.path.insert(0, os.environ["HOSPES_SRC"] + "/tests/host")
import hospes
n, backend, device, console = int(sys.argv[1]), *sys.argv[2:5]

libc = ctypes.CDLL(None)
# By version, as linked programs do: the preloaded library's. libc's own do nothing.
libc.dlvsym.restype = ctypes.c_void_p
mtrace, muntrace = (ctypes.CFUNCTYPE(None)(libc.dlvsym(None, name, b"GLIBC_2.2.5")) for name in (b"mtrace", b"muntrace"))

def machine(whole):
    # A whole one writes to a file: what reads it here must not be what grows.
    out, into = os.pipe()
    if whole:
        os.close(into)
        into = os.open(console, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    vm = hospes.VM({
        "kernel": {"path": os.environ["HOSPES_GUEST_BZIMAGE"], "initrd": os.environ["HOSPES_GUEST_INITRD"],
                   "cmdline": 'console=ttyS0 hospes.sh="dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16"'},
        "memory": {"size": "128M"}, "iommu": {"backend": backend},
        "consoles": [{"type": "serial", "out": into}],
        "passthrough": [{"device": device}]})
    os.close(into)
    vm.call("start")
    if not whole:
        os.read(out, 100)  # its kernel's first line
        vm.call("stop")
    if not vm.wait(60):
        sys.exit("the machine does not end")
    vm.destroy()
    os.close(out)
    if whole and subprocess.call(["grep", "-q", "HOSPES-GUEST: exit 0", console]):
        sys.exit(f"the guest did not read its disk: {console}")

def has():
    gc.collect()
    libc.malloc_trim(0)  # what is free does not count
    # A thread that was joined, or a worker of an io_uring that was closed, is counted until the kernel is done with it.
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
    return {"fds": len(os.listdir("/proc/self/fd")), "threads": int(status["Threads"]),
            "maps": len(open("/proc/self/maps").readlines()),
            "data": int(status["VmData"].split()[0]) * 1024, "resident": int(status["RssAnon"].split()[0]) * 1024}

def leaks(path):
    # "@ WHO:(FUNCTION+OFFSET)[ADDRESS] + BLOCK SIZE", "- BLOCK", and "< OLD", "> NEW SIZE" of realloc
    live, seen = {}, 0
    for line in open(path):
        m = re.match(r"@ (.*) ([-+<>]) (0x[0-9a-f]+)", line)
        if m and m.group(2) in "+>":
            live[m.group(3)] = line.strip()
            seen += "libhospes" in m.group(1)
        elif m:
            live.pop(m.group(3), None)
    return seen, [l for l in live.values() if not re.match(r"@ \S*python", l)]

# Before: one that fills what is kept for all others, and four that are traced.
steps = []
for i in range(n):
    if i == 1:
        mtrace()
    machine(i % 10 == 0 or i == 3)
    if i == 4:
        muntrace()
    if i >= 4 and (i - 4) % ((n - 5) // 5) == 0:
        steps.append(has())
for k in steps[0]:
    print(k, *(s[k] for s in steps))
# Looking costs some pages itself, and the heap grows by 136 KiB at a time, however many machines there are.
made = n - 5
grown = [k for k, room in (("fds", 0), ("threads", 0), ("maps", 4), ("data", 300000 + 2000 * made),
                           ("resident", 80000 + 2000 * made)) if steps[-1][k] > steps[0][k] + room]
seen, left = leaks(os.environ["MALLOC_TRACE"])
print(f"allocated: {seen}")
print("leaked:", len(left))
print(*left[:20], sep="\n")
print("grown:", *grown, flush=True)
sys.stdin.readline()
PYTHON
pins=$(pinned) tables=$(io_tables)
for backend in iommufd type1; do
	n=$(times 10 125)
	[ "$backend" = iommufd ] || n=$(times 10 25)
	MALLOC_TRACE=$TMP/trace LD_PRELOAD=libc_malloc_debug.so.0 \
		guest_start "$backend" python3 "$TMP/many.py" "$n" "$backend" "$nvme" "$TMP/console"
	ok "$backend: $n machines in one process" guest_wait_for "$backend" '^grown:' $((n * 20 + 60)) || guest_show "$backend"
	diag "$(grep -aE '^(fds|threads|maps|data|resident|allocated)' "$TMP/$backend.log")"
	like "$(grep -a '^allocated:' "$TMP/$backend.log")" ' [1-9][0-9]{2}' "$backend: allocations are seen"
	is "$(grep -a '^leaked:' "$TMP/$backend.log")" "leaked: 0" "$backend: and each is freed" || guest_show "$backend"
	is "$(grep -a '^grown:' "$TMP/$backend.log")" "grown:" "$backend: it has no more fds, threads, mappings, memory"
	is "$(pinned)" "$pins" "$backend: nothing is pinned, while the process lives"
	ok "$backend: I/O page tables are as they were ($tables KiB)" retry 5 tables_are "$tables"
	guest_send "$backend" end
	guest_wait "$backend" 20
	is $? 0 "$backend: the process ends"
done

# Processes of their own; what one leaves behind is left in the kernel.
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
# Without what the kernel would give back at once if somebody needed it: caches, and what each CPU keeps of
# free pages, which compaction takes from it.
free_kib() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	echo 1 >/proc/sys/vm/compact_memory
	awk '/^MemAvailable/ { print $2 }' /proc/meminfo
}
n=$(times 2 10) left=() now=0
for ((i = 0; i <= n; i++)); do
	guest_start vm hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 128M \
		--passthrough "$nvme" --cmdline 'console=ttyS0 quiet'
	guest_wait vm 90 && grep -aq 'HOSPES-GUEST: exit 0' "$TMP/vm.log" || { guest_show vm; break; }
	left+=("$(free_kib)")
done
is "$((i - 1))" "$n" "$n machines, each in a process"
# The first fills what the kernel keeps for the next.
diag "KiB of memory free after each: ${left[*]}"
enough() { now=$(free_kib) && [ "$now" -gt $((left[0] - 4096 - 20 * n)) ]; }
ok "the host has as much memory as after the first" retry 20 enough || diag "$now KiB"
is "$(pinned)" "$pins" "nothing is pinned"
ok "I/O page tables are as they were ($tables KiB)" retry 5 tables_are "$tables"
host_is_well
done_testing
