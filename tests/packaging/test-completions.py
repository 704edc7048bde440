#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the shells themselves complete, with the real residentctl and a daemon that has two models."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import BUILD, SOURCE, Daemon, Skip, main                                # noqa: E402

RESIDENTCTL = os.path.abspath(os.path.join(BUILD, "client", "residentctl", "residentctl"))
COMPLETIONS = os.path.join(SOURCE, "packaging", "completions")
POLICY = {"version": 1, "models": {name: {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "on-demand"}}
                                   for name in ("alpha", "beta-7b")}}

# Sourced as bash-completion does; the words are what readline would have made of the line.
BASH = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_residentctl
printf '%s\n' "${COMPREPLY[@]}"
"""

# A shell on a pseudo-terminal; what it would offer is caught where it is added.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1= PROMPT=; unsetopt zle_bracketed_paste 2>/dev/null; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell 'compadd() { if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)* ]]; then builtin compadd "$@"; return; fi; local -a hits; builtin compadd -A hits "$@"; print -l -- $hits >> $HITS; builtin compadd "$@" }'
zpty -w shell 'zle -C offer complete-word offer; offer() { unset "compstate[list]"; _main_complete; compstate[insert]=; compstate[list]=; print -- END-OF-OFFER >> $HITS }; bindkey "^I" offer'
zpty -n -w shell "$2"$'\t'
for ((i = 0; i < 200; i++)); do
    grep -q END-OF-OFFER $HITS 2>/dev/null && break
    sleep 0.05
done
zpty -d shell
cat $HITS
"""


def complete(shell, line, daemon=None):
    if not shutil.which(shell):
        raise Skip(shell + " is not installed")
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PATH": os.path.abspath(os.path.dirname(RESIDENTCTL)) + ":" + os.environ["PATH"],
               "HOME": folder, "XDG_CONFIG_HOME": folder, "HITS": os.path.join(folder, "hits"), "TERM": "dumb",
               "RESIDENTD_SOCKET": daemon.socket if daemon else os.path.join(folder, "none")}
        if shell == "bash":
            command = ["bash", "-c", BASH, "bash", COMPLETIONS + "/residentctl.bash", *line.split(" ")]
        elif shell == "fish":
            command = ["fish", "-c", "source $argv[1]; complete -C $argv[2]", COMPLETIONS + "/residentctl.fish", line]
        else:
            command = ["zsh", "-f", "-c", ZSH, "zsh", COMPLETIONS, line]
        done = subprocess.run(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=30)
    return {word.split("\t")[0] for word in done.stdout.splitlines()} - {"", "END-OF-OFFER"}


def help_text():
    return subprocess.run([RESIDENTCTL, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout


def verbs_are_those_of_help(shell):
    verbs = set(re.findall(r"^  ([a-z]+) ", help_text(), flags=re.M))
    assert len(verbs) > 15 and complete(shell, "residentctl ") == verbs, verbs ^ complete(shell, "residentctl ")
    assert complete(shell, "residentctl un") == {"unload", "unpin"}


def models_are_those_of_the_service(shell):
    with Daemon(POLICY) as d:
        assert complete(shell, "residentctl run ", d) == {"alpha", "beta-7b"}
        assert complete(shell, "residentctl wait b", d) == {"beta-7b"}
    assert complete(shell, "residentctl run ") == set()


def options_belong_to_verbs(shell):
    for verb, options in (("ps", {"--all"}), ("wait", {"--pinned", "--timeout"}), ("call", {"--more"}),
                          ("plan", {"--ram", "--vram", "--context", "--sequences", "--kv-type"})):
        found = complete(shell, "residentctl %s --" % verb)
        assert found == options, (verb, found)
    assert {"--temperature", "--json-schema", "--raw"} <= complete(shell, "residentctl run --")
    assert "--raw" not in complete(shell, "residentctl chat --")


def cases():
    for shell in ("bash", "zsh", "fish"):
        for case in (verbs_are_those_of_help, models_are_those_of_the_service, options_belong_to_verbs):
            def test(shell=shell, case=case):
                case(shell)
            test.__name__ = "%s_%s" % (shell, case.__name__)
            yield test


if __name__ == "__main__":
    main(list(cases()))
