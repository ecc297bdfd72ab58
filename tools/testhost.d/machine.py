"""QEMU's command line for L1: a server with VT-d, an SR-IOV card, NVMe disks and KVM, all of it
emulated in software (TCG), so that it needs nothing of the machine it runs on."""

import os
import struct

# What each profile changes. 'default' is the good host; the others are hosts that passthrough has to
# refuse, explain or get along with.
PROFILES = {
    "default": {},
    "noiommu": {"iommu": None},                       # no IOMMU at all
    # AMD-Vi instead of VT-d. QEMU 10.0 takes the bus that a device is on for bus 0 there, so that those of
    # the tests are on bus 0, and there is no network card.
    "amd": {"iommu": "amd", "ports": False, "nic": False},
    "noremap": {"intremap": "off"},                   # no interrupt remapping
    "aw39": {"aw_bits": 39},                          # small I/O address width
    "bigbar": {"big_bar": "16G"},                     # a device with a huge BAR
    "nvmevf": {"nvme_vfs": 2},                        # an nvme with SR-IOV: a PF that is no network card
    # A card of two functions with one reset, and a card behind a bridge to conventional PCI.
    "functions": {"functions": 2, "conventional": True},
    "display": {"display": True},                     # a graphics card, which the host starts on
    # A device whose memory the firmware keeps mapped, another that it has a reset for.
    "rmrr": {"firmware": True},
    "large": {"nodes": 2, "vectors": 2048},           # two NUMA nodes, a disk at each, with many vectors
    "bare": {"cpu": "max,svm=off,vmx=off", "use_iommu": ""},  # as it came: with an IOMMU that is not used
}

# On a busy machine L1 calibrates its TSC badly when it boots (by 600 ppm, say) and well a little later.
# KVM takes the difference, beyond 250 ppm, for a guest that wants a faster TSC than there is, keeps
# adjusting that guest's TSC, and its TSC deadline timer never fires: hence the tolerance. Likewise the
# boot-time check that timer interrupts arrive in time, which panics when they are late, and the
# clocksource watchdog, which blames the TSC when it is the watchdog that was late.
CMDLINE = ("root=/dev/vda rw rootfstype=ext4 init=/hospes/init console=ttyS0 nokaslr panic=-1 "
           "iommu=nopt kvm.tsc_tolerance_ppm=100000 no_timer_check "
           "tsc=nowatchdog quiet loglevel=4")


def qemu_prefix(tree, qemu):
    """The program 'qemu' of the tree 'tree' as a plain program of this machine: its own loader and
    libraries are named, so that neither a chroot nor a privilege is needed. Returns (argv,
    environment)."""
    lib = f"{tree}/usr/lib/x86_64-linux-gnu"
    argv = [f"{tree}/lib64/ld-linux-x86-64.so.2", "--library-path",
            f"{lib}:{lib}/pulseaudio", qemu]
    for where in ("qemu", "seabios"):
        argv += ["-L", f"{tree}/usr/share/{where}"]
    argv += ["-L", f"{tree}/usr/lib/ipxe/qemu"]
    return argv, {"QEMU_MODULE_DIR": f"{lib}/qemu"}


def expansion_rom(path, vendor, device, blocks=8):
    """Writes an image of blocks x 512 bytes that firmware leaves alone (it says that it is for UEFI), with
    bytes of all values behind its headers (PCI Firmware 3.3, 5.1)."""
    data = bytearray(i * 7 & 0xff for i in range(blocks * 512))
    data[:0x40] = bytes(0x40)
    struct.pack_into("<H22xH", data, 0, 0xaa55, 0x20)
    struct.pack_into("<4sHHHHB3sHHBBH", data, 0x20, b"PCIR", vendor, device, 0, 0x18, 0, bytes(3), blocks,
                     0, 3, 0x80, 0)
    with open(path, "wb") as f:
        f.write(data)
    return path


RMRR_BASE = 0xfffc0000  # the firmware's flash, which L1's memory map has as reserved


def acpi_table(signature, revision, body):
    """With a header whose table revision is newer than QEMU's, so that Linux takes it instead."""
    head = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, b"BOCHS ", b"BXPC    ", 2,
                       b"HSPS", 1)
    table = bytearray(head + body)
    table[9] = -sum(table) & 0xff
    return bytes(table)


def dmar_with_rmrr(slot):
    """VT-d's ACPI table (VT-d 4.1, chapter 8) as QEMU's, with a range that the firmware keeps mapped for the
    device behind the root port in 'slot'."""
    ioapic = struct.pack("<BBHBBBB", 3, 8, 0, 0, 0xff, 0, 0)
    unit = struct.pack("<HHBBHQ", 0, 16 + len(ioapic), 1, 0, 0, 0xfed90000) + ioapic
    device = struct.pack("<BBHBBBBBB", 1, 10, 0, 0, 0, slot, 0, 0, 0)
    kept = struct.pack("<HHHHQQ", 1, 24 + len(device), 0, 0, RMRR_BASE, RMRR_BASE + 0xfff) + device
    body = struct.pack("<BB10x", 47, 1) + unit + kept
    return acpi_table(b"DMAR", 1, body)


def ssdt_with_reset(slot):
    """Code for the device behind the root port in 'slot': a method _RST (ACPI 6.5, 7.4.1 and 20.2) that does
    nothing, which is what this device's reset comes to."""
    def package(opcode, content):
        return bytes([opcode, len(content) + 1]) + content
    device = b"\\\x2f\x04" + b"_SB_PCI0" + b"S%02X_" % (slot << 3) + b"S00_"
    return acpi_table(b"SSDT", 2, package(0x10, device + package(0x14, b"_RST\x00")))


def ram_disk(path, directory, files):
    """Writes an uncompressed initial RAM disk with these files, name and content, in a directory and those
    above it (cpio, newc)."""
    parts = directory.split("/")
    entries = [("/".join(parts[:i + 1]), 0o40755, b"") for i in range(len(parts))]
    entries += [(f"{directory}/{name}", 0o100644, data) for name, data in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    with open(path, "wb") as f:
        for i, (entry, mode, content) in enumerate(entries):
            fields = (i + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(entry) + 1, 0)
            f.write(b"070701" + b"".join(b"%08x" % n for n in fields) + entry.encode() + b"\0")
            f.write(bytes(-f.tell() % 4) + content)
            f.write(bytes(-f.tell() % 4))
    return path


def bytes_of(size):
    """"4G" or "512M" as a number."""
    return int(size[:-1]) << {"M": 20, "G": 30}[size[-1].upper()]


def numa(nodes, cpus, memory):
    """Memory and CPUs in equal parts; root complexes of their own ("far1", …) for all nodes but the first."""
    a = []
    for i in range(nodes):
        here = "".join(f",cpus={cpu}" for cpu in range(i, cpus, nodes))
        a += ["-object", f"memory-backend-ram,id=node{i},size={bytes_of(memory) // nodes}",
              "-numa", f"node,nodeid={i},memdev=node{i}{here}"]
        if i:
            a += ["-device", f"pxb-pcie,id=far{i},bus=pcie.0,addr={0x18 + i:#x},bus_nr={0x40 * i},numa_node={i}"]
    return a


def storage(root, artefacts, shares):
    """Disks, which a run writes into a temporary overlay of, never into the cache, and directories by 9p."""
    a = []
    for i, image in enumerate((root, artefacts)):
        a += ["-drive", f"if=none,id=disk{i},file={image},format=raw,snapshot=on,cache=unsafe",
              "-device", f"virtio-blk-pci,drive=disk{i},bus=pcie.0,addr={0x10 + i:#x}"]
    for i, (tag, (path, writable)) in enumerate(sorted(shares.items())):
        comma = path.replace(",", ",,")
        a += ["-fsdev", "local,id=fs{0},path={1},security_model=none,multidevs=remap{2}".format(
                  tag, comma, "" if writable else ",readonly=on"),
              "-device", f"virtio-9p-pci,fsdev=fs{tag},mount_tag={tag},bus=pcie.0,"
                         f"addr={0x12 + i:#x}"]
    return a


def ports(channels):
    """A virtio-serial port for each channel, but 'qmp', which is QEMU's own monitor."""
    a = ["-device", "virtio-serial-pci,id=ports,bus=pcie.0,addr=0x1a"]
    for i, (name, fd) in enumerate(channels.items()):
        a += ["-chardev", f"socket,id=ch-{name},fd={fd}"]
        if name == "qmp":
            a += ["-mon", "chardev=ch-qmp,mode=control"]
        else:
            a += ["-device", f"virtserialport,bus=ports.0,nr={i + 1},chardev=ch-{name},"
                             f"name={name}"]
    return a


def console(run_dir, interactive):
    if interactive:
        return ["-chardev", "stdio,id=con,mux=on,signal=off", "-serial", "chardev:con",
                "-mon", "chardev=con,mode=readline"]
    return ["-chardev", f"file,id=con,path={run_dir}/console.log", "-serial", "chardev:con"]


def arguments(*, kernel, root, artefacts, run_dir, shares, channels, clock="wall", cpus=2,
              memory="4G", profile="default", append="", more=(), interactive=False):
    """The arguments after the prefix. 'shares' maps a 9p tag to (directory, writable); 'channels'
    maps a virtio-serial port to a connected socket's descriptor ('qmp' is QEMU's own monitor);
    'append' ends the kernel's command line, 'more' QEMU's."""
    p = PROFILES[profile]
    a = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
         "-name", "hospes-testhost", "-machine", "q35,kernel-irqchip=split",
         "-cpu", p.get("cpu", "max"), "-m", memory]
    if clock == "instructions":
        # Every instruction takes 4 ns of virtual time, in L1 and L2 alike.
        a += ["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off", "-smp", "1",
              "-rtc", "base=2025-01-01,clock=vm"]
        cpus = 1
    else:
        a += ["-accel", "tcg,thread=multi", "-smp", str(cpus)]
    if "nodes" in p:
        a += numa(p["nodes"], cpus, memory)
    iommu = p.get("iommu", "intel")
    if iommu == "intel":
        a += ["-device", "intel-iommu,intremap={},aw-bits={}".format(
            p.get("intremap", "on"), p.get("aw_bits", 48))]
    elif iommu == "amd":
        a += ["-device", "amd-iommu,intremap=on"]

    a += ["-kernel", kernel, "-append", f"{CMDLINE} {p.get('use_iommu', 'intel_iommu=on,sm_off')} {append}"]
    a += storage(root, artefacts, shares) + ports(channels)

    # What the tests are about, each device alone behind its root port.
    slot = 0

    def port(extra="", bus="pcie.0"):
        nonlocal slot
        if not p.get("ports", True):
            return "pcie.0"
        slot += 1
        a.extend(["-device", f"pcie-root-port,id=rp{slot},chassis={slot},slot={slot},bus={bus},"
                             f"addr={slot + 1:#x}{extra}"])
        return f"rp{slot}"

    if p.get("nic", True):
        a += ["-netdev", "user,id=net0,restrict=on",
              "-device", f"igb,id=igb0,netdev=net0,mac=52:54:00:12:34:56,bus={port()}"]
    for i in range(2):
        image = f"{run_dir}/nvme{i}.img"
        with open(image, "wb") as f:
            f.truncate(1 << 30)
        a += ["-drive", f"if=none,id=ns{i},file={image},format=raw,cache=unsafe,discard=unmap"]
        bus = port(bus="far1") if i == 1 and "nodes" in p else port()
        nvme = f"nvme,id=nvme{i},serial=hospes-{i},bus={bus}"
        if "vectors" in p:
            nvme += ",msix_qsize={0},max_ioqpairs={1}".format(p["vectors"], p["vectors"] - 1)
        if i == 1 and "firmware" in p:
            tables = {"DMAR.aml": dmar_with_rmrr(slot + 1), "SSDT.aml": ssdt_with_reset(slot + 2)}
            a += ["-initrd", ram_disk(f"{run_dir}/tables", "kernel/firmware/acpi", tables)]
        if i == 0 and "nvme_vfs" in p:
            # Each VF has an admin and an I/O queue, and a vector.
            vfs = p["nvme_vfs"]
            a += ["-device", "nvme-subsys,id=subsys0",
                  "-device", f"{nvme},subsys=subsys0,sriov_max_vfs={vfs},"
                             f"sriov_vq_flexible={2 * vfs},sriov_vi_flexible={vfs}",
                  "-device", f"nvme-ns,drive=ns{i},bus=nvme{i}"]
        else:
            a += ["-device", f"{nvme},drive=ns{i}"]
    # Its DMA goes to addresses of any width, not only those of 28 bits that it has without this.
    rom = expansion_rom(f"{run_dir}/edu.rom", 0x1234, 0x11e8)
    a += ["-device", f"edu,id=edu0,dma_mask={(1 << 64) - 1:#x},romfile={rom},bus={port()}"]
    if "big_bar" in p:
        # The window is reserved so that the firmware places a BAR of this size.
        a += ["-device", "pci-testdev,id=big0,membar={},bus={}".format(
            p["big_bar"], port(",pref64-reserve=32G"))]

    # Network cards without any reset of their own, in one slot: their bus alone can be reset.
    for i in range(p.get("functions", 0)):
        bus = port() if i == 0 else bus
        a += ["-device", f"e1000,id=e1000-{i},romfile=,multifunction=on,bus={bus},addr=0.{i}"]

    if "conventional" in p:
        a += ["-device", f"pcie-pci-bridge,id=conventional,bus={port()}",
              "-device", "e1000,id=e1000-old,romfile=,bus=conventional,addr=1"]

    if "display" in p:
        a += ["-device", "ati-vga,id=display0,bus=pcie.0,addr=0x18"]

    return [*a, *console(run_dir, interactive), *more]


def default_cpus():
    return max(1, min(os.cpu_count() or 1, 2))
