"""A guest that does what it is sent, and how devices come to it and leave it."""

import os
import re
import threading
import time

import hospes

PATIENCE = 120   # seconds, for anything


class Guest:
    """A machine with more keys in its document, whose guest is a shell (guest_script in lib.sh). FOLDER has its
    initrd."""

    def __init__(self, folder, more):
        self.changed = threading.Condition()
        self.lines, self.events = [], []
        to_guest, self.input = os.pipe()
        self.output, from_guest = os.pipe()
        self.vm = hospes.VM({
            "kernel": {"path": os.environ["HOSPES_GUEST_BZIMAGE"], "initrd": f"{folder}/initrd",
                       "cmdline": "console=ttyS0 quiet"},
            "memory": {"size": "192M"}, "cpus": {"count": 2}, "io_threads": 1,
            "rng": {"enabled": False}, "consoles": [{"in": to_guest, "out": from_guest}], **more,
        }, self.on_event)
        os.close(to_guest)
        os.close(from_guest)
        threading.Thread(target=self.read, daemon=True).start()
        self.vm.call("start")
        self.expect("guest is up")

    def on_event(self, kind, value, text, device):
        if device:
            with self.changed:
                self.events.append((kind, value, text, device))
                self.changed.notify_all()

    def read(self):
        with open(self.output, encoding="utf-8", errors="replace") as log:
            for line in log:
                with self.changed:
                    self.lines.append(line.strip())
                    self.changed.notify_all()

    def wait_until(self, true, what):
        with self.changed:
            if not self.changed.wait_for(true, PATIENCE):
                raise RuntimeError(f"{what}: not in {PATIENCE} s; last lines: {self.lines[-8:]}")

    def expect(self, line):
        self.wait_until(lambda: line in self.lines, line)

    def run(self, command):
        """Its output. When it fails an exception, with the end of the guest's kernel log."""
        status, lines = self.try_to(command)
        if status:
            raise RuntimeError(f"{command}: {lines}; dmesg: {self.try_to('dmesg | tail -n 12')[1]}")
        return lines

    def try_to(self, command):
        with self.changed:
            at = len(self.lines)
        os.write(self.input, command.encode() + b"\n")
        self.wait_until(lambda: any(re.match(r"=done \d", x) for x in self.lines[at:]), command)
        with self.changed:
            lines = self.lines[at:]
        end = next(i for i, x in enumerate(lines) if re.match(r"=done \d", x))
        return int(lines[end].split()[1]), lines[:end]

    def wait_event(self, device, since):
        """The next removal, or its refusal."""
        def ended():
            return [e for e in self.events[since:] if e[3] == device and e[0] != hospes.ADDED]
        self.wait_until(ended, f"removal of {device}")
        return ended()[0]

    def remove(self, devices, timeout_ms=60000, flags=0):
        """All at once; how each ended."""
        since = len(self.events)
        for d in devices:
            self.vm.remove(d, timeout_ms, flags)
        return [self.wait_event(d, since) for d in devices]

    def pull_or_ask(self, device, value, timeout_ms=60000, flags=0):
        """One; value: it was pulled out."""
        (what, forced, text, _), = self.remove([device], timeout_ms, flags)
        need((what, forced), (hospes.REMOVED, value), text)

    def end(self):
        """It powers off; then nothing of the machine is left."""
        os.write(self.input, b"exit 0\n")
        need(self.vm.wait(PATIENCE), True, "it has stopped")
        self.vm.destroy()


def need(got, wanted, what):
    if got != wanted:
        raise RuntimeError(f"{what}: {got}, not {wanted}")


def show(name, do):
    """For the script: "pass NAME", or "fail NAME: WHY"."""
    try:
        do()
        print(f"pass {name}", flush=True)
    except Exception as e:   # noqa: BLE001, any failure is one line
        print(f"fail {name}: {e}", flush=True)


def count_in(path, key):
    """The number after a line's key in this file; 0: there is none."""
    with open(path) as f:
        for line in f:
            words = line.replace(":", " ").split()
            if words and words[0] == key:
                return int(words[1])
    return 0


def held(guest):
    """What this process and the kernel hold for the machine."""
    files = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            files.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:   # that of the list itself
            pass
    names = []
    for t in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{t}/comm") as f:
            names.append(f.read().strip())
    with open("/proc/sys/vm/stat_refresh") as f:
        f.read()
    status = guest.vm.status()
    return {
        "open files": len(files),
        "files of KVM, VFIO, IOMMUFD": sorted(f for f in files if re.search("kvm|vfio|iommu", f)),
        # The kernel's own of io_uring come and go as it likes.
        "threads": sorted(n for n in names if not n.startswith("iou-")),
        "devices": [d["id"] for d in status["devices"]],
        "register regions": len(status["regions"]),
        "KiB locked": count_in("/proc/self/status", "VmLck"),
        "KiB pinned": count_in("/proc/self/status", "VmPin"),
        "pages pinned": count_in("/proc/vmstat", "nr_foll_pin_acquired")
        - count_in("/proc/vmstat", "nr_foll_pin_released"),
        "pages of I/O page tables": count_in("/proc/vmstat", "nr_iommu_pages"),
        "guest's PCI functions": guest.run("ls /sys/bus/pci/devices | wc -l"),
    }


def need_held(guest, wanted):
    """The same is held again, soon: a guest turns a slot off a second after it noticed that it is empty, and
    till then something stands where the registers were."""
    end = time.monotonic() + PATIENCE
    while held(guest) != wanted and time.monotonic() < end:
        time.sleep(0.5)
    need(held(guest), wanted, "held")
