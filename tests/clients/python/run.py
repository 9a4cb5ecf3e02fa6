"""Judges the server by real clients of rerank APIs.

    run.py list           prints each client's module, name and version as JSON, one a line
    run.py judge MODULE   has the clients of clients/MODULE.py call the servers that the environment names

Prints a line for each check, and ends with 1 if one failed. tests/tests/rerank_clients.rs starts the servers.
"""

import importlib
import ipaddress
import json
import os
import pkgutil
import sys
import traceback

import clients
import judge


def main() -> int:
    match sys.argv[1:]:
        case ["list"]:
            for module in modules():
                for client in load(module):
                    print(json.dumps({"module": module, "name": client.name, "version": client.version()}))
            return 0
        case ["judge", module]:
            sys.addaudithook(stay_on_loopback)
            return 1 if failures(module) else 0
    print(__doc__, file=sys.stderr)
    return 2


def modules() -> list[str]:
    """Those whose packages this environment has: there are two, as some packages exclude each other."""
    found = []
    for module in pkgutil.iter_modules(clients.__path__):
        try:
            load(module.name)
        except ModuleNotFoundError:
            continue
        found.append(module.name)
    return found


def load(module: str) -> list[type[judge.Client]]:
    return importlib.import_module(f"clients.{module}").CLIENTS


def failures(module: str) -> int:
    servers = judge.Servers(
        os.environ["SERVER"], os.environ["ADMIN"], os.environ["ADMIN_TOKEN"], os.environ["FAILING_SERVER"]
    )
    failed = 0
    for client in load(module):
        for name, check in judge.checks(client).items():
            try:
                check(servers)
            except Exception as error:
                failed += 1
                print(f"FAILED {client.name} {client.version()}: {name}: {error}")
                if not isinstance(error, AssertionError):
                    traceback.print_exception(error, file=sys.stdout)
            else:
                print(f"ok     {client.name} {client.version()}: {name}")
    return failed


def stay_on_loopback(event: str, arguments: tuple) -> None:
    """Nothing that a client does may need another machine: not telemetry, not lists of models."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        address = arguments[1][0]
        if not ipaddress.ip_address(address).is_loopback:
            raise ConnectionRefusedError(f"a client wants to connect to {address}")
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "localhost", "127.0.0.1"):
        raise ConnectionRefusedError(f"a client wants to know where {arguments[0]} is")


if __name__ == "__main__":
    sys.exit(main())
