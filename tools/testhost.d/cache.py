"""What a run needs, made once and kept in the user's cache, each thing under a name that holds a
hash of everything it was made from: Debian trees, the kernel, L1's disk, the guest artefacts, QEMU
with its faults mended, and hospes itself, built in a tree.

An entry is made in NAME.new under a lock and renamed: an interruption leaves no half entry, and two
runs do not make one twice."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import mend
from run import Failed, die_with_parent, say

HERE = os.path.dirname(os.path.realpath(__file__))
DEBTREE = os.path.join(os.path.dirname(HERE), "lib", "debtree.sh")
SUITE = "trixie"
QEMU = "qemu-system-x86_64"
TREES = ("build", "l1", "guest", "build-new")


def content(path):
    with open(path, "rb") as f:
        return f.read().decode("utf-8", "surrogateescape")


def key(*parts):
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def packages(name):
    """Of a tree: those of arm64's test host have a directory of their own."""
    arch, dash, rest = name.partition("-")
    path = f"{HERE}/{arch}/packages.{rest}" if dash and os.path.isdir(f"{HERE}/{arch}") else f"{HERE}/packages.{name}"
    text = re.sub(r"#.*", "", content(path))
    return text.split()


def debtree(function, *args, **kwargs):
    """Runs a function of debtree.sh; returns the completed process."""
    command = ["bash", "-c", '. "$0" && "$@"', DEBTREE, function, *args]
    env = {**os.environ, "DEBTREE_TAG": "testhost"}
    with child(command, env=env, **kwargs) as process:
        out, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out)


@contextlib.contextmanager
def child(command, **kwargs):
    """A process in its own session, which does not outlive the block or us."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                               preexec_fn=die_with_parent, **kwargs)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def locked(path, what):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that makes the {what}")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Progress:
    """One line that counts, on a terminal; a line every half minute elsewhere."""

    def __init__(self, what, expected):
        self.what, self.expected = what, expected
        self.count, self.start, self.told = 0, time.monotonic(), time.monotonic()
        self.tty = sys.stderr.isatty()

    def step(self):
        self.count += 1
        now = time.monotonic()
        if now - self.told < (0.5 if self.tty else 30):
            return
        self.told = now
        share = min(self.count / self.expected, 0.99)
        if share < 0.03:
            return  # too early to tell
        left = (now - self.start) * (1 - share) / share
        text = f"testhost: {self.what}: {share:.0%}, about {left / 60:.0f} min left"
        print(f"\r{text}\033[K" if self.tty else text, end="" if self.tty else "\n",
              file=sys.stderr, flush=True)

    def done(self):
        if self.tty:
            print("\r\033[K", end="", file=sys.stderr)


def logged(command, log, what, progress=None):
    """Runs a function of debtree.sh with its output in a file, which is shown if it fails."""
    env = {**os.environ, "DEBTREE_TAG": "testhost"}
    with open(log, "wb") as f, child(["bash", "-c", '. "$0" && "$@"', DEBTREE, *command], env=env,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            f.write(line)
            if progress:
                progress.step()
        status = process.wait()
    if progress:
        progress.done()
    if status:
        with open(log, encoding="utf-8", errors="replace") as f:
            sys.stderr.write("".join(f.readlines()[-40:]))
        raise Failed(f"{what}: failed with status {status}; all of its output is in {log}")


class Cache:
    def __init__(self):
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.dir = f"{base}/hospes/testhost"
        self.trees_dir = f"{base}/hospes/trees"
        os.makedirs(self.dir, exist_ok=True)

    def tree(self, name):
        result = debtree("debtree_get", name, SUITE, *packages(name), stdout=subprocess.PIPE)
        if result.returncode:
            raise Failed(f"no Debian tree '{name}': see above")
        return result.stdout.decode().strip()

    def entry(self, name, inputs, make, duration):
        """The directory of an entry, made by make(directory) if its inputs are new."""
        path = f"{self.dir}/{name}-{key(*inputs)}"
        if not os.path.isdir(path):
            with locked(f"{self.dir}/{name}.lock", name):
                if not os.path.isdir(path):
                    say(f"making the {name} ({duration})")
                    start = time.monotonic()
                    self.remove(f"{path}.new")
                    os.mkdir(f"{path}.new")
                    make(f"{path}.new")
                    os.rename(f"{path}.new", path)
                    say(f"made the {name} in {time.monotonic() - start:.0f} s")
        os.utime(path)
        return path

    def remove(self, path):
        if os.path.lexists(path):
            debtree("debtree_remove", path)

    # The entries.

    def kernel(self, build, which="default"):
        """'default': what the guests boot, and L1 unless told otherwise. 'new': for L1 alone."""
        versions = [line for line in content(f"{build}/.packages").splitlines()
                    if re.match(r"(linux-source|gcc-\d+|binutils)[-.\w]*\t", line)]
        name = "kernel" if which == "default" else f"kernel-{which}"
        fragments = ["kernel.config", f"kernel.config.{which}"]
        inputs = [*versions, *[content(f"{HERE}/{f}") for f in fragments],
                  content(f"{HERE}/build-kernel")]
        # Sources and objects outlive an interruption, and a change of the configuration.
        work = f"{self.dir}/{name}-work"

        def make(out):
            # What an earlier build left makes this one too short to be foretold.
            progress = None if os.path.exists(f"{work}/unpacked") else Progress("kernel", 2400)
            os.makedirs(work, exist_ok=True)
            source = key(*[v for v in versions if v.startswith("linux-source")])
            logged(["debtree_run", build, "--ro", f"{HERE}:/recipe", "--bind", f"{work}:/work",
                    "--bind", f"{out}:/out", "--", "/recipe/build-kernel",
                    "/usr/src/linux-source-*.tar.xz", source, "/work", "/out",
                    *[f"/recipe/{f}" for f in fragments]],
                   f"{self.dir}/{name}.log", "kernel build", progress)

        return self.entry(name, inputs, make, "about 6 minutes on two cores")

    def root(self, build, tree):
        inputs = [content(f"{tree}/.packages"), content(f"{HERE}/l1/stub"),
                  content(f"{HERE}/l1/make-root")]

        def make(out):
            logged(["debtree_run", build, "--ro", f"{HERE}:/recipe", "--bind", f"{tree}:/tree",
                    "--bind", f"{out}:/out", "--", "/recipe/l1/make-root", "/tree", "/out"],
                   f"{self.dir}/root.log", "L1's disk")

        return self.entry("root", inputs, make, "about 10 s")

    def artefacts(self, build, tree, kernel):
        inputs = [content(f"{tree}/.packages"), os.path.basename(kernel),
                  content(f"{HERE}/guest/init"), content(f"{HERE}/guest/make-artefacts")]

        def make(out):
            logged(["debtree_run", build, "--ro", f"{HERE}:/recipe", "--bind", f"{tree}:/tree",
                    "--ro", f"{kernel}:/kernel", "--bind", f"{out}:/out", "--",
                    "/recipe/guest/make-artefacts", "/kernel", "/tree", "/out"],
                   f"{self.dir}/artefacts.log", "guest artefacts")

        return self.entry("artefacts", inputs, make, "about 20 s")

    def qemu(self, tree):
        """The program that emulates L1: the tree's, with what mend.py mends."""
        def make(out):
            for line in mend.mend(f"{tree}/usr/bin/{QEMU}", f"{out}/{QEMU}"):
                say(f"QEMU: {line}")
            os.chmod(f"{out}/{QEMU}", 0o755)

        return self.entry("qemu", [content(f"{tree}/.packages"), content(f"{HERE}/mend.py")], make,
                          "about 1 s")

    def prepare(self, refresh=False):
        """Everything but hospes; the paths that a run needs."""
        if refresh:
            self.refresh()
        build = self.tree("build")
        kernel = self.kernel(build)
        l1, guest = self.tree("l1"), self.tree("guest")
        root = self.root(build, l1)
        artefacts = self.artefacts(build, guest, kernel)
        return {"build": build, "tree": l1, "qemu": f"{self.qemu(l1)}/{QEMU}",
                "kernel": f"{kernel}/bzImage",
                "root": f"{root}/root.ext4", "artefacts": f"{artefacts}/artefacts.ext4",
                "artefacts_dir": artefacts}

    def new_kernel(self):
        """The newest kernel of Debian's backports, for L1: made when it is first asked for, in a tree
        of its own."""
        return f"{self.kernel(self.tree('build-new'), 'new')}/bzImage"

    def refresh(self):
        """Trees for which the archive has newer packages are made again."""
        for name in TREES:
            if name == "build-new" and not os.path.isdir(f"{self.trees_dir}/{self.tree_key(name)}"):
                continue  # nobody has asked for it
            path = self.tree(name)
            say(f"asking the archive about tree '{name}' (a few seconds)")
            if debtree("debtree_outdated", path).returncode == 0:
                say(f"newer packages for tree '{name}'")
                with locked(f"{self.trees_dir}/{name}.lock", f"tree '{name}'"):
                    self.remove(path)

    # hospes.

    def setup(self):
        return "meson setup"

    def build_hospes(self, source, build):
        """Builds the source tree 'source' in the tree 'build', incrementally; returns the build
        directory. Inside, source and build directory have the names that they have in L1."""
        where = f"{self.dir}/hospes-{key(source, os.path.basename(build))}"
        os.makedirs(f"{where}/build", exist_ok=True)
        with locked(f"{where}/lock", "same hospes"):
            if not os.path.exists(f"{where}/build/build.ninja"):
                say("building hospes for L1 (the first time: about a minute)")
            logged(["debtree_run", build, "--ro", f"{source}:/hospes/src",
                    "--bind", f"{where}/build:/hospes/build", "--", "sh", "-c",
                    "cd /hospes/src && { [ -e /hospes/build/build.ninja ] || "
                    f"{self.setup()} /hospes/build; }} && ninja -C /hospes/build in-testhost"],
                   f"{where}/log", "hospes in the Debian 13 tree")
        with open(f"{where}/source", "w", encoding="utf-8") as f:
            f.write(source)
        return f"{where}/build"

    def key(self, source):
        """Of the tools, the self-tests and the trees' packages: a test host with the same key is the same."""
        found = []
        for part in ("tools/testhost", "tools/lib/debtree.sh", "tools/testhost.d", "tests/host/run",
                     "tests/host/lib.sh", "tests/host/selftest"):
            path = f"{source}/{part}"
            found += [path] if os.path.isfile(path) else \
                [os.path.join(where, f) for where, _, files in os.walk(path) for f in files if not f.endswith(".pyc")]
        trees = [f"{self.trees_dir}/{self.tree_key(name)}/.packages" for name in TREES[:3]]
        found += [f for f in trees if os.path.exists(f)]
        return key(*[f"{os.path.basename(f)}\n{content(f)}" for f in sorted(found)])

    def gc(self, everything=False, others=()):
        """Removes what the present inputs do not lead to, and is none of `others` (or everything); returns the
        paths."""
        keep = set(others)
        if not everything:
            # What is there under today's keys; nothing is made here.
            for name in TREES:
                keep.add(self.tree_key(name))
            with contextlib.suppress(FileNotFoundError):
                build = f"{self.trees_dir}/{self.tree_key('build')}"
                self.entry = self._existing(keep)
                kernel = self.kernel(build)
                l1 = f"{self.trees_dir}/{self.tree_key('l1')}"
                self.root(build, l1)
                self.qemu(l1)
                self.artefacts(build, f"{self.trees_dir}/{self.tree_key('guest')}", kernel)
                new = f"{self.trees_dir}/{self.tree_key('build-new')}"
                if os.path.isdir(new):
                    self.kernel(new, "new")
        gone = []
        for base in (self.dir, self.trees_dir):
            for item in sorted(os.scandir(base), key=lambda e: e.name):
                if not item.is_dir(follow_symlinks=False) or item.name in keep:
                    continue
                if item.name == "run":
                    continue
                if base == self.trees_dir and not everything and \
                        item.name.rsplit("-", 1)[0] not in TREES:
                    continue  # another tool's
                if item.name.startswith("hospes-") and not everything:
                    with contextlib.suppress(OSError):
                        if os.path.isdir(content(f"{item.path}/source")):
                            continue
                if item.name.endswith(".new"):
                    name = item.name.rsplit("-", 1)[0]
                    with locked(f"{base}/{name}.lock", name):
                        self.remove(item.path)
                else:
                    self.remove(item.path)
                gone.append(item.path)
        return gone

    def _existing(self, keep):
        def entry(name, inputs, _make, _duration):
            path = f"{name}-{key(*inputs)}"
            keep.add(path)
            return f"{self.dir}/{path}"
        return entry

    def tree_key(self, name):
        """The directory's name."""
        result = debtree("debtree_key", "1", SUITE, *packages(name), stdout=subprocess.PIPE)
        return f"{name}-{result.stdout.decode().strip()}"

    def size(self):
        total = subprocess.run(["du", "-sch", self.dir, self.trees_dir], capture_output=True,
                               text=True, check=False).stdout.splitlines()
        return total[-1].split()[0] if total else "?"


def scratch(path):
    shutil.rmtree(path, ignore_errors=True)
