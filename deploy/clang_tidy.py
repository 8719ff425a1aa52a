"""Runs clang-tidy over a build's own sources, in parallel, skipping what is unchanged and clean.

A file counts as unchanged if it, every header of the project that its object depends on (as Ninja
recorded it), its compile command and .clang-tidy are. Stamps lie in BUILD/clang-tidy.

Left out: files that include libtorch, whose headers clang 14 does not take as C++20. They are few by
design, and gcc's -Wall -Wextra -Werror holds for them too.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time


def project_dependencies(build: pathlib.Path, root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Object file -> the project's files it was made from."""
    listing = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"], check=True, capture_output=True, text=True
    ).stdout
    dependencies: dict[str, list[pathlib.Path]] = {}
    target = ""
    for line in listing.splitlines():
        if line and not line.startswith((" ", "ninja:")):
            target = line.split(": #deps")[0]
            dependencies[target] = []
        elif line.startswith(" "):
            path = (build / line.strip()).resolve()
            if path.is_relative_to(root):
                dependencies[target].append(path)
    return dependencies


def includes_libtorch(paths: list[pathlib.Path]) -> bool:
    return any(b"#include <torch/" in path.read_bytes() for path in paths)


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    build = pathlib.Path(sys.argv[1]).resolve()
    stamps = build / "clang-tidy"
    stamps.mkdir(exist_ok=True)
    dependencies = project_dependencies(build, root)
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
        files = dependencies.get(entry.get("output", ""), []) or [source]
        if includes_libtorch(files):
            left_out.append(str(source.relative_to(root)))
            continue
        key = hashlib.sha256(config + entry["command"].encode())
        for path in files:
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
