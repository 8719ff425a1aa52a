"""What a measurement ran on."""

import os
import pathlib
import re


def describe() -> dict:
    info = pathlib.Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^flags\s*: (.*)$", info, re.MULTILINE).group(1).split())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)
    return {
        "cpu": re.search(r"^model name\s*: (.*)$", info, re.MULTILINE).group(1),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20),
        "instruction_set": next(
            (name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "baseline"
        ),
    }
