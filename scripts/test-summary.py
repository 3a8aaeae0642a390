#!/usr/bin/env python3
"""Sums the results of Meson's unit tests and pytest's flow tests.

usage: test-summary.py TESTLOG.json JUNIT.xml [unit|flow]

Counts test cases: cmocka's and TAP's own lines where a unit test prints them, else one for the
program. The last line is "N passed, N failed"; fails when anything failed or a half did not run.
"""
import json
import os
import re
import sys
import xml.etree.ElementTree as ET


def cases(text):
    """(passed, failed) that the output of one test program reports, or None."""
    passed = failed = skip = 0
    seen = False
    for line in text.splitlines():
        if re.match(r"\[ +OK +\] ", line):
            passed, seen = passed + 1, True
        elif m := re.match(r"\[ +(?:FAILED|ERROR) +\] (.*)", line):
            seen = True
            if listed := re.search(r"(\d+) test\(s\), listed below", m.group(1)):
                skip = int(listed.group(1))  # repeats the names already counted
            elif skip:
                skip -= 1
            elif not re.match(r"\s*\d+ FAILED TEST", m.group(1)):
                failed += 1
        elif re.match(r"not ok\b", line) and not re.search(r"# (todo|skip)", line, re.I):
            failed, seen = failed + 1, True
        elif re.match(r"ok\b", line):
            passed, seen = passed + 1, True
    return (passed, failed) if seen else None


def unit(path):
    """[(suite, name, passed, failed, seconds)] of Meson's testlog."""
    rows = []
    if not os.path.exists(path):
        return rows
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if not line.strip():
                continue
            t = json.loads(line)
            text = (t.get("stdout") or "") + "\n" + (t.get("stderr") or "")
            ok = t.get("result") in ("OK", "EXPECTEDFAIL")
            if t.get("result") == "SKIP":
                passed, failed = 0, 0
            else:
                passed, failed = cases(text) or ((1, 0) if ok else (0, 1))
                if ok:
                    failed = 0
                elif failed == 0:
                    failed = 1  # died outside a test case
            rows.append((t.get("name", "?"), passed, failed, float(t.get("duration") or 0), t.get("result")))
    return rows


def flow(path):
    if not os.path.exists(path):
        return None
    n = bad = skipped = 0
    seconds = 0.0
    names = []
    for suite in ET.parse(path).getroot().iter("testsuite"):
        seconds += float(suite.get("time", 0))
        for case in suite.iter("testcase"):
            n += 1
            if case.find("failure") is not None or case.find("error") is not None:
                bad += 1
                names.append(case.get("classname", "") + "::" + case.get("name", ""))
            elif case.find("skipped") is not None:
                skipped += 1
    return n - bad - skipped, bad, skipped, seconds, names


def main():
    testlog, junit, only = (sys.argv[1:] + [""])[:3]
    passed = failed = 0
    notes = []
    if only != "flow":
        rows = unit(testlog)
        for name, p, f, seconds, result in rows:
            print(f"  {'ok  ' if f == 0 else 'FAIL'} {name:<44} {p:4d} passed {f:3d} failed {seconds:7.2f} s")
            passed, failed = passed + p, failed + f
        if not rows:
            notes.append("no unit test ran")
    if only != "unit":
        result = flow(junit)
        if result is None or result[0] + result[1] == 0:
            notes.append("no flow test ran")
        else:
            p, f, skipped, seconds, names = result
            print(f"  {'ok  ' if f == 0 else 'FAIL'} {'flow tests':<44} {p:4d} passed {f:3d} failed {seconds:7.2f} s"
                  + (f"  ({skipped} skipped)" if skipped else ""))
            for name in names:
                print(f"       failed: {name}")
            passed, failed = passed + p, failed + f
    for note in notes:
        print(f"  FAIL {note}")
        failed += 1
    sys.stdout.flush()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
