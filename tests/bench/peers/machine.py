"""The machine that the numbers come from, and what else it was doing."""

import datetime
import os
import pathlib
import re


def describe(repository):
    """`{name: value}`, before anything runs."""
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
    flags = set((re.search(r"^flags\s*: (.*)$", cpu, re.MULTILINE) or [None, ""])[1].split())
    features = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    physical = len(set(re.findall(r"^core id\s*: (\d+)$", cpu, re.MULTILINE)))
    logical = len(os.sched_getaffinity(0))
    fetch = (repository / "scripts" / "fetch-onnxruntime.py").read_text()
    runtime = re.search(r'^VERSION = "(.*)"$', fetch, re.MULTILINE)
    return {
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{model[1] if model else 'unknown'} ({', '.join(features)})",
        "cores": f"{logical}" + (f" ({physical} physical)" if physical != logical else ""),
        "ONNX Runtime of rerankd": runtime[1] if runtime else "unknown",
        "load average before": " ".join(f"{one:.2f}" for one in os.getloadavg()),
    }


def busy():
    """Processor time of all, and of this process's children that have ended or not, in ticks."""
    first = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, idle, wait, irq, softirq, stolen = map(int, first)
    taken = user + nice + system + irq + softirq + stolen
    return {"busy": taken, "all": taken + idle + wait, "own": own_ticks()}


def taken_by_others(before):
    """The share of all cores that processes took which are not ours, or other machines on the same hardware."""
    after = busy()
    spent = {name: after[name] - before[name] for name in before}
    return f"{100 * max(0, spent['busy'] - spent['own']) / max(1, spent['all']):.0f} %"


def own_ticks():
    """Of this process and all below it."""
    parents, ticks = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = int(stat.parent.name), stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has just ended
        parents[name], ticks[name] = int(fields[1]), sum(map(int, fields[11:15]))

    def is_ours(process):
        while process in parents:
            if process == os.getpid():
                return True
            process = parents[process]
        return False

    return sum(count for process, count in ticks.items() if is_ours(process))
