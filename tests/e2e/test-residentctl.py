#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""residentctl and the socket as people and scripts use them: exit statuses, what goes to which stream, terminals,
Ctrl-C, socat and jq. The worker is the fake one, so that nothing here depends on a model."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, Daemon, Skip, main, need_root, wait_for  # noqa: E402

RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
EXAMPLE = os.path.join(BUILD, "client", "libresident", "resident-example")
POLICY = {
    "version": 1,
    "host": {"ram": {"budget": "1G"}},
    "models": {
        "m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}},
        "secret": {"path": "@DIR@/m.gguf", "residency": {"ram": "map"}, "allow": {"users": [os.geteuid()]}},
        "gone": {"path": "@DIR@/nothing.gguf", "residency": {"ram": "map"}},
    },
    "aliases": {"chat": "m"},
    "admins": {"users": [os.geteuid()]},
}
FILES = {"m.gguf": b"\0" * 100000}


def daemon():
    return Daemon(POLICY, files=FILES)


def ctl(d, *arguments, stdin="", uid=None):
    def become():
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
    return subprocess.run([RESIDENTCTL, "--socket", d.socket, *arguments], input=stdin, capture_output=True, text=True,
                          timeout=PATIENCE_S, preexec_fn=become)


def expect(done, status, stdout=None, stderr=None):
    assert done.returncode == status, done
    if stdout is not None:
        assert done.stdout == stdout, done
    if stderr is not None:
        assert stderr in done.stderr, done


class Terminal:
    """residentctl on a terminal of its own."""

    def __init__(self, d, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(RESIDENTCTL, [RESIDENTCTL, "--socket", d.socket, *arguments])
        self.seen = b""

    def read_until(self, text):
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], PATIENCE_S)
            assert ready, self.seen
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            assert data, self.seen
            self.seen += data

    def read_all(self):
        try:
            while True:
                data = os.read(self.fd, 65536)
                if not data:
                    break
                self.seen += data
        except OSError:
            pass
        return self.seen

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return status


def verbs_end_as_the_design_says():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0, "")
        expect(ctl(d, "wait", "chat", "--timeout", "5"), 0, "")
        expect(ctl(d, "run", "m", "count 3"), 0, "1 2 3 \n", "")
        expect(ctl(d, "run", "m", stdin="from stdin"), 0, "from stdin\n")
        expect(ctl(d, "run", "m", "untemplated"), 0, "untemplated\n", "")
        expect(ctl(d, "run", "m", "untemplated", "--raw"), 0, "untemplated\n", "")
        expect(ctl(d, "run", "m", "untemplated", "--chat"), 1, "", "org.varlink.service.InvalidParameter")
        expect(ctl(d, "run", "nothing", "x"), 1, "", "io.residentd.NoSuchModel")
        expect(ctl(d, "run", "m", "fail"), 1, "", "io.residentd.ContextTooLong")
        expect(ctl(d, "run", "m", "x", "--temperature", "-3"), 1, "", "org.varlink.service.InvalidParameter")
        assert ctl(d, "metrics").stdout.endswith("# EOF\n")
        expect(ctl(d, "wait", "nothing"), 1, "", "io.residentd.NoSuchModel")
        expect(ctl(d, "load", "gone"), 1, "", "io.residentd.ModelInvalid")
        expect(ctl(d, "wait", "gone"), 1, "", "failed")
        expect(ctl(d, "cancel", "12345"), 1, "", "io.residentd.NoSuchRequest")
        for wrong in (["run"], ["frobnicate"], [], ["run", "m", "x", "--nonsense"], ["run", "m", "x", "-n", "many"],
                      ["cancel", "x"], ["load"], ["status", "x"], ["p", "x"], ["wait", "m", "--pinned"]):
            expect(ctl(d, *wrong), 2, "")
            assert ctl(d, *wrong).stderr, wrong


def no_service_is_a_clear_error():
    done = subprocess.run([RESIDENTCTL, "--socket", "/nonexistent/socket", "list"], capture_output=True, text=True)
    expect(done, 1, "", "is residentd running?")


def json_is_the_methods_reply():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        lines = [json.loads(line) for line in ctl(d, "--json", "run", "m", "count 2").stdout.splitlines()]
        assert "".join(p["text"] for p in lines) == "1 2 ", lines
        assert [p["done"] for p in lines] == [False, False, True], lines
        assert lines[-1]["usage"]["output_tokens"] == 2 and lines[-1]["finish"], lines
        for verb, key in (("list", "models"), ("status", "ram"), ("ps", "requests")):
            lines = ctl(d, "--json", verb).stdout.splitlines()
            assert len(lines) == 1 and key in json.loads(lines[0]), (verb, lines)
        pieces = [json.loads(line) for line in ctl(d, "--json", "load", "m").stdout.splitlines()]
        assert pieces[-1]["state"] == "ready", pieces
        reply = json.loads(ctl(d, "call", "org.varlink.service.GetInfo").stdout)
        assert "io.residentd.Inference" in reply["interfaces"], reply
        pieces = ctl(d, "call", "io.residentd.Inference.Complete", '{"model":"m","prompt":"count 2"}', "--more").stdout
        assert len(pieces.splitlines()) == 3, pieces


def tables_are_for_people():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        listed = ctl(d, "list").stdout
        assert "MODEL" in listed and "chat" in listed and "100k" in listed, listed
        status = ctl(d, "status").stdout
        assert "97.7K" in status and "ready" in status, status
        assert str(d.status()["worker_pid"]) in status, status
        done = ctl(d, "run", "m", "count 3", "--stats")
        expect(done, 0, "1 2 3 \n", "3 output tokens")


def options_become_parameters():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        schema = d.put("schema.json", b'{"type": "object"}')
        done = ctl(d, "run", "m", "echo", "-n", "7", "--temperature", "0.5", "--top-k", "3", "--top-p", "0.9", "--min-p",
                   "0.1", "--repeat-penalty", "1.1", "--seed", "42", "--stop", "a", "--stop", "b", "--json-schema", schema)
        assert done.returncode == 0, done
        echoed = json.loads(done.stdout)
        assert echoed == {"messages": [{"role": "user", "content": "echo"}], "max_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1,
                          "repeat_penalty": 1.1, "seed": 42, "stop": ["a", "b"], "json_schema": {"type": "object"}}, echoed
        expect(ctl(d, "run", "m", "x", "--json-schema", d.dir + "/nothing"), 1, "", "nothing")
        expect(ctl(d, "run", "m", "x", "--json-schema", d.put("bad.json", b"{")), 1, "", "bad.json:1:2")


def model_text_can_not_harm_a_terminal():
    evil = "a\033]0;title\007b\x7f\u009b31mc\td\n\u00e9"
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        # Into a pipe the text goes as it is.
        expect(ctl(d, "run", "m", evil), 0, evil + "\n")
        t = Terminal(d, "run", "m", evil)
        seen = t.read_all().replace(b"\r\n", b"\n")
        assert os.waitstatus_to_exitcode(t.wait()) == 0
        assert b"a\\x1b]0;title\\x07b\\x7f\\x9b31mc\td\n\xc3\xa9\n" == seen, seen
        t = Terminal(d, "--json", "run", "m", "\x7f\u009b")
        seen = t.read_all()
        t.wait()
        assert b"\x7f" not in seen and b"\xc2\x9b" not in seen and b"\\u007f\\u009b" in seen, seen


def ctrl_c_stops_the_work():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        p = subprocess.Popen([RESIDENTCTL, "--socket", d.socket, "run", "m", "count 100000"], stdout=subprocess.PIPE)
        assert p.stdout.read(4) == b"1 2 "
        assert len(json.loads(ctl(d, "--json", "ps").stdout)["requests"]) == 1
        p.send_signal(signal.SIGINT)
        assert p.wait(PATIENCE_S) == -signal.SIGINT
        wait_for(lambda: not json.loads(ctl(d, "--json", "ps").stdout)["requests"], "the request to end")
        assert "request cancelled" in d.log(), d.log()


def a_killed_service_ends_the_stream_with_what_to_do():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        p = subprocess.Popen([RESIDENTCTL, "--socket", d.socket, "run", "m", "count 100000"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        assert p.stdout.read(4) == b"1 2 "
        d.kill()
        _, err = p.communicate(timeout=PATIENCE_S)
        assert p.returncode == 1 and b"ask again" in err, err


def cancel_ends_somebodys_request():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        p = subprocess.Popen([RESIDENTCTL, "--socket", d.socket, "run", "m", "count 100000"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        p.stdout.read(2)
        number = json.loads(ctl(d, "--json", "ps").stdout)["requests"][0]["request"]
        expect(ctl(d, "cancel", str(number)), 0, "", "")
        _, err = p.communicate(timeout=PATIENCE_S)
        assert p.returncode == 1 and b"io.residentd.Cancelled" in err, err


def chat_keeps_the_conversation():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        # Without a terminal: a line is a turn. The fake worker answers `echo` with its parameters.
        done = ctl(d, "chat", "m", "--system", "be kind", stdin="echo first\n\necho second\n")
        assert done.returncode == 0, done
        turns = [json.loads(line)["messages"] for line in done.stdout.splitlines()]
        assert [m["content"] for m in turns[0]] == ["be kind", "echo first"], turns
        assert [m["role"] for m in turns[1]] == ["system", "user", "assistant", "user"], turns
        assert turns[1][2]["content"] == done.stdout.splitlines()[0], turns
        t = Terminal(d, "chat", "m")
        t.read_until("> ")
        t.type("echo hello\n")
        t.read_until('"echo hello"')
        t.type("\004")
        t.read_all()
        assert os.waitstatus_to_exitcode(t.wait()) == 0
        t = Terminal(d, "chat", "m")
        t.read_until("> ")
        t.type("\003")
        t.read_all()
        assert os.waitstatus_to_exitcode(t.wait()) == 130


def other_users_see_only_theirs():
    need_root()
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        names = [m["name"] for m in json.loads(ctl(d, "--json", "list", uid=1).stdout)["models"]]
        assert names == ["gone", "m"], names
        expect(ctl(d, "run", "secret", "x", uid=1), 1, "", "io.residentd.NotAllowed")
        expect(ctl(d, "load", "m", uid=1), 1, "", "admins_only")
        status = json.loads(ctl(d, "--json", "status", uid=1).stdout)
        assert "users" not in status and all("kv_bytes" not in m for m in status["models"]), status
        expect(ctl(d, "list", uid=54321), 1, "", "unknown_uid")
        wait_for(lambda: "uid=1 " in d.log(), "a log line with the uid")


def the_policy_is_checked_by_the_daemons_parser():
    with daemon() as d:
        expect(ctl(d, "policy", "check", d.policy_path), 0, None, "")
        shown = json.loads(ctl(d, "--json", "policy", "show", d.policy_path).stdout)
        assert shown["policy"]["aliases"] == {"chat": "m"}, shown
        assert shown["origins"]["/aliases/chat"].startswith(d.policy_path + ":1:"), shown
        # Later files win, and every value says where it is from; what is shown is a policy again.
        d.put("20.json", b'{"models": {"m": {\n "priority": 7, "limits": {"max_tokens": 5}}},\n'
                         b' "aliases": {"chat": null, "a/b~c": null}}')
        text = ctl(d, "policy", "show", d.policy_path, os.path.join(d.dir, "20.json")).stdout
        assert f'"priority": 7, // {d.dir}/20.json:2:14' in text or f'"priority": 7 // {d.dir}/20.json:2:14' in text, text
        assert f'// {d.policy_path}:1:' in text and "chat" not in text, text
        again = d.put("again.json", text.encode())
        expect(ctl(d, "policy", "check", again), 0, None, "")
        expect(ctl(d, "policy", "show", again, d.dir + "/nothing.json"), 1, "", "nothing.json")
        bad = d.put("bad.json", b'{"version": 1,\n "models": {"m": {"path": 7}}}')
        expect(ctl(d, "policy", "check", bad), 1, "", "bad.json:2:")


def a_plan_says_what_goes_where():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        # The fake worker's shape: 1 layer of the file's size, 4096 bytes of KV for 4 sequences of 128 tokens, 8192 of scratch.
        plan = json.loads(ctl(d, "--json", "plan", "m", "--ram", "1M").stdout)["plan"]
        assert plan["fits"] and plan["layers"] == 1 and plan["gpu_layers"] == 0, plan
        assert (plan["weights_ram_bytes"], plan["kv_ram_bytes"], plan["scratch_ram_bytes"]) == (100000, 4096, 8192), plan
        plan = json.loads(ctl(d, "--json", "plan", "m", "--context", "64", "--sequences", "2", "--kv-type", "f32").stdout)["plan"]
        assert plan["kv_ram_bytes"] == 4 * 512, plan
        # So little is read sooner than a device is reached.
        plan = json.loads(ctl(d, "--json", "plan", "m", "--vram", "1G").stdout)["plan"]
        assert plan["gpu_layers"] == 0 and "would not be faster" in plan["reasons"][0], plan
        text = ctl(d, "plan", d.dir + "/m.gguf", "--ram", "50000").stdout
        assert text.startswith("does not fit: 0 of 1 layers on GPUs") and "may be used" in text, text
        assert "ALTERNATIVE" in text and "of RAM" in text, text
        expect(ctl(d, "plan", "m", "--kv-type", "q9"), 1, "", "InvalidParameter")
        expect(ctl(d, "plan", "nothing"), 1, "", "NoSuchModel")
        expect(ctl(d, "plan", "/dev/null"), 1, "", "a regular file")
        expect(ctl(d, "plan", "./nothing"), 1, "", "No such file")
        expect(ctl(d, "plan", "gone"), 1, "", "ModelInvalid")
        expect(ctl(d, "call", "io.residentd.Models.Plan", "{}"), 1, "", "either a model or fd")
        expect(ctl(d, "call", "io.residentd.Models.Plan", '{"fd": 0}'), 1, "", "a regular file")
        expect(ctl(d, "plan", "m", "--ram", "lots"), 2, "")
        assert len(os.listdir(f"/proc/{d.process.pid}/task")) < 8
        assert ctl(d, "status").stdout.count("ready") == 1


def a_person_can_use_socat_and_jq():
    if not shutil.which("socat") or not shutil.which("jq"):
        raise Skip("needs socat and jq")
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        call = {"method": "io.residentd.Inference.Complete", "parameters": {"model": "m", "prompt": "count 3"}}
        for more in (False, True):
            # socat shuts down its half at the end of stdin: the answer comes all the same.
            shell = f"printf '%s\\0' '{json.dumps({**call, 'more': more})}' | socat -t{PATIENCE_S} - UNIX-CONNECT:{d.socket}" \
                    " | tr '\\0' '\\n' | jq -r .parameters.text | tr -d '\\n'"
            done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=PATIENCE_S)
            assert done.stdout == "1 2 3 ", done


def the_example_program_runs():
    with daemon() as d:
        expect(ctl(d, "wait", "m"), 0)
        done = subprocess.run([EXAMPLE, "chat", "count 4"], env={**os.environ, "RESIDENTD_SOCKET": d.socket},
                              capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0 and "1 2 3 4 \n(4 tokens)" in done.stdout, done


main([
    verbs_end_as_the_design_says,
    no_service_is_a_clear_error,
    json_is_the_methods_reply,
    tables_are_for_people,
    options_become_parameters,
    model_text_can_not_harm_a_terminal,
    ctrl_c_stops_the_work,
    a_killed_service_ends_the_stream_with_what_to_do,
    cancel_ends_somebodys_request,
    chat_keeps_the_conversation,
    other_users_see_only_theirs,
    the_policy_is_checked_by_the_daemons_parser,
    a_plan_says_what_goes_where,
    a_person_can_use_socat_and_jq,
    the_example_program_runs,
])
