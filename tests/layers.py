#!/usr/bin/env python3
"""Checks that includes point downward: a folder of src/ may include only the folders named here."""
import os
import re
import sys

BELOW = {
    'base': [],
    'os': ['base'],
    'dialect': ['base'],
    'gguf': ['base', 'os'],
    'hw': ['base', 'os'],
    'plan': ['base', 'os', 'gguf', 'hw'],
    'store': ['base', 'os'],
    'watch': ['base', 'os'],
    'runtime': ['base', 'os', 'dialect', 'gguf', 'hw', 'plan'],
    'launch': ['base', 'os'],
    'pool': ['base', 'os', 'dialect', 'gguf', 'hw', 'plan', 'runtime', 'launch'],
    'proxy': ['base', 'os', 'dialect'],
    'foresee': ['base', 'os', 'store'],
    'daemon': ['base', 'os', 'dialect', 'gguf', 'hw', 'plan', 'store', 'watch', 'runtime', 'launch', 'pool', 'proxy', 'foresee'],
    'cli': None,  # the program: sees everything, a client of the control API
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def main(root):
    src, bad, seen = os.path.join(root, 'src'), [], 0
    for folder in sorted(os.listdir(src)):
        if not os.path.isdir(os.path.join(src, folder)):
            continue
        if folder not in BELOW:
            bad.append('src/%s: a folder without a place in the layers' % folder)
            continue
        for where, _, names in os.walk(os.path.join(src, folder)):
            for name in sorted(names):
                if not name.endswith(('.c', '.h', '.def')):
                    continue
                path = os.path.join(where, name)
                seen += 1
                for inc in INCLUDE.findall(open(path, encoding='utf-8').read()):
                    target = inc.split('/')[0] if '/' in inc else folder
                    if target != folder and BELOW[folder] is not None and target not in BELOW[folder]:
                        bad.append('%s includes "%s": %s must not see %s' % (os.path.relpath(path, root), inc, folder, target))
    for line in bad:
        print(line)
    print('%d files, %d upward includes' % (seen, len(bad)))
    return 1 if bad or not seen else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
