#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Adapters that the policy lists for a model: chosen by a request, held and planned with the model, and what one request
chooses is nothing to another."""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, Daemon, Refused, main, wait_for  # noqa: E402

MAKE = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
ENGINE = os.path.join(BUILD, "engine", "tool", "resident-engine")
MODELS = tempfile.TemporaryDirectory(prefix="residentd-e2e-models.")
FILES = {"m.gguf": [], "legal.gguf": ["--adapter", "8"], "poem.gguf": ["--adapter", "4", "--adapter-seed", "9"]}
PROMPT = list(range(300, 320))
N = 40


def path(name):
    p = os.path.join(MODELS.name, name)
    if not os.path.exists(p):
        subprocess.run([MAKE, p, "--context", "512", *FILES[name]], check=True, timeout=PATIENCE_S)
        os.chmod(p, 0o644)
    return p


def size(name):
    return os.path.getsize(path(name))


def policy(adapters=("legal", "poem"), **more):
    return {"version": 1, "host": {"ram": {"budget": "1G"}},
            "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                             "context": {"tokens": 256, "sequences": 4, "k": "f16", "v": "f16"},
                             "adapters": {a: f"@DIR@/{a}.gguf" for a in adapters}, **more}}}


def daemon(p):
    return Daemon(p, worker=REAL_WORKER, files={name: path(name) for name in FILES})


def ask(c, adapter=None, **more):
    return c.call("Inference.Complete", model="m", prompt_tokens=PROMPT, temperature=0, max_tokens=N,
                  **({"adapter": adapter} if adapter else {}), **more)["text"]


def expected(prompt, adapter=None):
    """The ids that the engine alone says."""
    ids = subprocess.run([ENGINE, "generate", path("m.gguf"), "--ids", " ".join(map(str, prompt)), "-n", str(N),
                          *(["--adapter", path(f"{adapter}.gguf")] if adapter else [])],
                         check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    return [int(i) for i in ids.split()]


def a_request_chooses_its_adapter():
    with daemon(policy()) as d:
        status = d.wait_state("ready")
        assert status["ram_mapped_bytes"] == sum(size(name) for name in FILES), status
        with d.client() as c:
            texts = {a: ask(c, a) for a in (None, "legal", "poem")}
            assert len(set(texts.values())) == 3, texts
            for adapter in texts:
                n = 0
                for prompt in (PROMPT, PROMPT[3:], PROMPT[:7], PROMPT[::-1]):
                    reply = c.call("Inference.Complete", model="m", prompt_tokens=prompt, temperature=0, max_tokens=N,
                                   logprobs=0, **({"adapter": adapter} if adapter else {}))
                    ids = [entry["token"] for entry in reply["logprobs"]]
                    assert ids == expected(prompt, adapter)[:len(ids)], (adapter, ids, expected(prompt, adapter))
                    n += len(ids)
                assert n > 20, n
            plan = c.call("Models.Plan", model="m")["plan"]
            assert plan["weights_ram_bytes"] == sum(size(name) for name in FILES), plan
        assert "were planned" not in d.log(), d.log()


def others_adapters_change_nothing():
    with daemon(policy()) as d:
        d.wait_state("ready")
        clients = [d.client() for _ in range(6)]
        order = [None, "legal", "poem", "legal", None, "poem"]
        alone = {a: ask(clients[0], a) for a in set(order)}
        for c, a in zip(clients, order):
            c.send("Inference.Complete", {"model": "m", "prompt_tokens": PROMPT, "temperature": 0, "max_tokens": N,
                                          **({"adapter": a} if a else {})})
        for c, a in zip(clients, order):
            assert c.receive()["parameters"]["text"] == alone[a], a
            c.close()


def only_what_the_policy_lists():
    with daemon(policy(adapters=("legal",), defaults={})) as d:
        d.wait_state("ready")
        with d.client() as c:
            for name in ("poem", "", "../legal", "/etc/passwd"):
                try:
                    c.call("Inference.Complete", model="m", prompt="x", adapter=name)
                except Refused as e:
                    assert e.error == "org.varlink.service.InvalidParameter", e
                    assert e.parameters["parameter"].startswith("adapter"), e
                else:
                    raise AssertionError(name)


def adapters_come_and_go_with_the_policy():
    with daemon(policy(adapters=())) as d:
        first = d.wait_state("ready")["worker_pid"]
        d.write_policy(policy(adapters=("poem",)))
        with d.client() as c:
            plain = ask(c)
            c.call("Models.Reload")
            wait_for(lambda: d.status().get("worker_pid") not in (None, first) and d.status()["state"] == "ready",
                     "another worker")
            assert ask(c) == plain
            assert ask(c, "poem") != plain


def a_model_is_no_adapter():
    p = policy()
    p["models"]["m"]["adapters"]["poem"] = "@DIR@/m.gguf"
    with daemon(p) as d:
        d.wait_state("failed")
        assert "adapter 2: it is no adapter" in d.status()["reason"], d.status()


def residentctl_takes_one():
    with daemon(policy()) as d:
        d.wait_state("ready")
        said = [subprocess.run([RESIDENTCTL, "--socket", d.socket, "run", "m", "once upon", "-n", "30", "--temperature",
                                "0", *more], capture_output=True, text=True, timeout=PATIENCE_S)
                for more in ([], ["--adapter", "legal"], ["--adapter", "nobody"])]
        assert said[0].returncode == said[1].returncode == 0 and said[0].stdout != said[1].stdout, said
        assert said[2].returncode == 1 and "adapter" in said[2].stderr, said[2]


main([
    a_request_chooses_its_adapter,
    others_adapters_change_nothing,
    only_what_the_policy_lists,
    adapters_come_and_go_with_the_policy,
    a_model_is_no_adapter,
    residentctl_takes_one,
])
