#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""200 clients of 20 users for five minutes: prompts of all lengths, cancelled calls, slow readers, clients that are
killed. Every answer is the one that a quiet service gave, and afterwards nothing is left of them: no request, page,
connection or descriptor, and no memory.

RESIDENTD_LOAD_S is how long it lasts, in seconds."""

import collections
import os
import pwd
import random
import re
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (REAL_WORKER, SOURCE, Client, Daemon, Refused, as_user, join_user, main, n_fds,  # noqa: E402
                     need_root, open_proc, private_bytes, wait_for)

SECONDS = float(os.environ.get("RESIDENTD_LOAD_S", "300"))
MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
N_USERS, N_CLIENTS, N_QUESTIONS = 20, 10, 150
# What may be answered to a client that asks too much, and while a worker is replaced because the machine stood still.
TRY_AGAIN = {"io.residentd.QuotaExceeded", "io.residentd.QueueFull", "io.residentd.ModelUnavailable"}
# Heaps keep some of what they had; in the worker a leak of 100 bytes a request would be more than this.
SLACK_BYTES = 3 << 20
DAEMON_SLACK_BYTES = 1 << 20


def questions():
    r = random.Random(11)
    shared = [r.randrange(300, 500) for _ in range(200)]
    made = []
    for _ in range(N_QUESTIONS):
        tokens = [r.randrange(300, 500) for _ in range(r.choice([1, 5, 20, 60, 150, 300]))]
        # Some begin alike: their beginnings are reused.
        tokens = shared[:r.choice([40, 100, 200])] + tokens if r.random() < 0.4 else tokens
        made.append({"prompt_tokens": tokens, "max_tokens": r.choice([1, 4, 16, 50, 120]), "seed": r.randrange(1000),
                     "temperature": r.choice([0, 0.8, 1.2])})
    return made


def connect(path):
    """As patient as the service: on a loaded machine a slow answer is none that is missing."""
    client = Client(path)
    client.socket.settimeout(None)
    return client


def pieces(client, question):
    return client.stream("Inference.Complete", model="m", **question)


class Clients:
    """Ten clients of one user, as threads of its process."""

    def __init__(self, path, uid, asked, answers, seconds):
        self.path, self.uid, self.asked, self.answers = path, uid, asked, answers
        self.end = time.monotonic() + seconds
        self.counts = collections.Counter()
        self.wrong = []

    def whole(self, client, r, slow=False):
        i = r.randrange(len(self.asked))
        text, n_said = "", 0
        for piece in pieces(client, self.asked[i]):
            text += piece["text"]
            if slow:
                time.sleep(r.uniform(0, 0.05))
            if piece.get("done"):
                n_said = piece["usage"]["output_tokens"]
        if [text, n_said] != self.answers[i]:
            self.wrong.append([self.uid, i, text, self.answers[i]])

    def slow(self, client, r):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        self.whole(client, r, slow=True)

    def hang_up(self, client, r):
        """The connection is closed somewhere on the way."""
        for n, piece in enumerate(pieces(client, r.choice(self.asked))):
            if n >= r.randrange(8):
                break
        client.close()

    def cancel(self, client, r):
        """Its own request is cancelled on another connection."""
        request = None
        try:
            for piece in pieces(client, r.choice(self.asked)):
                if request is None and piece.get("request"):
                    request = piece["request"]
                    self.cancel_one(request)
        except Refused as e:
            if e.error != "io.residentd.Cancelled":
                raise

    def cancel_one(self, request):
        with connect(self.path) as other:
            try:
                other.call("Usage.Cancel", request=request)
            except Refused as e:
                # It has ended meanwhile.
                assert e.error == "io.residentd.NoSuchRequest", e

    def killed(self, client, r):
        """A process that dies at any moment of its call."""
        question = r.choice(self.asked)
        pid = os.fork()
        if pid == 0:
            try:
                with connect(self.path) as c:
                    for _ in pieces(c, question):
                        pass
            finally:
                os._exit(0)
        time.sleep(r.uniform(0, 0.5))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def one(self, i):
        r = random.Random(1000 * self.uid + i)
        client = connect(self.path)
        while time.monotonic() < self.end:
            what = r.choices([self.whole, self.slow, self.hang_up, self.cancel, self.killed], [60, 8, 12, 12, 8])[0]
            try:
                what(client, r)
                self.counts[what.__name__] += 1
            except Refused as e:
                self.counts[e.error] += 1
                if e.error in TRY_AGAIN:
                    time.sleep(min(e.parameters.get("retry_after_ms") or 300, 2000) / 1000)
                else:
                    raise
            if what == self.hang_up or r.random() < 0.1:
                client.close()
                client = connect(self.path)
        client.close()

    def guarded(self, i):
        try:
            self.one(i)
        except BaseException as e:  # the parent shows it
            self.wrong.append([self.uid, i, repr(e), ""])

    def run(self):
        threads = [threading.Thread(target=self.guarded, args=(i,)) for i in range(N_CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return {"counts": self.counts, "wrong": self.wrong[:5]}


def figures(d):
    """What the service and the kernel say of what is held."""
    with d.client() as c:
        status = c.call("Models.Status")
        metrics = c.call("Models.Metrics")["text"]
        requests = c.call("Usage.Requests")["requests"]
    worker = status["models"][0]["worker_pid"]
    held = {"requests": len(requests), "users": [(u["uid"], u["connections"], u["requests"]) for u in status["users"]]}
    for line in metrics.splitlines():
        name = re.match(r'residentd_(user_(requests|kv)_\w+|model_(kv_bytes|sequences_active|kv_pages{model="m",use="running"}))', line)
        if name:
            held[name[1]] = held.get(name[1], 0) + int(line.split()[-1])
    for name, pid in (("daemon", d.process.pid), ("worker", worker)):
        held[name + "_fds"] = n_fds(pid)
        with open_proc(pid, "status") as f:
            held[name + "_threads"] = int(re.search(r"Threads:\s*(\d+)", f.read())[1])
    ended = int(re.search(r'residentd_model_requests_total{model="m"} (\d+)', metrics)[1])
    return held, {"daemon": private_bytes(d.process.pid), "worker": private_bytes(worker)}, worker, ended


def load(d, asked, answers, seconds):
    users = [u.pw_uid for u in sorted(pwd.getpwall(), key=lambda u: u.pw_uid) if 0 < u.pw_uid < 65534][:N_USERS - 1]
    # Root is one of them; a machine that knows fewer than twenty has some of them more often.
    users = (users + [0] + users)[:N_USERS]
    handles = [as_user(uid, Clients(d.socket, uid, asked, answers, seconds).run) for uid in users]
    counts, wrong = collections.Counter(), []
    for handle in handles:
        result = join_user(handle)
        counts.update(result["counts"])
        wrong += result["wrong"]
    assert not wrong, wrong[:5]
    return counts


def settled(d, before):
    """The same figures as before the load, as soon as the last connections are gone."""
    now = None

    def same():
        nonlocal now
        now = figures(d)[0]
        return now == before
    try:
        wait_for(same, "what the clients held to be given back")
    except AssertionError:
        raise AssertionError({k: (before[k], now[k]) for k in before if before[k] != now.get(k)}) from None


def test_nothing_is_left_of_a_load():
    need_root()
    policy = {"version": 1, "host": {"ram": {"budget": "2G"}},
              "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                               "context": {"tokens": 1024, "sequences": 8}}},
              # Fewer than clients of a user: some of them wait in the service, some are refused.
              "quotas": {"default": {"concurrent": 6, "queued": 3}}, "admins": {"users": ["root"]}}
    with Daemon(policy, worker=REAL_WORKER, files={"m.gguf": MODEL}, arguments=["--log-level", "notice"]) as d:
        d.wait_state("ready")
        asked, answers = questions(), []
        with d.client() as c:
            for question in asked:
                text, last = "", None
                for last in pieces(c, question):
                    text += last["text"]
                answers.append([text, last["usage"]["output_tokens"]])
        before = figures(d)[0]
        # The first load makes caches, arenas and tables as large as they get.
        load(d, asked, answers, max(10, SECONDS / 10))
        settled(d, before)
        _, memory, worker, ended = figures(d)
        counts = load(d, asked, answers, SECONDS)
        settled(d, before)
        _, memory_after, worker_after, ended_after = figures(d)
        print(f"# {dict(counts)}, {ended_after - ended} requests ended")
        print(f"# bytes of its own before and after: daemon {memory['daemon']} {memory_after['daemon']}, "
              f"worker {memory['worker']} {memory_after['worker']}")
        assert memory_after["daemon"] - memory["daemon"] < DAEMON_SLACK_BYTES, (memory, memory_after)
        if counts["io.residentd.ModelUnavailable"] == 0:
            assert worker == worker_after
            assert memory_after["worker"] - memory["worker"] < SLACK_BYTES, (memory, memory_after)
        for kind in ("whole", "slow", "hang_up", "cancel", "killed"):
            assert counts[kind] > 0, counts


if __name__ == "__main__":
    main([test_nothing_is_left_of_a_load])
