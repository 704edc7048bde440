#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ledger and the quotas that lean on it, with real files, users and kill -9."""

import os
import pwd
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *  # noqa: E402,F403

ALICE, BOB = 1, 2  # any that the user database knows
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
KILLS = 100 if os.environ.get("RESIDENTD_SLOW") else 5


def read(d, question, *values, dir=None):
    with sqlite3.connect(f"file:{os.path.join(dir or d.dir, 'usage.sqlite')}?mode=ro", uri=True) as db:
        return db.execute(question, values).fetchall()


def admin_status(d):
    with d.client() as c:
        return c.call("Models.Status")


def a_finished_request_is_in_the_ledger_by_uid_model_and_hour():
    need_root()
    with one_model() as d:
        d.wait_state("ready")

        def ask():
            with d.client() as c:
                return c.complete("count 3")[1]["finish"]
        before = time.time()
        assert [run_as(ALICE, ask), run_as(ALICE, ask), run_as(BOB, ask)] == ["length"] * 3
        rows = read(d, "SELECT uid, model, requests, prompt_tokens, output_tokens FROM usage ORDER BY uid")
        assert rows == [(ALICE, "m", 2, 2, 6), (BOB, "m", 1, 1, 3)], rows
        (hour,), = read(d, "SELECT DISTINCT hour FROM usage")
        assert before - 3600 < hour <= time.time() and hour % 900 == 0, hour
        assert admin_status(d)["ledger"] == {"state": "ok", "unwritten": 0, "lost": 0}


def a_cancelled_request_counts_what_it_has_used():
    with one_model() as d:
        d.wait_state("ready")
        c = d.client()
        stream = c.stream("Inference.Complete", model="m", prompt="count 1000")
        for _ in range(5):
            next(stream)
        c.close()
        wait_for(lambda: read(d, "SELECT sum(requests) FROM usage") == [(1,)], "the cancelled request's record")
        (n_output,), = read(d, "SELECT output_tokens FROM usage")
        assert 4 <= n_output < 1000, n_output


class Load:
    """Clients that ask one request after another until the daemon is gone, and remember which ones they saw finished."""

    def __init__(self, d, n_clients):
        self.d, self.stop = d, False
        self.finished, self.begun = [], 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(n_clients)]
        for t in self.threads:
            t.start()

    def run(self):
        while not self.stop:
            try:
                with self.d.client() as c:
                    while not self.stop:
                        with self.lock:
                            self.begun += 1
                        _, last = c.complete("one piece")
                        with self.lock:
                            self.finished.append(last["request"])
            except (OSError, EOFError, Refused):
                time.sleep(0.002)

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()


def kill_9_loses_no_finished_request_and_counts_none_twice():
    rng = random.Random(20261126)
    n_seen = n_begun = n_kills = 0
    d = one_model()
    try:
        # On a loaded machine a life may be too short for any request: then there are more of them.
        while n_kills < KILLS or (n_seen <= 2 * KILLS and n_kills < 10 * KILLS):
            d.start()
            load = Load(d, 4)
            time.sleep(rng.uniform(0.02, 0.25))
            d.kill()
            n_kills += 1
            load.end()
            n_seen += len(load.finished)
            n_begun += load.begun
            # Each life of the daemon numbers its requests from 1, under an epoch of its own, and epochs rise. One that
            # ended before it recorded anything has none.
            epochs = [e for e, in read(d, "SELECT DISTINCT epoch FROM recorded ORDER BY epoch")]
            there = {r for r, in read(d, "SELECT request FROM recorded WHERE epoch = ?", epochs[-1])} if epochs else set()
            assert set(load.finished) <= there, (n_kills, set(load.finished) - there)
            assert len(load.finished) == len(set(load.finished))
        (n_requests, n_prompt), = read(d, "SELECT sum(requests), sum(prompt_tokens) FROM usage")
        (n_recorded,), = read(d, "SELECT count(*) FROM recorded")
        assert n_requests == n_recorded and n_seen <= n_requests <= n_begun, (n_seen, n_requests, n_recorded, n_begun)
        assert read(d, "PRAGMA integrity_check") == [("ok",)]
        assert n_seen > 2 * KILLS, n_seen  # else nothing was tested
        print(f"# {n_kills} kills, {n_seen} requests seen finished, {n_requests} in the ledger, {n_begun} begun")
    finally:
        d.process.poll() is None and d.process.kill()
        d.process.wait()
        shutil.rmtree(d.dir)


def a_full_disk_keeps_nobody_from_an_answer():
    need_root()
    d = one_model({"users": {pwd.getpwuid(ALICE).pw_name: {"tokens_per_day": 100}}})
    state = os.path.join(d.dir, "state")
    os.mkdir(state)
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", state], capture_output=True)
    if r.returncode != 0:
        d.__exit__(True)
        raise Skip("may not mount here")
    d.arguments += ["--state", state]
    try:
        with d:
            d.wait_state("ready")

            def ask():
                with d.client() as c:
                    return c.complete("count 3", max_tokens=3)[1]["finish"]
            assert run_as(ALICE, ask) == "length"
            assert admin_status(d)["ledger"]["state"] == "ok"
            with open(os.path.join(state, "filler"), "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"x" * 4096)
                except OSError:
                    pass
            # The log has pages left from before; they are used up by and by.
            n_answers = 1

            def is_degraded():
                nonlocal n_answers
                with d.client() as c:
                    c.complete("count 1", max_tokens=1)
                n_answers += 1
                return admin_status(d)["ledger"]["state"] == "degraded"
            wait_for(is_degraded, "the disk to be full")
            status = admin_status(d)["ledger"]
            assert "full" in status["reason"] and status["unwritten"] > 0, status
            assert "can't be written" in d.log()
            # Quotas hold on: what was used before and since counts.
            for _ in range(30):
                try:
                    run_as(ALICE, ask)
                except Refused as e:
                    assert e.error == "io.residentd.QuotaExceeded" and e.parameters["quota"] == "tokens_per_day", e
                    break
                n_answers += 1
            else:
                raise AssertionError("the quota of the day was forgotten")
            os.unlink(os.path.join(state, "filler"))
            wait_for(lambda: admin_status(d)["ledger"] == {"state": "ok", "unwritten": 0, "lost": 0}, "the ledger")
            assert read(d, "SELECT sum(requests) FROM usage", dir=state) == [(n_answers,)]
            assert "is written again" in d.log()
    finally:
        subprocess.run(["umount", "-l", state])


def a_damaged_file_is_set_aside_and_that_is_said():
    with one_model() as d:
        d.wait_state("ready")
        with d.client() as c:
            c.complete("one")
        d.kill()
        for name in ("usage.sqlite", "usage.sqlite-wal"):
            with open(os.path.join(d.dir, name), "r+b") as f:
                f.write(b"nonsense" * 512)
        d.start()
        d.wait_state("ready")
        with d.client() as c:
            assert c.complete("two")[0] == "two"
        ledger = admin_status(d)["ledger"]
        assert ledger["state"] == "degraded" and "what was used today before" in ledger["reason"], ledger
        assert os.path.exists(ledger["set_aside"]) and ledger["set_aside"] in d.log(), ledger
        assert read(d, "SELECT sum(requests) FROM usage") == [(1,)]
        shown = subprocess.run([RESIDENTCTL, "--socket", d.socket, "status"], capture_output=True, text=True).stdout
        assert f"Ledger: degraded: {ledger['reason']}; the old file is {ledger['set_aside']}" in shown, shown


def users_hear_of_the_ledger_only_how_it_is():
    need_root()
    with one_model() as d:
        def ask():
            with d.client() as c:
                return c.call("Models.Status")["ledger"]
        assert run_as(ALICE, ask) == {"state": "ok"}


if __name__ == "__main__":
    main([a_finished_request_is_in_the_ledger_by_uid_model_and_hour,
          a_cancelled_request_counts_what_it_has_used,
          kill_9_loses_no_finished_request_and_counts_none_twice,
          a_full_disk_keeps_nobody_from_an_answer,
          a_damaged_file_is_set_aside_and_that_is_said,
          users_hear_of_the_ledger_only_how_it_is])
