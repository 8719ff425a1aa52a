"""Runs clang-tidy over a build's own sources, in parallel, skipping what is unchanged and clean.

A file counts as unchanged if it, every header of the project that it includes, its compile command
and .clang-tidy are. Stamps lie in BUILD/clang-tidy.

Left out: files that include libtorch, whose headers clang 14 does not take as C++20. They are few by
design, and gcc's -Wall -Wextra -Werror holds for them too.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

QUOTED_INCLUDE = re.compile(rb'^#include "([^"]+)"', re.MULTILINE)


def project_files_of(source: pathlib.Path, roots: list[pathlib.Path]) -> set[pathlib.Path]:
    """The file and the project's own headers that it includes, directly or not.

    Project headers are included in quotes, by their path from one of the roots.
    """
    found = {source}
    open_files = [source]
    while open_files:
        for name in QUOTED_INCLUDE.findall(open_files.pop().read_bytes()):
            for path in (root / name.decode() for root in roots):
                if path.exists() and path not in found:
                    found.add(path)
                    open_files.append(path)
    return found


def includes_libtorch(paths: set[pathlib.Path]) -> bool:
    return any(b"#include <torch/" in path.read_bytes() for path in paths)


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    build = pathlib.Path(sys.argv[1]).resolve()
    stamps = build / "clang-tidy"
    stamps.mkdir(exist_ok=True)
    configs = [root / ".clang-tidy", root / "tests" / ".clang-tidy"]
    config = b"".join(path.read_bytes() for path in configs)

    work = {}  # source file -> stamp
    left_out = []
    total = 0
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["file"])
        if source.is_relative_to(build):
            continue
        total += 1
        files = project_files_of(source, [root, build / "proto"])
        if includes_libtorch(files):
            left_out.append(str(source.relative_to(root)))
            continue
        key = hashlib.sha256(config + entry["command"].encode())
        for path in sorted(files):
            key.update(path.read_bytes())
        stamp = stamps / key.hexdigest()
        if not stamp.exists():
            work[source] = stamp

    def check(source: pathlib.Path) -> tuple[pathlib.Path, subprocess.CompletedProcess, float]:
        start = time.monotonic()
        command = ["clang-tidy", "--quiet", "-p", str(build), str(source)]
        command += ["--extra-arg=-Wno-unknown-warning-option"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return source, done, time.monotonic() - start

    print(f"    left out, with libtorch: {', '.join(left_out) or 'none'}")
    print(f"    {len(work)} of {total} files to check", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (source, done, seconds) in enumerate(
            map(concurrent.futures.Future.result, futures_of(pool, check, work)), 1
        ):
            name = source.relative_to(root)
            print(f"    [{number}/{len(work)}] {name} ({seconds:.0f} s)", flush=True)
            if done.returncode == 0:
                work[source].touch()
            else:
                failed += 1
                print(done.stdout, done.stderr, flush=True)
    return 1 if failed else 0


def futures_of(pool, function, items):
    return concurrent.futures.as_completed([pool.submit(function, item) for item in items])


if __name__ == "__main__":
    sys.exit(main())
