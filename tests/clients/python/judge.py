"""What every client is asked to do, and what must come of it.

A client is a class below `clients/`: it says which package it is, how it is pointed at a server, and what it
makes of refusals. The checks here are the same for all.
"""

import concurrent.futures
import contextlib
import importlib.metadata
import json
import socket
import time
import urllib.request
from typing import Callable, NamedTuple

QUERY = "smart watch for running"
DOCUMENTS = [
    "Cast iron pan, 28 cm, for gas and induction",
    "Smart watch with GPS for running and cycling",
    "Watch strap of brown leather",
]
BEST = 1

TOO_LONG = "watch " * 2000
"""More than the model reads: usually cut, but a client may want an error instead."""

UNKNOWN = "no-such-model"
FAULTY = "trap"
"""A policy that fails in every call."""

PATIENCE = 30.0
"""Seconds: far more than the server takes to do anything of this."""


class Result(NamedTuple):
    """One document of a ranking, as a client gives it to its caller."""

    index: int
    score: float
    text: str | None = None


class Client:
    """A client of a rerank API, as an application uses it."""

    name: str
    """As docs/clients.md calls it."""
    package: str
    """The distribution that is judged."""
    model: str | None = "rerank-v3.5"
    """The name that it sends; None if it sends none, and the default policy answers."""
    errors: dict[int, type[BaseException]]
    """What it raises where most protocols have this status: 400 for a bad request, 401 for a wrong key, 404 for
    an unknown model, 422 for a long text where it asks for an error, 424 for a policy that failed, 429 for too
    many requests."""
    says_why: bool = True
    """Whether its exceptions carry the server's words."""
    tries: int = 1
    """How often it sends a request that is refused with 429."""
    takes_top_n: bool = True
    """Whether a caller can ask for fewer documents than there are."""
    unknown_model: int = 404
    """The status for a model that does not exist."""
    asks_for_model: bool = False
    """Whether it makes sure that there is such a model before it ranks."""
    bad_request: tuple[str, list[str]] = ("", DOCUMENTS)
    """A query and documents that the server must refuse with 400."""

    def __init__(self, url: str, key: str) -> None:
        """A client of the server at `url`, such as `http://127.0.0.1:9500`, that sends this key."""
        raise NotImplementedError

    def rank(self, query: str, documents: list[str], model: str | None, top_n: int | None) -> list[Result]:
        """Ranks with as little besides as the client allows. `top_n` of None asks for all."""
        raise NotImplementedError

    rank_with_documents: Callable[[str, list[str], str | None], list[Result]] | None = None
    """Asks the server to send the documents back, where the client can ask for that."""

    rank_by_fields: Callable[[str, list[dict], str | None, list[str]], list[Result]] | None = None
    """Ranks documents of several fields by some of them, where the client can say which."""

    @classmethod
    def version(cls) -> str:
        """Of the package that is judged."""
        return importlib.metadata.version(cls.package)


class Servers(NamedTuple):
    """Where the client's own server is, the key that it asks for, its admin plane, and a server whose default
    policy fails."""

    url: str
    key: str
    admin_url: str
    admin_token: str
    failing_url: str

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        request = urllib.request.Request(f"{self.admin_url}/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    @contextlib.contextmanager
    def kept_busy(self):
        """Has a policy that never ends hold all the room there is, so that all else is refused, until the
        end or until what it gives is called."""
        host, port = self.url.removeprefix("http://").split(":")
        body = json.dumps({"query": QUERY, "documents": DOCUMENTS, "timeout_ms": 60000}).encode()
        head = (
            "POST /v1/rerank/spin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as holder:
            holder.sendall(head.encode() + body)
            self.wait_until("rerankd_admitted_requests", 1)
            yield holder.close
        self.wait_until("rerankd_admitted_requests", 0)

    def wait_until(self, metric: str, value: float) -> None:
        """Waits until a metric has this value."""
        until = time.monotonic() + PATIENCE
        while self.metric(metric) != value:
            assert time.monotonic() < until, f"not within {PATIENCE} s: {metric} is {value}"
            time.sleep(0.01)


def checks(client: type[Client]) -> dict[str, Callable[[Servers], None]]:
    """By name, everything that this client is asked to do."""
    found = {"ranking": lambda servers: check_ranking(client, servers)}
    if client.takes_top_n:
        found["top_n"] = lambda servers: check_top_n(client, servers)
    if client.rank_with_documents:
        found["documents"] = lambda servers: check_documents(client, servers)
    if client.rank_by_fields:
        found["fields"] = lambda servers: check_fields(client, servers)
    for case in client.errors:
        found[str(case)] = lambda servers, case=case: check_error(client, servers, case)
    if client.tries > 1:
        found["retry"] = lambda servers: check_retry(client, servers)
    return found


def check_ranking(client: type[Client], servers: Servers) -> None:
    results = client(servers.url, servers.key).rank(QUERY, DOCUMENTS, client.model, None)
    assert sorted(result.index for result in results) == [0, 1, 2], f"not each document once: {results}"
    assert results[0].index == BEST, f"the wrong document first: {results}"
    check_scores(results)


def check_top_n(client: type[Client], servers: Servers) -> None:
    ranker = client(servers.url, servers.key)
    everything = ranker.rank(QUERY, DOCUMENTS, client.model, None)
    for top_n in (1, 2, 3, 10):
        results = ranker.rank(QUERY, DOCUMENTS, client.model, top_n)
        assert results == everything[:top_n], f"top_n {top_n} of {everything}: {results}"


def check_documents(client: type[Client], servers: Servers) -> None:
    results = client(servers.url, servers.key).rank_with_documents(QUERY, DOCUMENTS, client.model)
    assert results[0].index == BEST, f"the wrong document first: {results}"
    check_scores(results)
    assert [result.text for result in results] == [DOCUMENTS[result.index] for result in results], f"{results}"


def check_fields(client: type[Client], servers: Servers) -> None:
    ranker = client(servers.url, servers.key)
    relevant, other = DOCUMENTS[BEST], DOCUMENTS[0]
    documents = [
        {"title": other, "text": other, "brand": other},
        {"title": relevant, "text": other, "brand": other},
        {"title": other, "text": relevant, "brand": other},
        {"title": other, "text": other, "brand": relevant},
    ]
    for best, field in enumerate(["title", "text", "brand"], start=1):
        results = ranker.rank_by_fields(QUERY, documents, client.model, [field])
        assert results[0].index == best, f"{field}: {results}"
        assert results[0].score > results[1].score, f"{field}: {results}"


def check_retry(client: type[Client], servers: Servers) -> None:
    """The server has room again after it has refused once."""
    ranker = client(servers.url, servers.key)
    before = servers.metric("rerankd_requests_total")
    with servers.kept_busy() as make_room, concurrent.futures.ThreadPoolExecutor() as caller:
        answer = caller.submit(ranker.rank, QUERY, DOCUMENTS, client.model, None)
        servers.wait_until("rerankd_requests_total", before + 1)
        make_room()
        results = answer.result()
    assert results[0].index == BEST, f"the wrong document first: {results}"


def check_scores(results: list[Result]) -> None:
    scores = [result.score for result in results]
    assert all(type(score) is float and 0.0 <= score <= 1.0 for score in scores), f"not in [0, 1]: {scores}"
    assert scores == sorted(scores, reverse=True), f"not best first: {scores}"
    assert scores[0] > scores[-1], f"all the same: {scores}"


def check_error(client: type[Client], servers: Servers, case: int) -> None:
    """Causes what usually has this status, looks at what the client raises, and counts its requests."""
    url, key, busy = servers.url, servers.key, contextlib.nullcontext()
    query, documents, model, words = QUERY, DOCUMENTS, client.model, ""
    status = case
    if case == 400:
        query, documents = client.bad_request
        words = "empty"
    elif case == 401:
        key, words = f"not-{key}", "key"
    elif case == 404:
        status = client.unknown_model
        model, words = UNKNOWN, UNKNOWN
    elif case == 424:
        words = FAULTY
        if model is None:
            url = servers.failing_url
        else:
            model = FAULTY
    elif case == 422:
        documents, words = [TOO_LONG, *DOCUMENTS], "must have less than"
    elif case == 429:
        busy = servers.kept_busy()
    else:
        raise AssertionError(f"nothing here causes a {case}")
    ranker = client(url, key)
    before = servers.metric("rerankd_requests_total")
    with busy:
        try:
            results = ranker.rank(query, documents, model, None)
        except client.errors[case] as error:
            raised = error
        else:
            raise AssertionError(f"no error, but {results}")
        sent = servers.metric("rerankd_requests_total") - before
    assert type(raised) is client.errors[case], f"{type(raised)} and not {client.errors[case]}: {raised}"
    for attribute in ("status_code", "http_status"):
        told = getattr(raised, attribute, None)
        assert told is None or told == status, f"it says {told}: {raised!r}"
    if client.says_why:
        assert words in str(raised), f"no `{words}` in what it says: {raised}"
    if url == servers.url:
        expected = {404: 0 if client.asks_for_model else 1, 429: client.tries}.get(case, 1)
        assert sent == expected, f"it sent {sent} requests, not {expected}"
