#!/usr/bin/env python3
# testhost: --clock instructions --memory 4G --timeout 900
# smoke: --memory 2G --timeout 300
"""What a guest's mapping costs in hospes itself, by how many mappings there are; no guest, no kernel."""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bench  # noqa: E402

STRATEGIES = ["strict"] if bench.SMOKE else ["strict", "batched", "deferred", "cached", "auto"]


def curve():
    out = subprocess.run([os.environ["HOSPES_BUILD"] + "/tests/bench/mapcurve", *STRATEGIES],
                         capture_output=True, text=True, check=False)
    if out.returncode:
        raise bench.Failed(f"mapcurve: status {out.returncode}:\n{out.stdout}{out.stderr}")
    lines = [line.split()[1:] for line in out.stdout.splitlines() if line.startswith("CURVE ")]
    counts = sorted({int(count) for _, count, _ in lines})
    t = bench.Table("mappings", ("instructions" if bench.INSTRUCTIONS else "nanoseconds of CPU time") +
                    " for a MAP and its share of the UNMAP, 16 pages together, by mappings that stand",
                    ["strategy"] + [f"{count:,}" for count in counts],
                    ["at places chosen at random; hospes alone, on a backend that does nothing"])
    for strategy in STRATEGIES:
        ns = {int(count): float(value) for name, count, value in lines if name == strategy}
        t.add(strategy, *[ns[count] / (bench.NS_PER_INSTRUCTION if bench.INSTRUCTIONS else 1) for count in counts])
    t.show()


bench.main(curve)
