#!/usr/bin/env python3
"""Count the cases of a `meson test` run.

usage: results.py LOG.json DETAILS

Reads Meson's log (one JSON object per test), counts each subtest of a TAP test as a case and any
other test as one, and prints tab-separated lines: "pass N", "fail NAME DETAIL",
"skip NAME REASON", "long NAME SECONDS" for tests of over a minute, and "time NAME SECONDS" for each part of
a test that says how long it took ("# NAME: N s"). A test that did not end well
although no subtest failed is one failure more. What failed tests wrote is put into the file DETAILS, for people.
"""
import json
import re
import sys

RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?\s*-?\s*(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#\s*(.*))?$")
SKIP = re.compile(r"#\s*SKIP\S*\s*(.*)$", re.IGNORECASE)
TODO = re.compile(r"#\s*TODO\b", re.IGNORECASE)
TOOK = re.compile(r"^# (\S.*): (\d+) s$")
PROGRESS = re.compile(r"^#\d+\s+(NEW|REDUCE|RELOAD|pulse)\b")


def clean(text):
    return re.sub(r"\s+", " ", text).strip()


def tap(out):
    """(passed, [failed names], [(skipped name, reason)], reason of a plan that skips all)"""
    passed, failed, skipped, whole, seen = 0, [], [], None, False
    for line in out.splitlines():
        line = line.rstrip()
        plan = PLAN.match(line)
        if plan:
            seen = True
            if plan.group(1) == "0":
                whole = re.sub(r"(?i)^skip\S*\s*", "", plan.group(2) or "") or "no reason given"
            continue
        m = RESULT.match(line)
        if not m:
            continue
        seen = True
        text = m.group(3)
        skip = SKIP.search(text)
        name = clean(text.split(" # ")[0].split(" #SKIP")[0]) or m.group(2) or "?"
        if skip:
            skipped.append((name, clean(skip.group(1)) or "no reason given"))
        elif m.group(1) and not TODO.search(text):
            failed.append(name)
        else:
            passed += 1
    return (passed, failed, skipped, whole) if seen else None


def details(t, name, out):
    """The failed cases with what they said, and the end of what the test said otherwise."""
    text, shown = [f"---- {name}: {t['result']}, status {t.get('returncode')}"], 0
    before = []
    for line in (t.get("stdout") or "").splitlines():
        m = RESULT.match(line)
        if m or PLAN.match(line):
            shown = 30 if m and m.group(1) else 0
            if shown:
                text += before[-15:]
            before = []
        elif not shown:
            before.append(line)
        if shown:
            text.append(line)
            shown -= 1
    if len(text) == 1:
        text += (t.get("stdout") or "").splitlines()[-30:]
    # What a fuzzer says while all is well hides what it says at the end.
    stderr = [l for l in (t.get("stderr") or "").splitlines() if not PROGRESS.match(l)]
    text += [f"stderr: {line}" for line in stderr[-60:]]
    out.write("\n".join(text) + "\n")


def main():
    total = 0
    out = open(sys.argv[2], "w")
    with open(sys.argv[1]) as f:
        tests = [json.loads(line) for line in f if line.strip()]
    for t in tests:
        # "hospes:unit / base/err" -> "unit/base/err", without saying the suite twice.
        name = t["name"]
        m = re.match(r"^(?:[^:/ ]+:)?(\S+) / (.*)$", name)
        if m:
            suite = m.group(1).split("+")[0]
            name = m.group(2) if m.group(2).startswith(suite + "/") else f"{suite}/{m.group(2)}"
        result = t["result"]
        if result not in ("OK", "SKIP", "EXPECTEDFAIL"):
            details(t, name, out)
        times = [m for m in map(TOOK.match, (t.get("stdout") or "").splitlines()) if m]
        for took in times:
            whole = name if name.endswith(f"/{took.group(1)}") else f"{name}/{took.group(1)}"
            print(f"time\t{whole}\t{took.group(2)}")
        if t.get("duration", 0) > 60 and not times:
            print(f"long\t{name}\t{t['duration']:.0f}")
        parsed = tap(t.get("stdout") or "")
        if parsed is None:
            if result in ("OK", "EXPECTEDFAIL"):
                total += 1
            elif result == "SKIP":
                words = (t.get("stdout") or t.get("stderr") or "").strip().splitlines()
                print(f"skip\t{name}\t{clean(words[-1]) if words else 'no reason given'}")
            else:
                print(f"fail\t{name}\t{result.lower()}, status {t.get('returncode')}")
            continue
        passed, failed, skipped, whole = parsed
        total += passed
        for case in failed:
            print(f"fail\t{name}: {case}\tfailed")
        for case, reason in skipped:
            print(f"skip\t{name}: {case}\t{reason}")
        if whole is not None and not skipped:
            print(f"skip\t{name}\t{clean(whole)}")
        if result not in ("OK", "SKIP", "EXPECTEDFAIL") and not failed:
            print(f"fail\t{name}\t{result.lower()} after {passed} passed, "
                  f"status {t.get('returncode')}")
    print(f"pass\t{total}")


if __name__ == "__main__":
    main()
