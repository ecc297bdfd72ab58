"""Runs a job in L1: starts QEMU, carries the script's output, answers 'l0', brings back the exit
status, and leaves no process and no file behind, however it ends."""

import ctypes
import fcntl
import json
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import machine

STATUS_TIMEOUT = 124    # as timeout(1)
STATUS_FAILED = 125     # the test host itself failed
STATUS_CRASHED = 123    # QEMU died of a signal, or lost L1's timers: its own bug, whatever made it show
STATUS_PANICKED = 122   # L1's kernel crashed
LOOK_SECONDS = 5        # how often L1's console is looked at for timers that QEMU lost


class Failed(Exception):
    """The test host could not do its part; the message says what and what to do."""


def say(text):
    print(f"testhost: {text}", file=sys.stderr, flush=True)


def die_with_parent():
    """In a child between fork and exec: the kernel kills it when its parent goes."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class RunDir:
    """A scratch directory in the cache, locked while it is in use: what a killed run left behind is
    found by its free lock and removed by the next."""

    def __init__(self, base):
        os.makedirs(base, exist_ok=True)
        for old in os.scandir(base):
            fd = os.open(old.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old.path, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)
        # Made under another name's lock would be a race with the loop above: lock, then look again.
        while True:
            self.path = tempfile.mkdtemp(prefix="run-", dir=base)
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self.fd, fcntl.LOCK_EX)
                os.mkdir(f"{self.path}/share")
                break
            except FileNotFoundError:
                continue

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.fd)


class Monitor:
    """QEMU's machine protocol over a socket, for 'l0' and for ending QEMU."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""
        self.ready = False

    def _message(self):
        while True:
            while b"\n" not in self.buf:
                data = self.sock.recv(65536)
                if not data:
                    raise OSError("QEMU closed its monitor")
                self.buf += data
            line, self.buf = self.buf.split(b"\n", 1)
            message = json.loads(line)
            if "return" in message or "error" in message:
                return message

    def command(self, request):
        self.sock.settimeout(60)
        if not self.ready:
            self.sock.sendall(b'{"execute": "qmp_capabilities"}\n')
            self._message()
            self.ready = True
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        return self._message()

    def answer(self, line):
        """(status, text) for a line of 'l0'."""
        try:
            if line.startswith("qmp "):
                reply = self.command(json.loads(line[4:]))
                return int("error" in reply), json.dumps(reply, indent=1) + "\n"
            reply = self.command({"execute": "human-monitor-command",
                                  "arguments": {"command-line": line}})
        except (OSError, ValueError) as e:
            return 1, f"l0: {e}\n"
        if "error" in reply:
            return 1, "l0: " + reply["error"]["desc"] + "\n"
        text = reply["return"].replace("\r\n", "\n")
        # The human monitor has no status of its own; its errors are texts.
        refused = text.startswith(("Error", "unknown command", "invalid"))
        return int(refused), text


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


class Run:
    def __init__(self, opts, paths, run_dir):
        self.opts, self.paths, self.dir = opts, paths, run_dir
        self.ours, self.theirs = {}, {}
        self.qemu = None
        self.status = None

    def job(self, argv, env, where):
        """The job file, which L1's process 1 sources."""
        term = shutil.get_terminal_size()
        lines = {"JOB_MODE": "shell" if self.opts.interactive else "run", "JOB_PATH": where["path"],
                 "JOB_BUILD": where["build"], "JOB_SCRIPT_DIR": where["script_dir"],
                 "JOB_TERM": os.environ.get("TERM", "vt100"), "JOB_ROWS": str(term.lines),
                 "JOB_COLS": str(term.columns), "JOB_CONSOLE": self.opts.console}
        text = "".join(f"{k}={shlex.quote(v)}\n" for k, v in lines.items())
        text += "JOB_ARGV=({})\n".format(" ".join(map(shlex.quote, argv)))
        text += "".join(f"export {k}={shlex.quote(v)}\n" for k, v in env.items())
        with open(f"{self.dir}/share/job", "w", encoding="utf-8") as f:
            f.write(text)

    def start(self, shares):
        for name in ("ctl", "l0", "qmp") if self.opts.interactive else \
                ("ctl", "l0", "qmp", "out", "err"):
            self.ours[name], self.theirs[name] = socket.socketpair()
        prefix, env = machine.qemu_prefix(self.paths["tree"], self.paths["qemu"])
        argv = prefix + self.opts.bed.arguments(
            kernel=self.paths["kernel"], root=self.paths["root"],
            artefacts=self.paths["artefacts"], run_dir=self.dir, shares=shares,
            channels={n: s.fileno() for n, s in self.theirs.items()}, clock=self.opts.clock,
            cpus=self.opts.cpus, memory=self.opts.memory, profile=self.opts.profile,
            append=self.opts.append, more=shlex.split(self.opts.qemu_args),
            interactive=self.opts.interactive, **self.opts.bed_options)
        with open(f"{self.dir}/qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(
                argv, env={**os.environ, **env, "TMPDIR": self.dir},
                pass_fds=[s.fileno() for s in self.theirs.values()],
                stdin=None if self.opts.interactive else subprocess.DEVNULL,
                stdout=None if self.opts.interactive else log, stderr=log,
                # A terminal's Ctrl-C is for us, and for the shell in L1, not for QEMU.
                start_new_session=not self.opts.interactive, preexec_fn=die_with_parent)
        for sock in self.theirs.values():
            sock.close()

    def drain(self, name):
        """What is left in an output channel when the script has ended."""
        sock = self.ours.get(name)
        if sock is None:
            return
        sock.setblocking(False)
        try:
            while data := sock.recv(65536):
                write_all({"out": 1, "err": 2}[name], data)
        except BlockingIOError:
            pass

    def loop(self, deadline):
        """Until the script has ended, QEMU has, its timers are lost, or time is up."""
        sel = selectors.DefaultSelector()
        for name, sock in self.ours.items():
            if name != "qmp":
                sel.register(sock, selectors.EVENT_READ, name)
        pidfd = os.pidfd_open(self.qemu.pid)
        sel.register(pidfd, selectors.EVENT_READ, "qemu")
        monitor = Monitor(self.ours["qmp"])
        pending = {"ctl": b"", "l0": b""}
        look = time.monotonic() + LOOK_SECONDS
        try:
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return STATUS_TIMEOUT
                # What is lost does not come back: nothing is gained by waiting for the time-out.
                if not self.opts.interactive and time.monotonic() >= look:
                    if self.lost_timers():
                        self.show_timers(monitor)
                        return STATUS_CRASHED
                    look = time.monotonic() + LOOK_SECONDS
                for key, _ in sel.select(LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)):
                    name = key.data
                    if name == "qemu":
                        self.drain("out")
                        self.drain("err")
                        return None
                    data = key.fileobj.recv(65536)
                    if not data:
                        sel.unregister(key.fileobj)
                    elif name in ("out", "err"):
                        write_all({"out": 1, "err": 2}[name], data)
                    else:
                        pending[name] += data
                        while b"\n" in pending[name]:
                            line, pending[name] = pending[name].split(b"\n", 1)
                            if name == "l0":
                                code, text = monitor.answer(line.decode(errors="replace"))
                                text = text.encode()
                                key.fileobj.sendall(b"%d %d\n" % (code, len(text)) + text)
                            elif line.startswith(b"exit "):
                                self.drain("out")
                                self.drain("err")
                                return int(line[5:])
        finally:
            os.close(pidfd)
            sel.close()

    def stop(self):
        if self.qemu is not None:
            self.qemu.kill()
            self.qemu.wait()
        for sock in self.ours.values():
            sock.close()

    def crash(self):
        """The signal that QEMU died of by itself, or 0."""
        try:
            return max(0, -self.qemu.wait(timeout=10))
        except subprocess.TimeoutExpired:
            return 0

    def lost_timers(self):
        """Does L1's kernel say that a timer of its own did not wake it?"""
        try:
            with open(f"{self.dir}/console.log", encoding="utf-8", errors="replace") as f:
                return "kthread timer wakeup didn't happen" in f.read()
        except OSError:
            return False

    def show_timers(self, monitor):
        """Where the timer interrupts of L1's CPUs are, for whoever looks for the cause."""
        for cpu in range(self.opts.cpus):
            print(monitor.answer(f"info lapic {cpu}")[1], file=sys.stderr)

    def panic(self):
        """What L1's kernel said first when it crashed, or ''."""
        try:
            with open(f"{self.dir}/console.log", encoding="utf-8", errors="replace") as f:
                return next((line.strip() for line in f
                             if any(w in line for w in ("BUG: ", "Oops: ", "Kernel panic"))), "")
        except OSError:
            return ""

    def explain(self):
        """The end of L1's console and of QEMU's messages, when L1 ended by itself."""
        for what in ("qemu.log", "console.log"):
            try:
                with open(f"{self.dir}/{what}", encoding="utf-8", errors="replace") as f:
                    tail = f.read().splitlines()[-60:]
            except OSError:
                continue
            for line in tail:
                print(f"  {what}: {line}", file=sys.stderr)


def in_directory(path, directory):
    return os.path.commonpath([path, directory]) == directory


def place_script(script, source):
    """(directory to share, path in L1) of a script: inside the source tree it keeps its place there,
    so that it finds its library beside it."""
    path = os.path.realpath(script)
    if not os.path.isfile(path):
        raise Failed(f"no such script: {script}")
    if in_directory(path, source):
        return "", f"/hospes/src/{os.path.relpath(path, source)}"
    return os.path.dirname(path), f"/hospes/script/{os.path.basename(path)}"


def place_hospes(directory):
    """(PATH, environment) in L1 for a build directory or an installation."""
    if not directory:
        return "/hospes/nothing", {}
    if os.path.exists(f"{directory}/bin/hospes"):
        return "/hospes/build/bin", {
            "LD_LIBRARY_PATH": "/hospes/build/lib/x86_64-linux-gnu:/hospes/build/lib"}
    return "/hospes/build/cli", {}


def run(opts, paths, cache, source):
    """Runs the job of 'opts' and returns the exit status."""
    run_dir = RunDir(f"{cache}/run")
    out = opts.out or f"{run_dir.path}/out"
    job = Run(opts, paths, run_dir.path)
    terminal = None
    try:
        os.makedirs(out, exist_ok=True)
        build = os.path.realpath(opts.hospes) if opts.hospes else ""
        path, env = place_hospes(build)
        env.update({k: v for k, v in os.environ.items()
                    if k.startswith(("HOSPES_TEST_", "HOSPES_BENCH_")) or k == "HOSPES_LONG"})
        env.update({"HOSPES_CLOCK": opts.clock, "HOSPES_PROFILE": opts.profile,
                    "HOSPES_L1_KERNEL": opts.kernel, "HOSPES_ARCH": opts.arch})
        if build:
            env["HOSPES_BUILD"] = "/hospes/build"
        env.update(dict(e.split("=", 1) for e in opts.env))
        shares = {"src": (source, False), "run": (f"{run_dir.path}/share", False),
                  "out": (os.path.realpath(out), True)}
        if build:
            shares["build"] = (build, False)
        argv, script_dir = [], ""
        if opts.script:
            script_dir, place = place_script(opts.script, source)
            argv = [place, *opts.args]
            if not os.access(opts.script, os.X_OK):
                argv.insert(0, "bash")
            if script_dir:
                shares["script"] = (script_dir, False)
        job.job(argv, env, {"path": path, "build": build, "script_dir": script_dir})
        if opts.interactive and sys.stdin.isatty():
            import termios
            terminal = termios.tcgetattr(0)
        deadline = None if not opts.timeout else time.monotonic() + opts.timeout
        job.start(shares)
        status = job.loop(deadline)
        if status is None:
            if opts.interactive:
                return 0
            signal_number = job.crash()
            job.stop()
            job.explain()
            if signal_number:
                say(f"QEMU ended by signal {signal_number} before the script did")
                return STATUS_CRASHED
            said = job.panic()
            if said:
                say(f"L1's kernel crashed before the script ended: {said}")
                return STATUS_PANICKED
            say("L1 ended before the script did")
            return STATUS_FAILED
        if status == STATUS_TIMEOUT and time.monotonic() >= (deadline or float("inf")):
            say(f"timeout: not done after {opts.timeout:g} s")
        if status == STATUS_CRASHED and job.lost_timers():
            job.explain()
            say("L1's kernel reports that its own timers do not fire: QEMU lost them")
        return status
    finally:
        job.stop()
        if terminal is not None:
            import termios
            termios.tcsetattr(0, termios.TCSADRAIN, terminal)
        if opts.out and os.path.exists(f"{run_dir.path}/console.log"):
            shutil.copyfile(f"{run_dir.path}/console.log", f"{opts.out}/l1-console.log")
        run_dir.remove()
