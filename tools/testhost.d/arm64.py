"""The arm64 test host: what it is made from (see cache.py), and QEMU's command line (see machine.py): a server
with EL2, GICv3 and ITS, SMMUv3, an SR-IOV card and NVMe disks, booted by UEFI, with ACPI."""

import os
import re

import cache as caches
import machine
from run import Failed, say

HERE = caches.HERE
QEMU = "qemu-system-aarch64"
# What each profile changes.
PROFILES = {
    "default": {},
    "noiommu": {"machine": "virt,virtualization=on,gic-version=3"},
    # An SMMU that has no second stage, hence no nesting.
    "stage1": {"machine": "virt-9.0,virtualization=on,gic-version=3,iommu=smmuv3"},
    # A processor of ARMv8.0, on which KVM does not share the hypervisor's level with the kernel.
    "nvhe": {"cpu": "cortex-a72"},
    # Without firmware: L1 finds its devices by a device tree.
    "dt": {"firmware": False},
}

CMDLINE = ("root=/dev/vda rw rootfstype=ext4 init=/hospes/init console=ttyAMA0 nokaslr panic=-1 "
           "quiet loglevel=4")


class Cache(caches.Cache):
    """Trees named aarch64-NAME, from the lists in aarch64/."""

    TREES = ("build", "l1")

    def tree(self, name):
        return super().tree(f"aarch64-{name}")

    def kernel(self, build, which="default"):
        versions = [line for line in caches.content(f"{build}/.packages").splitlines()
                    if re.match(r"(linux-source|gcc-\d+|binutils)[-.\w]*\t", line)]
        inputs = [*versions, *[caches.content(f"{HERE}/{f}") for f in (
            "kernel.config", "aarch64/kernel.config", "aarch64/kernel.without", "aarch64/build-kernel")]]
        work = f"{self.dir}/kernel-aarch64-work"

        def make(out):
            progress = None if os.path.exists(f"{work}/unpacked") else caches.Progress("kernel", 2400)
            os.makedirs(work, exist_ok=True)
            source = caches.key(*[v for v in versions if v.startswith("linux-source")])
            caches.logged(["debtree_run", build, "--ro", f"{HERE}:/recipe", "--bind", f"{work}:/work",
                           "--bind", f"{out}:/out", "--", "nice", "/recipe/aarch64/build-kernel",
                           "/usr/src/linux-source-*.tar.xz", source, "/work", "/out"],
                          f"{self.dir}/kernel-aarch64.log", "kernel build", progress)

        return self.entry("kernel-aarch64", inputs, make, "about 9 minutes on two cores")

    def made(self, name, build, tree, more, inputs, duration):
        """An entry that a script aarch64/make-NAME makes in the build tree from the directories `more` and `tree`."""
        def make(out):
            binds = [word for i, path in enumerate(more) for word in ("--ro", f"{path}:/in{i}")]
            caches.logged(["debtree_run", build, "--ro", f"{HERE}:/recipe", "--bind", f"{tree}:/tree", *binds,
                           "--bind", f"{out}:/out", "--", f"/recipe/aarch64/make-{name}",
                           *[f"/in{i}" for i in range(len(more))], "/tree", "/out"],
                          f"{self.dir}/{name}-aarch64.log", f"arm64's {name}")

        return self.entry(f"{name}-aarch64", [caches.content(f"{tree}/.packages"),
                                              caches.content(f"{HERE}/aarch64/make-{name}"), *inputs], make,
                          duration)

    def prepare(self, refresh=False):
        if refresh:
            self.refresh()
        build, tree = self.tree("build"), self.tree("l1")
        kernel = self.kernel(build)
        root = self.made("root", build, tree, [], [caches.content(f"{HERE}/l1/stub")], "about 10 s")
        artefacts = self.made("artefacts", build, tree, [kernel],
                              [os.path.basename(kernel), caches.content(f"{HERE}/guest/init")], "about 5 s")
        return {"build": build, "tree": build, "qemu": f"{build}/usr/bin/{QEMU}",
                "kernel": f"{kernel}/Image", "root": f"{root}/root.ext4",
                "artefacts": f"{artefacts}/artefacts.ext4", "artefacts_dir": artefacts}

    def new_kernel(self):
        raise Failed("--kernel new: on arm64 the default kernel is the newest one")

    def refresh(self):
        for name in self.TREES:
            path = self.tree(name)
            say(f"asking the archive about tree 'aarch64-{name}' (a few seconds)")
            # That of another architecture cannot ask by itself: it is made anew.
            if name == "l1" or caches.debtree("debtree_outdated", path).returncode == 0:
                say(f"making tree 'aarch64-{name}' anew")
                with caches.locked(f"{self.trees_dir}/aarch64-{name}.lock", f"tree 'aarch64-{name}'"):
                    self.remove(path)

    def kept(self):
        """What of this is there under today's keys; nothing is made here."""
        keep = {self.tree_key(f"aarch64-{name}") for name in self.TREES}
        if all(os.path.isdir(f"{self.trees_dir}/{name}") for name in keep):
            self.entry = self._existing(keep)
            self.prepare()
        return keep

    def setup(self):
        return "meson setup --cross-file tools/build/aarch64.cross"


def arguments(*, kernel, root, artefacts, run_dir, shares, channels, tree, clock="wall", cpus=2, memory="4G",
              profile="default", append="", more=(), interactive=False):
    """As machine.arguments; `tree` has the firmware."""
    p = PROFILES[profile]
    a = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "hospes-testhost",
         "-machine", p.get("machine", "virt,virtualization=on,gic-version=3,iommu=smmuv3"),
         "-cpu", p.get("cpu", "neoverse-n1"), "-m", memory]
    if clock == "instructions":
        a += ["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off", "-smp", "1",
              "-rtc", "base=2025-01-01,clock=vm"]
    else:
        a += ["-accel", "tcg,thread=multi", "-smp", str(cpus)]
    if p.get("firmware", True):
        a += ["-bios", f"{tree}/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"]
    a += ["-kernel", kernel, "-append", f"{CMDLINE} {append}"]
    a += machine.storage(root, artefacts, shares) + machine.ports(channels)

    # What the tests are about, each device alone behind its root port.
    slot = 0

    def port():
        nonlocal slot
        slot += 1
        a.extend(["-device", f"pcie-root-port,id=rp{slot},chassis={slot},slot={slot},bus=pcie.0,"
                             f"addr={slot + 1:#x}"])
        return f"rp{slot}"

    a += ["-netdev", "user,id=net0,restrict=on",
          "-device", f"igb,id=igb0,netdev=net0,mac=52:54:00:12:34:56,bus={port()}"]
    for i in range(2):
        image = f"{run_dir}/nvme{i}.img"
        with open(image, "wb") as f:
            f.truncate(1 << 30)
        a += ["-drive", f"if=none,id=ns{i},file={image},format=raw,cache=unsafe,discard=unmap",
              "-device", f"nvme,id=nvme{i},serial=hospes-{i},bus={port()},drive=ns{i}"]
    a += ["-device", f"edu,id=edu0,dma_mask={(1 << 64) - 1:#x},bus={port()}"]
    return [*a, *machine.console(run_dir, interactive), *more]
