"""Runs a test host script on this very machine (--on-this-machine), for people with real VFIO
hardware: the same environment as in L1, but devices only as named, and nothing left behind."""

import os
import re
import shutil
import signal
import subprocess
import tempfile

from run import STATUS_TIMEOUT, Failed, die_with_parent, say

PCI = "/sys/bus/pci/devices"
ARTEFACTS = {
    "HOSPES_GUEST_BZIMAGE": "guest-bzImage", "HOSPES_GUEST_VMLINUX": "guest-vmlinux",
    "HOSPES_GUEST_INITRD": "guest-initrd", "HOSPES_DEBIAN_BZIMAGE": "debian-bzImage",
    "HOSPES_DEBIAN_INITRD": "debian-initrd", "HOSPES_GUEST_BZIMAGE_XZ": "guest-bzImage-xz",
    "HOSPES_GUEST_BZIMAGE_ZSTD": "guest-bzImage-zstd",
    "HOSPES_GUEST_BZIMAGE_LZ4": "guest-bzImage-lz4",
}


def destructive(script):
    """Whether the script's head says that it touches devices."""
    with open(script, encoding="utf-8", errors="replace") as f:
        return any(re.match(r"^# testhost:.*\bdestructive\b", line) for line in list(f)[:15])


def in_use(bdf):
    """Why this machine cannot spare a device, or None."""
    mounted, routed = set(), set()
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounted = {os.path.realpath(line.split()[0]) for line in f if line.startswith("/dev/")}
    with open("/proc/swaps", encoding="utf-8") as f:
        mounted |= {line.split()[0] for line in f if line.startswith("/dev/")}
    with open("/proc/net/route", encoding="utf-8") as f:
        routed = {line.split()[0] for line in list(f)[1:]}
    base = os.path.realpath(f"{PCI}/{bdf}")
    for root, dirs, _files in os.walk(base):
        parent = os.path.basename(root)
        for name in dirs:
            if parent == "net" and name in routed:
                return f"its interface {name} carries a route"
            if f"/dev/{name}" in mounted:
                return f"/dev/{name} is mounted or swapped to"
            # A volume manager or an array on top of it.
            holders = f"{root}/{name}/holders"
            if os.path.isdir(holders) and os.listdir(holders):
                return f"/dev/{name} is held by {os.listdir(holders)[0]}"
    return None


def check_devices(words):
    for bdf in words:
        if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", bdf):
            raise Failed(f"--devices: '{bdf}' is not an address like 0000:01:00.0")
        if not os.path.isdir(f"{PCI}/{bdf}"):
            raise Failed(f"--devices: there is no PCI device {bdf}; 'lspci -D' lists them")
        why = in_use(bdf)
        if why:
            raise Failed(f"--devices: {bdf} is in use: {why}")


def run(opts, paths, source):
    """Runs the script of 'opts' here and returns its exit status."""
    devices = [d for d in (opts.devices or "").split(",") if d]
    if os.geteuid() != 0:
        raise Failed("scripts run as root: use sudo")
    if destructive(opts.script) and not devices:
        raise Failed(f"{opts.script} unbinds, resets or overwrites devices: name those that it may "
                     "have with --devices BDF,…")
    check_devices(devices)
    scratch = tempfile.mkdtemp(prefix="hospes-here-")
    process = None
    try:
        out = os.path.realpath(opts.out) if opts.out else f"{scratch}/out"
        os.makedirs(out, exist_ok=True)
        disk = f"{scratch}/guest-disk.img"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto",
                        f"{paths['artefacts_dir']}/guest-disk.img", disk], check=True)
        env = {**os.environ, "OUT": out, "HOSPES_SRC": source, "HOSPES_TESTHOST": "machine",
               "HOSPES_DEVICES": ",".join(devices), "HOSPES_GUEST_DISK": disk,
               "HOSPES_CLOCK": "wall", "HOSPES_PROFILE": "machine"}
        env.update({k: f"{paths['artefacts_dir']}/{v}" for k, v in ARTEFACTS.items()})
        build = os.path.realpath(opts.hospes or f"{source}/build")
        for where in ("bin", "cli"):
            if os.access(f"{build}/{where}/hospes", os.X_OK):
                env["PATH"] = f"{build}/{where}:{env['PATH']}"
                env["HOSPES_BUILD"] = build
                break
        else:
            say(f"no hospes in {build}: the one in PATH is used, if any")
        env.update(dict(e.split("=", 1) for e in opts.env))
        script = os.path.realpath(opts.script)
        argv = [script, *opts.args]
        if not os.access(script, os.X_OK):
            argv.insert(0, "bash")
        # Own PID and mount namespaces: what the script leaves running or mounted ends with it.
        argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc",
                "--propagation", "private", "--", *argv]
        process = subprocess.Popen(argv, cwd=scratch, env=env, stdin=subprocess.DEVNULL,
                                   start_new_session=True, preexec_fn=die_with_parent)
        try:
            return process.wait(opts.timeout or None)
        except subprocess.TimeoutExpired:
            say(f"timeout: not done after {opts.timeout:g} s")
            return STATUS_TIMEOUT
    finally:
        if process is not None and process.poll() is None:
            # A moment for the script's own clean-up (devices go back to their drivers).
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
