"""Devices come to a guest while it runs, and leave it:   hotplug.py FOLDER ROUNDS SEED

The guest does what it is sent line by line (dialogue.py)."""

import hashlib
import random
import subprocess
import sys
import time

import hospes
from dialogue import PATIENCE, Guest, held, need, need_held, show

FOLDER, ROUNDS, SEED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
MIB = 1 << 20


class Disk:
    kind, id = "disk", "data"
    gone = "[ ! -e /sys/block/vda ]"

    def config(self):
        return {"id": self.id, "path": f"{FOLDER}/data.img"}

    def use(self, guest):
        """What the guest writes it reads, and the file has."""
        guest.run("await '[ -b /dev/vda ]' && "
                  "dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null && "
                  "dd if=/tmp/r of=/dev/vda bs=64k oflag=direct 2>/dev/null")
        wrote = guest.run("sha256sum </tmp/r")
        read = guest.run("dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | sha256sum")
        with open(f"{FOLDER}/data.img", "rb") as f:
            there = hashlib.sha256(f.read(MIB)).hexdigest()
        if wrote != read or there not in read[0]:
            raise RuntimeError(f"wrote {wrote}, read {read}, the file has {there}")

    # It reads: what writes makes a file of that name where the device has just gone, and the next one gets no node.
    load = "(while dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; do :; done) &"
    # Linux's virtio-blk waits for ever for requests that were in flight when the disk was pulled out, and with
    # it the guest's hot plug of all slots.
    pulled_under_load = False


class Net:
    kind, id = "net", "lan"
    gone = "[ ! -e /sys/class/net/eth0 ]"
    pulled_under_load = True

    def config(self):
        return {"id": self.id, "tap": "tap7", "create": True}

    def use(self, guest):
        subprocess.run("ip addr add 10.9.0.1/24 dev tap7; ip link set tap7 up", shell=True, check=True)
        guest.run("await '[ -e /sys/class/net/eth0 ]' && ip link set eth0 up && "
                  "ip addr add 10.9.0.2/24 dev eth0 && ping -c 2 -w 20 10.9.0.1 >/dev/null")

    load = "(while ping -c 1 -s 1400 -W 1 10.9.0.1 >/dev/null; do :; done) &"


class Console:
    kind, id = "console", "log"
    gone = "! [ -c /dev/hvc0 ] || ! (: >/dev/hvc0) 2>/dev/null"
    pulled_under_load = False

    def config(self):
        return {"id": self.id, "type": "virtio", "path": f"{FOLDER}/console.log"}

    def use(self, guest):
        word = f"word-{random.random()}"
        guest.run(f"await '[ -c /dev/hvc0 ] && echo {word} >/dev/hvc0'")
        end = time.monotonic() + PATIENCE
        while word not in open(f"{FOLDER}/console.log").read():
            if time.monotonic() > end:
                raise RuntimeError(f"{word} does not arrive")
            time.sleep(0.02)

    # Linux's virtio_console frees what is in flight when it lets go of a console, however it goes, as something
    # that it is not (characters of put_chars as a struct port_buffer), and its hot plug may crash with that.
    load = None


class Rng:
    kind, id = "rng", "rng"
    gone = "! head -c 1 /dev/hwrng >/dev/null 2>&1"
    pulled_under_load = True

    def config(self):
        return {}

    def use(self, guest):
        guest.run("await '[ $(head -c 32 /dev/hwrng | wc -c) = 32 ]'")

    load = "(while head -c 4096 /dev/hwrng >/dev/null 2>&1; do :; done) &"


KINDS = [Disk(), Net(), Console(), Rng()]


def one_kind(guest, kind):
    def come():
        added = guest.vm.add(kind.kind, kind.config())
        need(added["id"], kind.id, "id")
        kind.use(guest)

    def leave(load, value, timeout_ms=60000, flags=0):
        if load and kind.load:
            guest.run(kind.load)
        guest.pull_or_ask(kind.id, value, timeout_ms, flags)
        guest.run(f"await '{kind.gone}'")

    show(f"{kind.kind}: comes and works", come)
    show(f"{kind.kind}: leaves with the guest's consent{', under load' if kind.load else ''}",
         lambda: leave(True, 0))
    show(f"{kind.kind}: comes again", come)
    show(f"{kind.kind}: is pulled out{' under load' if kind.pulled_under_load else ''}",
         lambda: leave(kind.pulled_under_load, 1, 0, hospes.FORCE))
    show(f"{kind.kind}: the guest lives", lambda: guest.run("true"))


def rounds(guest, n, rand, forced):
    """forced: how likely it is that a round ends with all pulled out."""
    for _ in range(n):
        for kind in KINDS:
            guest.vm.add(kind.kind, kind.config())
        for kind in KINDS:
            kind.use(guest)
        force = rand.random() < forced
        guest.run(rand.choice([k for k in KINDS if k.pulled_under_load or (k.load and not force)]).load)
        for what, forced, text, _ in guest.remove([k.id for k in KINDS], 0 if force else 60000,
                                                  hospes.FORCE if force else 0):
            need((what, forced), (hospes.REMOVED, int(force)), text)
        for kind in KINDS:
            guest.run(f"await '{kind.gone}'")


def counted(guest):
    rand = random.Random(SEED)
    rounds(guest, 1, rand, 0)
    before = held(guest)
    rounds(guest, ROUNDS, rand, 0.5)
    need_held(guest, before)


def kept(guest):
    """Linux blinks for five seconds before it does anything."""
    guest.vm.add("rng", {})
    KINDS[3].use(guest)
    (what, _, text, _), = guest.remove(["rng"], 500)
    need(what, hospes.KEPT, text)
    need("the power indicator blinks" in text, True, text)
    guest.run(f"await '{Rng.gone}'")
    guest.pull_or_ask("rng", 0)


def reset(guest):
    guest.vm.add("disk", KINDS[0].config())
    KINDS[0].use(guest)
    since = len(guest.events)
    guest.vm.remove("data", 60000)
    guest.vm.call("reset")
    what, forced, text, _ = guest.wait_event("data", since)
    need((what, forced), (hospes.REMOVED, 0), text)
    with guest.changed:
        guest.lines.clear()
    guest.expect("guest is up")
    guest.vm.add("disk", KINDS[0].config())
    KINDS[0].use(guest)


guest = Guest(FOLDER, {})
for k in KINDS:
    one_kind(guest, k)
show("a guest with too little time keeps the device, and gives it up when asked again",
     lambda: kept(guest))
show(f"{ROUNDS} rounds of all kinds leave nothing behind (seed {SEED})", lambda: counted(guest))
show("a reset gives up what the guest was asked for, and the next boot finds what came after",
     lambda: reset(guest))
show("the guest powers off", guest.end)
