#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/admin-guide.md, walked by a sysadmin from the installation to a class of students: its commands are run as they
stand, in its order, in a booted Debian with the packages, and print what it shows.

A block of `sh` is run command by command, by root, or by alice where the comment says "as any user" or "as alice". A
block of `text` behind it is what its last command prints; "…" stands for what differs, several blanks for some. The
only thing that is not as in the guide is the model: llama3-8b.gguf is the primer.
"""

import os
import re
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
sys.path.insert(0, os.path.join(HERE, "..", "systemd"))
sys.path.insert(0, HERE)
from debs import build                                                               # noqa: E402
from harness import SOURCE, Skip                                                     # noqa: E402
from machine import Stage, Unavailable                                               # noqa: E402

GUIDE = os.path.join(SOURCE, "docs", "admin-guide.md")
# What is walked elsewhere: debian-packages-cuda, where there is NVIDIA's compiler.
ELSEWHERE = {"GPUs"}

stage = Stage()
folder = None
built = {}


def sections():
    """{heading: [(language, text)]}, in the guide's order."""
    found, heading = {}, ""
    with open(GUIDE, encoding="utf-8") as f:
        text = f.read()
    for title, language, block in re.findall(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S):
        heading = title or heading
        if language:
            found.setdefault(heading, []).append((language, block))
    return found


def commands(block):
    """The commands of a block: with what is behind a backslash, and their here-documents."""
    lines, found = block.splitlines(), []
    while lines:
        command = lines.pop(0)
        if not command.strip():
            continue
        while command.endswith("\\") or command.count('"') % 2 == 1:
            command += "\n" + lines.pop(0)
        end = re.search(r"<<'(\w+)'", command)
        while end and not command.endswith("\n" + end[1]):
            command += "\n" + lines.pop(0)
        found.append(command)
    return found


def pattern(shown):
    """A regular expression for what a block of text shows."""
    lines = []
    for line in shown.rstrip("\n").splitlines():
        pieces = [re.sub(r"(\\ ){2,}", " +", re.escape(x)) for x in line.split("…")]
        lines.append(".*".join(pieces))
    return re.compile("\n".join(x + " *" for x in lines) + "\n*")


def walk(heading, languages):
    """Runs a section's blocks. @languages: those that it has, so that a new one is not passed over."""
    m = need_machine()
    blocks = sections()[heading]
    assert [x for x, _ in blocks] == languages, (heading, [x for x, _ in blocks])
    said = ""
    for language, block in blocks:
        if language == "text":
            assert pattern(block).fullmatch(said), "the guide shows\n%s\nand it says\n%s" % (block, said)
        if language != "sh":
            continue
        for command in commands(block):
            if command.startswith("packaging/"):
                continue  # done before the machine was booted
            user = "alice" if re.search(r"# as (any user|alice)", command) else None
            done = m.run("sh", "-ec", "cd /root 2>/dev/null || cd /; " + command, user=user, check=False, timeout=300)
            assert done.returncode == 0, "%s\nstatus %d\n%s%s" % (command, done.returncode, done.stdout, done.stderr)
            said = done.stdout
    return blocks


def need_machine():
    if not built:
        raise Skip("there are no packages")
    return stage.need()


# ---- cases ----

def each_section_with_commands_is_walked():
    walked = {"Install", "A model", "A class of students", "Who used what", "The journal"}
    assert set(sections()) == walked | ELSEWHERE, set(sections()) ^ (walked | ELSEWHERE)


def the_packages_install():
    built.update(build(folder))
    m = stage.need()
    os.makedirs(m.path("/root/out"))
    for path in built.values():
        shutil.copy(path, m.path("/root/out"))
    shutil.copy(os.path.join(SOURCE, "primer", "primer.gguf"), m.path("/root/llama3-8b.gguf"))
    try:
        m.boot()
    except Unavailable as e:
        stage.reason = str(e)
        raise Skip(stage.reason)
    for user in ("alice", "bob"):
        m.run("useradd", "-m", user)
    blocks = walk("Install", ["sh", "text"])
    assert commands(blocks[0][1])[0].startswith("packaging/build-deb out"), blocks[0]


def a_model_is_loaded_and_a_unit_waits_for_it():
    blocks = walk("A model", ["sh", "text", "ini"])
    m = stage.machine
    m.write("/etc/systemd/system/app.service",
            blocks[2][1] + 'Type=oneshot\nExecStart=residentctl run chat "Who are you?" -n 4\n')
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "app.service")


def what_the_text_says_in_passing_works():
    m = need_machine()
    with open(GUIDE, encoding="utf-8") as f:
        text = re.sub(r"```.*?^```$", "", f.read(), flags=re.M | re.S)
    spans = list(dict.fromkeys(re.findall(r"`((?:residentctl|resident-engine|systemctl|journalctl|getent) [^`\n]+)`", text)))
    assert len(spans) > 20, spans
    verbs = set(re.findall(r"^  ([a-z]+) ", m.run("residentctl", "--help").stdout, flags=re.M))
    for span in spans:
        words = span.split()
        if words[0] == "residentctl":
            assert words[1] in verbs, span
        if words[1] in ("edit", "mask", "stop", "load", "unload") or words[0] == "resident-engine" or "-gpu-" in span:
            continue  # asks the administrator, ends the walk, or wants a file or units that are not there
        span = span.replace("MODEL", "llama3-8b").replace("UID", "0").replace(
            "METHOD --more", "io.residentd.Models.Status")
        done = m.run("sh", "-c", span, check=False)
        assert done.returncode == 0, "%s\nstatus %d\n%s%s" % (span, done.returncode, done.stdout, done.stderr)


def a_class_asks_within_its_limits():
    walk("A class of students", ["sh", "sh", "text"])
    m = stage.machine
    refused = m.run("residentctl", "run", "chat", "Hello!", user="bob", check=False)
    assert refused.returncode == 1 and "io.residentd.N" in refused.stderr, refused
    for _ in range(25):
        done = m.run("residentctl", "run", "chat", "Hello!", "-n", "1", user="alice", check=False)
        if done.returncode != 0:
            break
    assert "io.residentd.QuotaExceeded" in done.stderr and "requests_per_minute" in done.stderr, done
    # A teacher is asked by other limits.
    m.run("usermod", "-a", "-G", "staff", "bob")
    for _ in range(25):
        m.run("residentctl", "run", "chat", "Hello!", "-n", "1", user="bob")


def who_used_what_is_in_the_file():
    walk("Who used what", ["sh", "text"])


def the_journal_has_it():
    walk("The journal", ["sh"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="residentd-guide.") as folder:
        stage.run([each_section_with_commands_is_walked, the_packages_install, a_model_is_loaded_and_a_unit_waits_for_it,
                   what_the_text_says_in_passing_works, a_class_asks_within_its_limits, who_used_what_is_in_the_file,
                   the_journal_has_it], suite=os.environ.get("RESIDENTD_SUITE", "bookworm"))
