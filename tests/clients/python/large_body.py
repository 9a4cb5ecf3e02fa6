"""Sends bodies that are refused before they were read, by clients that send all of them first.

Prints a line of JSON for each client: what it got where the body is too large, without a key, and on a path
that is none. tests/tests/early_refusals.rs starts the server.
"""

import json
import os
import urllib.error
import urllib.request

import httpx
import requests

SERVER = os.environ["SERVER"]
KEY = {"Authorization": f"Bearer {os.environ['SERVER_KEY']}"}
BODY = b" " * (24 << 20)

CASES = {
    "large": ("/v1/rerank", KEY),
    "no key": ("/v1/rerank", {}),
    "nowhere": ("/nowhere", KEY),
}


def by_urllib(url: str, headers: dict) -> tuple[int, str]:
    headers = headers | {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, BODY, headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def by_requests(url: str, headers: dict) -> tuple[int, str]:
    answer = requests.post(url, data=BODY, headers=headers | {"Content-Type": "application/json"})
    return answer.status_code, answer.text


def by_httpx(url: str, headers: dict) -> tuple[int, str]:
    answer = httpx.post(url, content=BODY, headers=headers | {"Content-Type": "application/json"}, timeout=60)
    return answer.status_code, answer.text


for client in [by_urllib, by_requests, by_httpx]:
    got = {"client": client.__name__}
    for case, (path, headers) in CASES.items():
        status, body = client(SERVER + path, headers)
        got[case] = {"status": status, "body": body}
    print(json.dumps(got))
