"""The processes of a run: the servers that are compared, and a worker for each subject."""

import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
WORKER = pathlib.Path(__file__).with_name("worker.py")
LIGHT = REPOSITORY / ".venv" / "peers" / "bin"
TORCH = REPOSITORY / ".venv" / "peers-torch" / "bin"
START_SECONDS = 120
# Nothing may hold what it knows from an earlier request; older binaries have no such flags.
WITHOUT_CACHES = ("--row-cache-mib", "--encoding-cache-mib")


class BenchError(Exception):
    """Something did not work. The text is for a person."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the comparison."""

    name: str
    subject: str  # of subjects.py
    precision: str
    title: str  # for tables
    bin: pathlib.Path = LIGHT
    more: tuple = ()


# rerankd's own are first of their precision: the others' scores are compared with theirs.
ENTRIES = (
    Entry("rerankd-fp32", "rerankd", "fp32", "rerankd, HTTP"),
    Entry("rerankd-int8", "rerankd", "int8", "rerankd, HTTP"),
    Entry("fastembed-fp32", "fastembed", "fp32", "fastembed"),
    Entry("fastembed-int8", "fastembed", "int8", "fastembed"),
    Entry("flashrank-fp32", "flashrank", "fp32", "FlashRank"),
    Entry("flashrank-int8", "flashrank", "int8", "FlashRank"),
    Entry("sentence-transformers-torch", "sentence-transformers", "fp32", "sentence-transformers, PyTorch", TORCH,
          (("backend", "torch"),)),
    Entry("sentence-transformers-fp32", "sentence-transformers", "fp32", "sentence-transformers, ONNX", TORCH,
          (("backend", "onnx"),)),
    Entry("sentence-transformers-int8", "sentence-transformers", "int8", "sentence-transformers, ONNX", TORCH,
          (("backend", "onnx"),)),
    # Its ONNX engine (0.0.78) drops the segment ids that this kind of model needs: other scores, so not comparable.
    Entry("infinity-torch", "infinity", "fp32", "infinity-emb, PyTorch, HTTP", TORCH),
    Entry("row-scheduling-fp32", "row-scheduling", "fp32", "rows on bare ONNX Runtime"),
    Entry("row-scheduling-int8", "row-scheduling", "int8", "rows on bare ONNX Runtime"),
)  # fmt: skip


def torch_weights(folder):
    """Has the folder's weights written as PyTorch reads them, where PyTorch is."""
    if (TORCH / "python").exists():
        script = str(WORKER.with_name("torch_weights.py"))
        subprocess.run([str(TORCH / "python"), script, str(folder)], check=True)


def start_all(work, folders, only, until_end):
    """Starts every subject whose packages are there. Returns them, and what is missing as `{title: reason}`."""
    torch_weights(folders["fp32"])
    subjects, missing = [], {}
    for entry in ENTRIES:
        if only and entry.name not in only and entry.subject != "rerankd":
            continue
        if not (entry.bin / "python").exists():
            missing[entry.title] = f"{entry.bin.parent.relative_to(REPOSITORY)} is not there"
            continue
        about = {
            "subject": entry.subject,
            "precision": entry.precision,
            "folder": str(folders[entry.precision]),
            "threads": cores(),
            **dict(entry.more),
        }
        server = None
        try:
            if entry.subject == "rerankd":
                server, about["url"] = start_rerankd(work, entry.precision, until_end)
            elif entry.subject == "infinity":
                server, about["url"], about["model"] = start_infinity(work, entry.precision, folders, until_end)
            subjects.append(Subject(entry, about, server, work, until_end))
            print(f"  {entry.name} is ready", file=sys.stderr, flush=True)
        except BenchError as error:
            if entry.subject == "rerankd":
                raise
            missing[f"{entry.title}, {entry.precision}"] = str(error)
    return subjects, missing


class Subject:
    """A worker, and what it was told to be."""

    def __init__(self, entry, about, server, work, until_end):
        self.name, self.precision = entry.name, entry.precision
        self.title = entry.title
        # An embedding process that pads without bound must not take the machine with it.
        about = {"memory": 0 if server else total_memory() // 2, **about}
        self.log = work / f"{self.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(entry.bin / "python"), str(WORKER), json.dumps(about)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=str(work),
                env=environment(),
                text=True,
            )
        self.server = server or self.process
        until_end.callback(stop, self.process)
        ready = self.read()
        if "error" in ready:
            raise BenchError(ready["error"])

    def scores(self, request):
        answer = self.ask({"score": request})
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer["scores"]

    def time(self, wanted):
        return self.ask({"time": wanted})

    def ask(self, command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except OSError:
            return {"error": "its process has ended"}
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"its process has ended: {last_line(self.log)}"}

    def peak_mebibytes(self):
        """Of the process that holds the model."""
        try:
            status = pathlib.Path(f"/proc/{self.server.pid}/status").read_text()
        except OSError:
            return None
        peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(peak[0]) / 1024 if peak else None


def start_rerankd(work, precision, until_end):
    binary = REPOSITORY / "target" / "release" / "rerankd"
    data = work / f"data-{precision}"
    data.mkdir(parents=True, exist_ok=True)
    usage = subprocess.run([str(binary), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    flags = [word for flag in WITHOUT_CACHES if flag in usage for word in (flag, "0")]
    address, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [str(binary), "serve", "--listen", address, "--admin-listen", admin, "--data-dir", str(data)]
    command += ["--policies", str(policy_folder(work))]
    command += ["--bind-model", f"cross-encoder.cross-encoder=bench-cross-encoder-{precision}"]
    # Nobody's time ends here, as the peers know no deadline.
    command += ["--timeout-ms", "60000", "--max-timeout-ms", "60000", "--log", "error", *flags]
    server = start(command, work / f"server-rerankd-{precision}.log", until_end)
    wait_until_ready(server, address, "/health", work / f"server-rerankd-{precision}.log")
    return server, address


def policy_folder(work):
    """The bundled policy that runs pairs, without its cases: under a random head some of them must fail."""
    folder = work / "policies"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPOSITORY / "guest/dist/policies/cross-encoder.wasm", folder / "cross-encoder.wasm")
    (folder / "cross-encoder.cases.json").write_text('{"cases": []}', encoding="utf-8")
    return folder


def start_infinity(work, precision, folders, until_end):
    port = free_port()
    folder = folders[precision]
    log = work / f"server-infinity-{precision}.log"
    command = [str(TORCH / "infinity_emb"), "v2", "--model-id", str(folder), "--served-model-name", folder.name]
    command += ["--engine", "torch", "--no-model-warmup", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    server = start(command, log, until_end)
    wait_until_ready(server, f"127.0.0.1:{port}", "/health", log)
    return server, f"127.0.0.1:{port}", folder.name


def start(command, log, until_end):
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=str(REPOSITORY), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment()
        )
    until_end.callback(stop, server)
    return server


def wait_until_ready(server, address, path, log):
    # No proxy from the environment may stand between this and loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and server.poll() is None:
        try:
            with opener.open(f"http://{address}{path}", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise BenchError(f"the server did not start: {last_line(log)}")


def environment():
    """No peer looks for models or news on the network, and none is told how many threads to take."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "RERANKD_"))}
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return {**known, **offline, "CUDA_VISIBLE_DEVICES": ""}


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def last_line(log):
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def cores():
    return len(os.sched_getaffinity(0))


def total_memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
