#!/usr/bin/env python3
"""Retired words, and comments of C files past 100 columns. Usage: words.py FILE…

docs/architecture.md, "Terms", has the word to use for each. Findings go to standard output, one a
line; exit status 1 if there are any.
"""
import re
import sys

# What is searched for, and what to write. In C files: in comments and strings.
WORDS = (
    (r"ways? out", "remedy"),
    (r"of before(?! the)", "from before …"),
    (r"(?:is|are|was|were|be|being) told(?! apart)", "is reported, is acknowledged"),
    (r"untell|untold", "rollback"),
    (r"drain of", "batch"),
    (r"pieces?", "segment (iov), extent (ranges), part"),
    (r"devices? of the host", "passed-through device"),
    (r"guest's own IOMMU|guest's IOMMU|IOMMU of the guest(?:'s own)?", "virtual IOMMU"),
    (r"(?:a|each|one|per|next|same|every|whole|end of|start of) turns?", "iteration"),
    (r"turns? of (?:a|the|its) loop", "iteration"),
    (r"takes? out of the (?:list|tree|table)", "unlink"),
    # Names, in code as well.
    (r"way_out", "remedy"),
    (r"loop_turn", "loop_iterate"),
    (r"take_out", "unlink"),
    (r"iommu_domain", "hw_domain"),
    (r"\w+_pieces?|pieces?_\w+", "segment, extent"),
    (r"say_whose|holder_say|kvm_knows|vm_viommu_known|vm_viommu_starts|unmanned|set_gone", ""),
)
PATTERN = re.compile(
    r"(?<![\w-])(?:" + "|".join(f"({p})" for p, _ in WORDS) + r")(?![\w-])", re.IGNORECASE
)
# A comment, a string or a character; outside of these only names with an underscore count.
TEXT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", re.DOTALL)
COMMENT = re.compile(r"^\s*(?:/\*|\*|//)|\s(?:/\*|//)\s")


def without_code(text):
    """The text with everything blanked that is neither in a comment or string nor has a '_'."""
    kept, at = [], 0
    for m in TEXT.finditer(text):
        kept += [re.sub(r"\b[^\W_]+\b", " ", text[at : m.start()]), m.group()]
        at = m.end()
    return "".join(kept) + re.sub(r"\b[^\W_]+\b", " ", text[at:])


def columns(line):
    return len(line.expandtabs(8))


def check(path):
    found = 0
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
    except (UnicodeDecodeError, FileNotFoundError):
        return 0
    is_c = path.endswith((".c", ".h"))
    if path == "docs/architecture.md":  # its list of terms names the retired ones
        text = text[: text.index("\n## Terms\n")]
    for n, line in enumerate((without_code(text) if is_c else text).split("\n"), 1):
        for m in PATTERN.finditer(line):
            instead = WORDS[m.lastindex - 1][1]
            print(f"{path}:{n}: '{m.group()}'" + (f": write {instead}" if instead else ""))
            found += 1
    for n, line in enumerate(text.split("\n") if is_c else (), 1):
        if columns(line) > 100 and COMMENT.search(line):
            print(f"{path}:{n}: a comment of {columns(line)} columns; 100 at most")
            found += 1
    return found


def main():
    files = [f for f in sys.argv[1:] if f != "tools/lib/words.py"]
    return 1 if sum([check(f) for f in files]) else 0


if __name__ == "__main__":
    sys.exit(main())
