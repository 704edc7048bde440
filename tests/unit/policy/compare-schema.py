#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The published schema and the daemon's parser have to agree on what a policy is; TAP, one case a group.

compare-schema.py RESIDENTCTL SCHEMA: the schema is validated and applied by jsonschema, policies are read by
`residentctl policy check`. What only the parser can know (names that lead nowhere, users that are the same, what the
merged whole has to have, ranges of numbers that are written as texts) is left out.
"""
import concurrent.futures
import copy
import json
import subprocess
import sys
import tempfile

RESIDENTCTL, SCHEMA = sys.argv[1:]
SHA = "0123456789abcdef" * 4
WHOLE = {
    "$schema": "./policy.schema.json",
    "version": 1,
    "host": {"ram": {"budget": "80%", "reserve": "2G"}, "vram": {"budget": "90%", "devices": {"0": {"budget": "10G"}}},
             "threads": "auto", "ready": "listening", "upgrade_deadline": "10min", "maintenance": "back at noon"},
    "models": {
        "llama3-8b": {
            "path": "/var/lib/residentd/models/8b.gguf", "sha256": SHA,
            "residency": {"ram": "lock", "when": "always", "idle": "10min", "numa": "auto", "huge": "auto", "offloaded": "keep",
                          "limit": "8G"},
            "placement": {"gpu_layers": "auto", "vram": "8G", "devices": [0], "experts": "ram"},
            "context": {"tokens": 8192, "sequences": 8, "k": "q8_0", "v": "q8_0", "flash": "auto"},
            "defaults": {"temperature": 0.7, "system": "be brief", "top_k": 40, "stop": ["\n"]},
            "limits": {"max_tokens": 4096, "sequences_per_user": 2},
            "public_prefixes": ["/etc/residentd/prefix/helpdesk.txt"],
            "adapters": {"legal": "/var/lib/residentd/adapters/legal.gguf"},
            "draft": "llama3-1b", "share": {"groups": [0]}, "priority": 10,
            "allow": {"users": ["*"], "groups": [0, "0"]}, "deny": {"users": [65534]}},
        "llama3-1b": {"path": "/m/1b.gguf"}},
    "aliases": {"chat": "llama3-8b"},
    "quotas": {"default": {"concurrent": 2, "queued": 8, "requests_per_minute": 60, "tokens_per_minute": 20000,
                           "tokens_per_day": "1M", "context_tokens": 8192, "output_tokens": 2048, "kv": "512M",
                           "connections": 32, "weight": 100, "priority_max": 10},
               "groups": {"0": {"weight": 50, "total": {"tokens_per_day": "20M", "weight": 400}}},
               "users": {"0": {"weight": 200}}},
    "admins": {"users": ["root"], "groups": [0]},
}
M = "models/llama3-8b/"
# Values to put at a place, in groups; both sides have to say the same of each.
GROUPS = {
    "sizes and shares": [("host/ram/budget", v) for v in
                         ["8G", "512MiB", "1.5G", "80%", "100%", "0%", "12.5%", 0, 1 << 40, "100.1%", "101%", "-1", -1, "8X", "G", "", " 8G",
                          "8 G", 1.5, True, [], "1e3", "0x10", "%"]] +
                        [(M + "placement/vram", v) for v in ["8G", "50%", "lots"]] +
                        [(M + "residency/limit", v) for v in ["8G", "50%", 4096, "all", True, -1]] +
                        [("quotas/default/kv", v) for v in ["512M", 7, "50%", -7, "5KB", "5kB"]],
    "counts": [("quotas/default/tokens_per_day", v) for v in [0, 5, "20k", "1M", "2.5M", "1G", "1T", -1, 1.5, "k", "many", None]] +
              [("quotas/default/weight", v) for v in [1, 10000, 0, 10001, "100"]] +
              [("quotas/default/priority_max", v) for v in [-1000, 1000, 1001, "5"]],
    "durations": [("host/upgrade_deadline", v) for v in
                  [0, 60, "90s", "10min", "1h 30min", "2d", "1w", "500ms", "infinity", "1.5h", "soon", "", -1, 1.5, "10 parsecs", "min"]] +
                 [(M + "residency/idle", v) for v in ["10min", "never", None]],
    "choices": [(M + "residency/ram", v) for v in ["map", "lock", "copy", "swap", "", 1, None]] +
               [(M + "residency/when", v) for v in ["always", "on-demand", "sometimes"]] +
               [(M + "residency/huge", v) for v in ["auto", "on", "off", True]] +
               [(M + "residency/numa", v) for v in ["auto", "off", "interleave", 0, 1023, 1024, "0", -1]] +
               [(M + "residency/offloaded", v) for v in ["keep", "release", "drop"]] +
               [(M + "placement/experts", v) for v in ["auto", "ram", "vram", "disk"]] +
               [(M + "placement/gpu_layers", v) for v in ["auto", "all", 0, 65535, 65536, "some", -1]] +
               [(M + "placement/devices", v) for v in [[], [0, 1], [0, 0], [256], ["0"], 0]] +
               [(M + "context/k", v) for v in ["f32", "f16", "bf16", "q8_0", "q4_0", "q9", "F16"]] +
               [(M + "context/flash", v) for v in ["auto", "on", "off", "maybe"]] +
               [("host/ready", v) for v in ["listening", "resident", "now"]] +
               [("host/threads", v) for v in ["auto", 1, 1024, 0, 1025, "all", 1.5]],
    "numbers": [(M + "context/tokens", v) for v in [1, 1 << 28, 0, (1 << 28) + 1, "8192"]] +
               [(M + "context/sequences", v) for v in [1, 1024, 0, 1025]] +
               [(M + "limits/max_tokens", v) for v in [1, (1 << 31) - 1, 0, 1 << 31]] +
               [(M + "limits/sequences_per_user", v) for v in [1, 4096, 0, 4097]] +
               [(M + "priority", v) for v in [-1000, 1000, -1001, 1001, 0.5]] +
               [("version", v) for v in [1, 2, "1", 0]],
    "texts and paths": [(M + "path", v) for v in ["/m.gguf", "m.gguf", "", 7]] +
                       [(M + "sha256", v) for v in [SHA, SHA.upper(), SHA[:-1], SHA + "0", None]] +
                       [(M + "public_prefixes", v) for v in [[], ["/a", "/b"], ["a"], "/a", [1]]] +
                       [(M + "adapters/legal", v) for v in ["/a", "a", None, 1]] +
                       [(M + "adapters", {f"a{i}": "/a" for i in range(n)}) for n in (0, 64, 65)] +
                       [("host/maintenance", v) for v in ["", "text", None, 1]],
    "names": [("models/" + n, {"path": "/m"}) for n in ["a", "A.b_c-9", "x" * 64, "x" * 65, "a b", "é"]] +
             [("aliases/" + n, "llama3-8b") for n in ["a", "x" * 65, "a b"]] + [("aliases/a", 7)] +
             [("host/vram/devices/" + n, {"budget": "1G"}) for n in ["1", "255", "x", "1234", "-1"]],
    "users and groups": [(M + "allow", v) for v in
                         [{}, {"users": []}, {"users": ["*", 0]}, {"groups": ["0"]}, {"user": []}, [], {"users": "root"}, {"users": [-1]},
                          {"users": [1.5]}, {"users": [""]}, {"groups": [4294967294]}, {"groups": [4294967295]}, {"users": [None]}]] +
                        [("admins", v) for v in [{}, {"groups": [0]}, None, {"users": [[]]}]],
    "defaults": [(M + "defaults/" + k, v) for k, v in
                 [("temperature", 0), ("temperature", -0.1), ("temperature", "hot"), ("top_p", 1), ("top_p", 2), ("top_k", 0), ("top_k", -1),
                  ("top_k", 1.5), ("min_p", 0.05), ("seed", 5), ("stop", ["a"]), ("stop", "a"), ("system", "s"), ("system", 1), ("prompt", "x"),
                  ("max_tokens", 10), ("repeat_penalty", 1.1)]],
    "keys that are not known": [("host/threds", 2), (M + "colour", "red"), (M + "context/tokns", 1), ("quotas/default/total", {}),
                                ("quotas/groups/0/total/totals", 1), ("extra", {}), ("quotas/users/0/total", {})],
    "null removes": [("host", None), ("models", None), ("quotas", None), (M + "residency", None), ("quotas/default", None),
                     ("quotas/groups/0", None), ("host/vram/devices/0", None)],
}


def put(place, value):
    document = copy.deepcopy(WHOLE)
    at = document
    *parents, last = place.split("/")
    for key in parents:
        at = at[key]
    at[last] = value
    if document.get("models") is None or "llama3-8b" not in document["models"]:
        document["aliases"] = {}
    return document


def parser_accepts(path, document):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(document, f)
    done = subprocess.run([RESIDENTCTL, "policy", "check", path], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), done
    return done.returncode == 0, done.stderr.strip()


def main():
    try:
        import jsonschema
    except ImportError:
        print("1..0 # SKIP needs python3-jsonschema")
        return
    with open(SCHEMA, encoding="utf-8") as f:
        schema = json.load(f)
    kind = getattr(jsonschema, "Draft202012Validator")
    kind.check_schema(schema)
    validator = kind(schema)
    print(f"1..{len(GROUPS) + 1}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        groups = {"the whole": [(None, None)], **GROUPS}
        # Most of the time goes into starting programs.
        pool = concurrent.futures.ThreadPoolExecutor(4)
        answers = {(place, json.dumps(value)): pool.submit(parser_accepts, f"{folder}/{i}-{k}.json", put(place, value) if place else WHOLE)
                   for i, cases in enumerate(groups.values()) for k, (place, value) in enumerate(cases)}
        for i, (name, cases) in enumerate(groups.items(), 1):
            wrong = []
            for place, value in cases:
                document = put(place, value) if place else WHOLE
                by_schema = [e.message for e in validator.iter_errors(document)]
                accepted, why = answers[place, json.dumps(value)].result()
                if accepted == bool(by_schema):
                    wrong.append(f"{place} = {value!r}: schema {by_schema[:1]}, parser {why or 'accepts'}")
            for line in wrong:
                print("# " + line)
            print(f"{'not ok' if wrong else 'ok'} {i} - {name}", flush=True)
        sys.exit(0)


main()
