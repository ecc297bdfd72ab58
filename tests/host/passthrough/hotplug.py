"""Passed-through devices come to a guest while it runs and leave it:   hotplug.py FOLDER ROUNDS SEED NVME VF"""

import random
import sys

import hospes
from dialogue import Guest, held, need, need_held, show

FOLDER, ROUNDS, SEED, NVME, VF = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6]


class Nvme:
    id, host = "nvme", NVME
    gone = "[ ! -e /sys/block/nvme0n1 ]"
    # It reads: what writes makes a file of that name where the device has just gone, and the next one gets no node.
    load = "(while dd if=/dev/nvme0n1 of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; do :; done) &"

    def use(self, guest):
        guest.run("await '[ -b /dev/nvme0n1 ]' && "
                  "dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null && "
                  "dd if=/tmp/r of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null")
        wrote = guest.run("sha256sum </tmp/r")
        need(guest.run("dd if=/dev/nvme0n1 bs=64k count=16 iflag=direct 2>/dev/null | sha256sum"),
             wrote, "read back")


class Vf:
    id, host = "vf", VF
    gone = "[ ! -e /sys/class/net/eth0 ]"
    load = "(while ping -c 1 -s 1400 -W 1 10.9.0.1 >/dev/null; do :; done) &"

    def use(self, guest):
        guest.run("await '[ -e /sys/class/net/eth0 ]' && ip link set eth0 up && "
                  "ip addr add 10.9.0.2/24 dev eth0 && ping -c 2 -w 60 10.9.0.1 >/dev/null")


DEVICES = [Nvme(), Vf()]


def come(guest, device, keys):
    guest.vm.add("passthrough", {"id": device.id, "device": device.host, **keys})
    device.use(guest)


def leave(guest, device, forced, loaded):
    if loaded:
        guest.run(device.load)
    guest.pull_or_ask(device.id, int(forced), 0 if forced else 60000, hospes.FORCE if forced else 0)
    guest.run(f"await '{device.gone}'")


def round_of_all(guest, keys, rand):
    for device in DEVICES:
        come(guest, device, keys)
    for device in rand.sample(DEVICES, len(DEVICES)):
        leave(guest, device, rand.random() < 0.5, rand.random() < 0.5)


def counted(guest, keys, rand):
    round_of_all(guest, keys, rand)
    before = held(guest)
    for _ in range(ROUNDS):
        round_of_all(guest, keys, rand)
    need_held(guest, before)


def one(name, document, keys):
    guest, rand = Guest(FOLDER, document), random.Random(SEED)
    for device in DEVICES:
        show(f"{name}: {device.id}: comes and works", lambda d=device: come(guest, d, keys))
        show(f"{name}: {device.id}: leaves with consent, under load",
             lambda d=device: leave(guest, d, False, True))
        show(f"{name}: {device.id}: comes again", lambda d=device: come(guest, d, keys))
        show(f"{name}: {device.id}: is pulled out under load",
             lambda d=device: leave(guest, d, True, True))
    show(f"{name}: {ROUNDS} rounds leave nothing behind (seed {SEED})",
         lambda: counted(guest, keys, rand))
    show(f"{name}: the guest powers off", guest.end)


one("iommufd, strict", {"iommu": {"backend": "iommufd"}, "viommu": {"enabled": True}},
    {"strategy": "strict"})
if ROUNDS > 1:
    one("type1, direct", {"iommu": {"backend": "type1"}}, {})
