#!/usr/bin/env python3
"""Checks that every test named in docs/proxy-rules.md exists.

    rules.py ROOT

Prints "N tests named, all there", or the missing ones and exits with 1."""
import pathlib
import re
import sys


def named(text):
    """(file, test) of the second column of the first table: "file: test (remark), test · file: test"."""
    for row in re.findall(r"^\| [^|]+ \| ([^|`]+) \|$", text.split("## Faults of a backend")[0], re.M):
        if row.strip("- ") in ("", "Shown by"):
            continue
        for group in re.sub(r"\([^)]*\)", "", row).split("·"):
            where, colon, tests = group.partition(":")
            assert colon, f"no test is named in: {group}"
            for test in tests.split(","):
                yield where.strip(), test.strip()


def source(root, where):
    folder, _, name = where.rpartition("/")
    path = f"tests/flow/test_{name}.py" if folder == "flow" else f"tests/unit/{folder or 'proxy'}/test_{name}.c"
    return root / path


def main(root):
    root = pathlib.Path(root)
    found = list(named((root / "docs/proxy-rules.md").read_text()))
    missing = []
    for where, test in found:
        path = source(root, where)
        if not path.exists() or not re.search(rf"\b(void|def) test_{re.escape(test)}\w*\(", path.read_text()):
            missing.append(f"{where}: {test}")
    if missing or len(found) < 30:
        print(f"docs/proxy-rules.md names {len(found)} tests; missing:", *missing, sep="\n  ")
        return 1
    print(f"{len(found)} tests named, all there")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
