#!/usr/bin/env python3
"""Run clang-tidy over a build directory's sources, remembering what was clean.

usage: tidy.py BUILD-DIR CACHE-DIR [--only FILE,…] -- CLANG-TIDY-COMMAND…

A file's result is remembered by what it depends on: its command line, its own text and that of
every header of the project it includes (as ninja recorded them), .clang-tidy, and the tool.
Exit status: 0 clean, 1 findings, 2 the run itself failed.
"""
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys


def digest(path, seen={}):
    if path not in seen:
        try:
            with open(path, "rb") as f:
                seen[path] = hashlib.sha256(f.read()).hexdigest()
        except OSError:
            seen[path] = "missing"
    return seen[path]


def dependencies(build, root):
    """Object file -> the project's own files it was made from."""
    out = subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True)
    deps, current = {}, None
    for line in out.stdout.splitlines():
        if line.startswith("    "):
            path = os.path.realpath(os.path.join(build, line.strip()))
            if current is not None and path.startswith(root + os.sep):
                current.append(path)
        elif ": #deps" in line:
            current = deps.setdefault(line.split(":")[0], [])
    return deps


FINDING = re.compile(r"^(\S+?):(\d+):\d+: (?:error|warning): (.*)$")
NAMED = re.compile(r"(?:pointed to by|Value stored to) '(\w+)'")


def real(out, directory):
    """The findings without those about variables that clean up after themselves: the analyzer knows
    nothing of __attribute__((cleanup)), so it sees leaks and useless stores there."""
    kept, block, keep = [], [], True
    for line in out.splitlines() + ["end:0:0: error: end"]:
        m = FINDING.match(line)
        if m:
            if keep:
                kept += block
            block, keep = [], True
            name = NAMED.search(m.group(3))
            if name and ("unix.Malloc" in line or "DeadStores" in line):
                path = os.path.join(directory, m.group(1))
                with open(path, encoding="utf-8", errors="replace") as f:
                    text = f.read()
                keep = not re.search(rf"\bcleanup_\w+\s[^;]*?\b{name.group(1)}\b", text)
        block.append(line)
    return "\n".join(kept).strip()


def main():
    split = sys.argv.index("--")
    args, tidy = sys.argv[1:split], sys.argv[split + 1:]
    build, cache = os.path.realpath(args[0]), args[1]
    only = set(args[3].split(",")) if len(args) > 3 else None
    root = os.getcwd()
    os.makedirs(cache, exist_ok=True)

    with open(os.path.join(build, "compile_commands.json")) as f:
        commands = json.load(f)
    deps = dependencies(build, root)
    config = "".join(digest(os.path.join(root, d, ".clang-tidy")) for d in ("", "tests"))

    todo, seen = [], set()
    for c in commands:
        path = os.path.realpath(os.path.join(c["directory"], c["file"]))
        name = os.path.relpath(path, root)
        # Generated files are not ours to mend; planted bugs are there on purpose.
        if path in seen or not path.endswith(".c") or path.startswith(build + os.sep) \
                or not path.startswith(root + os.sep):
            continue
        seen.add(path)
        if only is not None and name not in only:
            continue
        h = hashlib.sha256()
        for part in [repr(tidy), config, c["command"]] + \
                [digest(p) for p in sorted(set(deps.get(c.get("output"), []) + [path]))]:
            h.update(part.encode())
        mark = os.path.join(cache, h.hexdigest()[:32])
        if os.path.exists(mark):
            os.utime(mark)
        else:
            todo.append((name, path, mark))

    if len(todo) > 20:
        print(f"clang-tidy: {len(todo)} of {len(seen)} files to look at, about "
              f"{max(1, len(todo) // 30)} min", file=sys.stderr)

    def run(item):
        name, path, mark = item
        p = subprocess.run(tidy + ["--quiet", "-p", build, path],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        found = real(p.stdout, build)
        if p.returncode != 0 and not FINDING.search(p.stdout.splitlines()[0] if p.stdout else ""):
            found = f"{name}: clang-tidy failed:\n{p.stdout}{p.stderr}".strip()
        if not found:
            open(mark, "w").close()
        return found

    failed = False
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(run, todo):
            if found:
                failed = True
                # Paths as seen from the top, whichever way they were named.
                print(re.sub(r"(?m)^(\.\./)+", "", found.replace(root + "/", "")))
    print(f"{len(seen)} files, {len(todo)} looked at anew")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
