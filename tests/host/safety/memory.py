# Where in a process and in this machine something is:   memory.py PID find TEXT | read HVA N | at HVA
import sys

pid, what, arg = sys.argv[1:4]
PAGE, CHUNK = 4096, 4 << 20


def physical(hva):
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        f.seek(hva // PAGE * 8)
        entry = int.from_bytes(f.read(8), "little")
    return (entry & (1 << 55) - 1) * PAGE + hva % PAGE if entry >> 63 else 0


def find(text):
    mem = open(f"/proc/{pid}/mem", "rb", buffering=0)
    for line in open(f"/proc/{pid}/maps"):
        span, access = line.split()[:2]
        first, last = (int(x, 16) for x in span.split("-"))
        if not access.startswith("rw") or "[v" in line or "/dev/" in line or "vfio" in line:
            continue
        for at in range(first, last, CHUNK):
            try:
                mem.seek(at)
                data = mem.read(min(CHUNK, last - at))
            except OSError:
                break
            hit = data.find(text)
            while hit >= 0 and hit % PAGE:
                hit = data.find(text, hit + 1)
            if hit >= 0:
                return at + hit
    return 0


if what == "find":
    hva = find(arg.encode())
    if not hva:
        sys.exit(f"no such page in process {pid}")
    print(hex(hva), hex(physical(hva)))
elif what == "read":
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as f:
        f.seek(int(arg, 0))
        print(f.read(int(sys.argv[4])).hex())
else:
    print(hex(physical(int(arg, 0))))
