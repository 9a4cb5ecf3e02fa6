"""One subject in a process of its own: reads commands from standard input, a line of JSON each, answers the same way.

    python worker.py '{"subject": "fastembed", "folder": ..}'

`{"score": REQUEST}` answers `{"scores"}`; `{"time": [REQUESTS OF A CLIENT, ..]}` runs all clients at once, each in
a thread that sends its next request when the last is answered, and answers `{"seconds": [..], "wall"}`.
What fails answers `{"error"}`.
"""

import json
import os
import resource
import sys
import threading
import time

sys.dont_write_bytecode = True
import subjects  # noqa: E402


def main():
    about = json.loads(sys.argv[1])
    # Libraries print what they like; answers have the pipe for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if about["memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (about["memory"], about["memory"]))
    try:
        connect = subjects.SUBJECTS[about["subject"]](about)
        answers.write(json.dumps({"ready": True}) + "\n")
    except Exception as error:  # the driver says what it means
        answers.write(json.dumps({"error": describe(error)}) + "\n")
        return
    for line in sys.stdin:
        try:
            answer = do(json.loads(line), connect)
        except Exception as error:
            answer = {"error": describe(error)}
        answers.write(json.dumps(answer) + "\n")


def do(command, connect):
    if "score" in command:
        return {"scores": connect()(**command["score"])}
    wanted = command["time"]
    # Connected anew, before the time begins: some servers close what was idle while others had their turn.
    return timed([connect() for _ in wanted], wanted)


def timed(clients, wanted):
    seconds, errors = [], []
    begin = threading.Barrier(len(wanted) + 1)

    def run(score, requests):
        begin.wait()
        for request in requests:
            start = time.perf_counter()
            try:
                score(**request)
            except Exception as error:
                errors.append(error)
                return
            seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(clients, wanted)]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    if errors:
        raise errors[0]
    return {"seconds": seconds, "wall": wall}


def describe(error):
    return f"{type(error).__name__}: {error}"[:300]


if __name__ == "__main__":
    main()
