#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The messages that somebody has to act on: each has an identifier, an entry in the catalogue, and a line in the guide."""

import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import SOURCE, Skip, main                                               # noqa: E402

CATALOG = os.path.join(SOURCE, "systemd", "residentd.catalog")
JOURNALCTL = shutil.which("journalctl")


def text_of(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as f:
        return f.read()


def messages():
    """{name: identifier} of daemon/messages.h"""
    found = re.findall(r'^#define MESSAGE_(\w+) +"([0-9a-f]{32})"$', text_of("daemon", "messages.h"), flags=re.M)
    assert len(found) > 20 and len(dict(found)) == len(found), found
    return dict(found)


def entries():
    """{identifier: (headers, text)} of the catalogue"""
    found = {}
    for part in re.split(r"^-- ", text_of("systemd", "residentd.catalog"), flags=re.M)[1:]:
        head, body = part.split("\n\n", 1)
        identifier, *headers = head.split("\n")
        assert identifier not in found, identifier
        found[identifier] = (dict(h.split(": ", 1) for h in headers), body)
    return found


def calls(text):
    """The argument lists of log_line() and its like."""
    for m in re.finditer(r"\b(log_line|log_model|session_log)\(", text):
        depth, at = 1, m.end()
        while depth > 0:
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        yield text[m.end():at - 1]


def identifiers_are_random_and_different():
    values = list(messages().values())
    assert len(set(values)) == len(values)
    # Version 4, variant 1, as systemd-id128 makes them.
    assert all(v[12] == "4" and v[16] in "89ab" for v in values), values


def the_catalogue_explains_each_message():
    known, explained = set(messages().values()), set(entries())
    assert known == explained, known ^ explained
    for identifier, (headers, body) in entries().items():
        assert headers["Subject"] and headers["Defined-By"] == "residentd", identifier
        assert "Documentation" in headers and len(body.strip()) > 40, identifier
        assert set(re.findall(r"@(\w+)@", body + headers["Subject"])) <= {"RESIDENT_MODEL", "RESIDENT_UID"}, identifier


def each_message_is_used():
    source = "".join(text_of(os.path.relpath(p, SOURCE)) for p in glob.glob(os.path.join(SOURCE, "daemon", "*.c")))
    unused = [name for name in messages() if not re.search(r"\bMESSAGE_%s\b" % name, source)]
    assert not unused, unused


def warnings_and_errors_have_one():
    n, without = 0, []
    for path in sorted(glob.glob(os.path.join(SOURCE, "daemon", "*.c"))):
        for call in calls(text_of(os.path.relpath(path, SOURCE))):
            if not re.search(r"\bLOG_(WARNING|ERR|CRIT|ALERT|EMERG)\b", call):
                continue
            n += 1
            # In the call itself, or in a constant that it names.
            named = re.search(r"&(fields|failed)\b", call)
            text = text_of(os.path.relpath(path, SOURCE))
            if "MESSAGE_" not in call and not (named and re.search(
                    r"struct log_fields %s = \{[^;]*MESSAGE_" % named[1], text)):
                without.append((os.path.basename(path), call))
    assert n > 25, n
    assert not without, without


def the_guide_has_each_message():
    guide = text_of("docs", "admin-guide.md")
    missing = [name for name in messages() if not re.search(r"^\| `%s` \|" % name, guide, flags=re.M)]
    assert not missing, missing


def literal(text):
    """The string with which @text begins, in one piece or several; variables are …"""
    pieces = re.match(r'\s*((?:"(?:[^"\\]|\\.)*"\s*|PRI\w+\s*)*)', text)[1]
    whole = "".join("d" if macro else string for string, macro in re.findall(r'"((?:[^"\\]|\\.)*)"|(PRI\w+)', pieces))
    return re.sub(r"%[.*0-9]*[dus]", "…", whole).replace("….…", "…")


def reasons_against_a_gpu():
    """What status can give as the reason why a model, or more of it, is not on a GPU."""
    found = []

    def take(path, before, n_least, among=lambda x: True):
        text = text_of(*path.split("/"))
        texts = [literal(text[m.end():]) for m in re.finditer(before, text)]
        texts = [x for x in texts if x not in ("", "…") and among(x)]
        assert len(texts) >= n_least, (path, texts)
        found.extend(texts)
    take("engine/cuda/driver.c", r'FAULT_MODEL_UNAVAILABLE, "",', 9)
    take("engine/cuda/gpu-ops.c", r'FAULT_MODEL_UNAVAILABLE, "",', 1)
    take("engine/engine-gpu.c", r'FAULT_MODEL_UNAVAILABLE, "",', 1)
    take("engine/engine-devices.c", r"snprintf\(d->reason, sizeof\(d->reason\),", 2)
    take("daemon/manager-gpu.c", r"gpus_none\(&m->gpus,", 1)
    take("daemon/model-gpu.c", r"\breturn(?= \"\w)", 1)
    # Here the memory that is short is the GPU's.
    take("base/fault.c", r"case FAULT_INSUFFICIENT_MEMORY:\s+snprintf\(buffer, size,", 1)
    # Of what the planner says it is what is about one of these.
    assert 'strstr(made->reasons[i], "VRAM") || strstr(made->reasons[i], "GPU")' in text_of("daemon", "model-gpu.c")
    take("policy/plan.c", r"\bsay\(r,(?:\s*\w+\(\w+, \w+\)\s*\?)?|(?<=\")\s+: ", 5, lambda x: "VRAM" in x or "GPU" in x)
    return found


def the_guide_has_each_reason_against_a_gpu():
    section = text_of("docs", "admin-guide.md").split("\n## GPUs\n")[1].split("\n## ")[0]
    rows = [r.split(" | ")[0][2:] for r in section.splitlines() if r.startswith("| ")][1:]
    reasons = reasons_against_a_gpu()
    print("# %d reasons, %d rows" % (len(reasons), len(rows)))
    missing = [x for x in reasons if not any(x.startswith(row) for row in rows)]
    assert not missing, missing
    idle = [row for row in rows if not any(x.startswith(row) for x in reasons)]
    assert not idle, idle


def journalctl_takes_the_catalogue():
    if not JOURNALCTL:
        raise Skip("journalctl is not installed")
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.join(root, "usr", "lib", "systemd", "catalog")
        os.makedirs(folder)
        os.makedirs(os.path.join(root, "var", "lib", "systemd", "catalog"))
        shutil.copy(CATALOG, folder)
        done = subprocess.run([JOURNALCTL, "--root=" + root, "--update-catalog"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0 and not done.stdout.strip(), done.stdout
        done = subprocess.run([JOURNALCTL, "--root=" + root, "--dump-catalog"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^-- ([0-9a-f]{32})", done.stdout, flags=re.M))
    assert listed == set(messages().values()), listed ^ set(messages().values())


if __name__ == "__main__":
    main([identifiers_are_random_and_different, the_catalogue_explains_each_message, each_message_is_used,
          warnings_and_errors_have_one, the_guide_has_each_message,
          the_guide_has_each_reason_against_a_gpu, journalctl_takes_the_catalogue])
