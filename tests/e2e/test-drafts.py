#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A model with a draft model, by the policy: held together, planned together, and the answers are what they were."""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, Daemon, main, need_locking, smaps, wait_for  # noqa: E402

MAKE = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
MODELS = tempfile.TemporaryDirectory(prefix="residentd-e2e-models.")
CALLS = [{"prompt": "once upon a time", "temperature": 0, "max_tokens": 100},
         {"prompt": "a b c a b c a b c", "temperature": 0.8, "seed": 3, "max_tokens": 100}]


def model(name, *arguments):
    path = os.path.join(MODELS.name, name)
    if not os.path.exists(path):
        subprocess.run([MAKE, path, "--context", "512", *arguments], check=True, timeout=PATIENCE_S)
        os.chmod(path, 0o644)
    return path


def policy(draft=None):
    m = {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}, "context": {"tokens": 256, "sequences": 2}}
    if draft:
        m["draft"] = draft
    return {"version": 1, "host": {"ram": {"budget": "1G"}},
            "models": {"m": m, "d": {"path": "@DIR@/d.gguf", "residency": {"ram": "map", "when": "on-demand"}},
                       "other": {"path": "@DIR@/other.gguf", "residency": {"ram": "map", "when": "on-demand"}}}}


def daemon(p):
    return Daemon(p, worker=REAL_WORKER, files={
        "m.gguf": model("m.gguf"), "d.gguf": model("d.gguf", "--layers", "1", "--seed", "2"),
        "other.gguf": model("other.gguf", "--tokenizer", "gpt2")})


def size(name):
    return os.path.getsize(os.path.join(MODELS.name, name))


def answers(d):
    with d.client() as c:
        return [c.call("Inference.Complete", model="m", **call)["text"] for call in CALLS]


def a_draft_model_is_held_with_its_model_and_changes_no_answer():
    with daemon(policy()) as d:
        status = d.wait_state("ready")
        assert status["ram_mapped_bytes"] == size("m.gguf"), status
        without = answers(d)
        with d.client() as c:
            alone = c.call("Models.Plan", model="m")["plan"]
    with daemon(policy("d")) as d:
        status = d.wait_state("ready")
        assert status["ram_mapped_bytes"] == size("m.gguf") + size("d.gguf"), status
        assert answers(d) == without
        with d.client() as c:
            plan = c.call("Models.Plan", model="m")["plan"]
        assert plan["weights_ram_bytes"] == alone["weights_ram_bytes"] + size("d.gguf"), (plan, alone)
        assert plan["scratch_ram_bytes"] > alone["scratch_ram_bytes"], (plan, alone)
        assert "were planned" not in d.log(), d.log()
        assert d.status("d")["state"] == "absent"
        shown = subprocess.run([RESIDENTCTL, "--socket", d.socket, "status"], capture_output=True, text=True,
                               timeout=PATIENCE_S)
        assert shown.returncode == 0 and "DRAFTS RIGHT" in shown.stdout, shown


def a_draft_model_is_locked_with_its_model():
    need_locking(2 * (size("m.gguf") + size("d.gguf")) + (64 << 20))
    p = policy("d")
    p["models"]["m"]["residency"]["ram"] = "lock"
    with daemon(p) as d:
        status = d.wait_state("ready")
        assert status["ram_locked_bytes"] >= size("m.gguf") + size("d.gguf"), status
        # Neither the daemon's nor the worker's end would unlock it.
        for pid in (d.process.pid, status["worker_pid"]):
            for name in ("m.gguf", "d.gguf"):
                m = smaps(pid, os.path.join(d.dir, name))
                assert m["found"] and m["locked"] and m["rss"] == m["size"], (pid, name, m)


def a_draft_model_comes_and_goes_with_the_policy():
    with daemon(policy()) as d:
        first = d.wait_state("ready")["worker_pid"]
        without = answers(d)
        d.write_policy(policy("d"))
        with d.client() as c:
            c.call("Models.Reload")
        wait_for(lambda: d.status().get("worker_pid") not in (None, first) and d.status()["state"] == "ready",
                 "another worker")
        assert d.status()["ram_mapped_bytes"] == size("m.gguf") + size("d.gguf")
        assert answers(d) == without


def a_draft_model_with_another_vocabulary_is_refused():
    with daemon(policy("other")) as d:
        d.wait_state("failed")
        assert "the draft model has another vocabulary: token 0 differs" in d.status()["reason"], d.status()


main([
    a_draft_model_is_held_with_its_model_and_changes_no_answer,
    a_draft_model_is_locked_with_its_model,
    a_draft_model_comes_and_goes_with_the_policy,
    a_draft_model_with_another_vocabulary_is_refused,
])
