#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Models.Watch and Models.Metrics: what is going on, to those whom it concerns."""

import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *  # noqa: E402,F403

ALICE, BOB = 1, 2
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")


def daemon(**more):
    return Daemon({"version": 1, **more,
                   "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}},
                              "secret": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "on-demand"},
                                         "allow": {"users": ["root"]}}}},
                  files={"m.gguf": b"x" * 4096})


def watch_tells_of_requests_as_they_come_run_and_go():
    with daemon() as d:
        d.wait_state("ready")
        with d.client() as watcher, d.client() as c:
            pieces = watcher.stream("Models.Watch")
            first = next(pieces)
            assert {m["name"]: m["state"] for m in first["models"]} == {"m": "ready", "secret": "absent"}, first
            assert first["requests"] == [], first
            answer = c.stream("Inference.Complete", model="m", prompt="count 60", app="editor")
            next(answer)
            seen = []
            begin = time.monotonic()
            while not seen or seen[-1]["requests"]:
                seen.append(next(pieces))
                if time.monotonic() - begin > 0.6:
                    list(answer)
            tokens = [p["requests"][0]["output_tokens"] for p in seen if p["requests"]]
            assert tokens == sorted(tokens) and len(set(tokens)) > 1, seen
            request = seen[0]["requests"][0]
            assert (request["uid"], request["app"], request["model"]) == (os.getuid(), "editor", "m"), request
            later = [p["requests"][0] for p in seen if p["requests"] and p["requests"][0]["output_tokens"] > 5]
            rates = [q.get("decode_tps") for q in later]
            assert rates and all(r and 1 < r < 100 for r in rates), seen
            # A few times a second, not at each of the 60 pieces.
            assert len(seen) < 30, len(seen)


def watch_tells_of_models_that_change():
    need_root()
    with daemon() as d:
        d.wait_state("ready")
        with d.client() as watcher, d.client() as c:
            pieces = watcher.stream("Models.Watch")
            next(pieces)
            c.call("Models.Unload", model="m")
            while [m for m in next(pieces)["models"] if m["name"] == "m"][0]["state"] != "absent":
                pass


def watch_shows_others_only_to_administrators():
    need_root()
    with daemon() as d:
        d.wait_state("ready")

        def run():
            with d.client() as c:
                return c.complete("count 40")[1]["finish"]
        running = as_user(ALICE, run)

        def look():
            with d.client() as c:
                return next(c.stream("Models.Watch"))
        wait_for(lambda: run_as(ALICE, look)["requests"], "one's own request to show")
        assert [r["uid"] for r in look()["requests"]] == [ALICE]
        seen = run_as(BOB, look)
        assert seen["requests"] == [] and [m["name"] for m in seen["models"]] == ["m"], seen
        assert "kv_bytes" not in seen["models"][0] and "sequences_active" not in seen["models"][0], seen
        join_user(running)


def watch_needs_more():
    with daemon() as d, d.client() as c:
        try:
            c.call("Models.Watch")
            raise AssertionError("not refused")
        except Refused as e:
            assert e.error == "org.varlink.service.ExpectedMore", e


def metrics(d, uid=0):
    def go():
        with d.client() as c:
            return c.call("Models.Metrics")["text"]
    return go() if uid == 0 else run_as(uid, go)


def samples(text):
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            key, value = line.rsplit(" ", 1)
            assert key not in found, key
            found[key] = float(value)
    return found


def metrics_count_what_was_done():
    need_root()
    with daemon() as d:
        d.wait_state("ready")

        def ask():
            with d.client() as c:
                return c.complete("count 3")[1]["finish"]
        run_as(ALICE, ask)
        run_as(BOB, ask)
        found = samples(metrics(d))
        assert found['residentd_model_requests_total{model="m"}'] == 2
        assert found['residentd_model_tokens_total{model="m",kind="output"}'] == 6
        assert found['residentd_model_state{model="m",state="ready"}'] == 1
        assert found['residentd_model_kv_pages{model="m",use="all"}'] == 64
        assert found['residentd_model_kv_pages{model="m",use="kept"}'] == 5
        assert found['residentd_model_kv_pages{model="m",use="running"}'] == 0  # both are done
        assert found[f'residentd_user_tokens_today{{uid="{ALICE}"}}'] == 4
        assert found["residentd_ledger_ok"] == 1
        # Alice learns nothing of Bob, nor of models that are not for her.
        own = metrics(d, ALICE)
        assert f'uid="{BOB}"' not in own and "secret" not in own and "requests_total" not in own, own
        assert samples(own)[f'residentd_user_tokens_today{{uid="{ALICE}"}}'] == 4


def metrics_are_well_formed_and_documented():
    need_root()
    with daemon() as d:
        d.wait_state("ready")
        shown = subprocess.run([RESIDENTCTL, "--socket", d.socket, "metrics"], check=True, capture_output=True,
                               text=True).stdout
        lines = shown.splitlines()
        assert lines[-1] == "# EOF" and shown.endswith("\n")
        types, names, family = {}, {}, None
        for line in lines[:-1]:
            if line.startswith("# TYPE "):
                family, kind = line.split()[2:]
                assert family not in types, family  # a family stands together
                types[family] = kind
            elif line.startswith("# HELP "):
                assert line.split()[2] == family
            else:
                name, labels = re.fullmatch(r'(\w+)(?:\{(.*)\})? [0-9.]+', line).groups()
                assert name == family + {"counter": "_total", "info": "_info", "gauge": ""}[types[family]], line
                names[name] = (types[family], re.findall(r'(\w+)="[^"\\]*"', labels or ""))
        with open(os.path.join(SOURCE, "docs", "metrics.md")) as f:
            rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", f.read(), re.M)
        # Those of GPUs are there where GPUs are: test-gpu.py.
        documented = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows
                      if "`device`" not in labels}
        assert documented == names, (set(documented) ^ set(names), documented, names)


if __name__ == "__main__":
    main([watch_tells_of_requests_as_they_come_run_and_go,
          watch_tells_of_models_that_change,
          watch_shows_others_only_to_administrators,
          watch_needs_more,
          metrics_count_what_was_done,
          metrics_are_well_formed_and_documented])
