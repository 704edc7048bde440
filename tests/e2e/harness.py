# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the end-to-end tests share: a daemon in a folder of its own, clients of any uid, and TAP output."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

BUILD = os.environ.get("RESIDENTD_BUILD", "build")
SOURCE = os.environ.get("RESIDENTD_SOURCE", ".")
REFERENCE = os.environ.get("RESIDENTD_REFERENCE", os.path.join(SOURCE, "..", "shared", "reference"))
RESIDENTD = os.path.join(BUILD, "daemon", "residentd")
REAL_WORKER = os.path.join(BUILD, "engine", "worker", "resident-worker")
FAKE_WORKER = os.path.join(BUILD, "tests", "e2e", "fake-worker")

# Nothing here takes this long; only a hang does.
PATIENCE_S = 60


class Skip(Exception):
    pass


class Refused(Exception):
    """An error reply."""

    def __init__(self, reply):
        super().__init__(json.dumps(reply))
        self.error = reply["error"]
        self.parameters = reply.get("parameters", {})


class Client:
    """One varlink connection."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path)
        self.buffer = b""

    def send(self, method, parameters=None, **flags):
        call = {"method": "io.residentd." + method, "parameters": parameters or {}, **flags}
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def receive(self):
        while b"\0" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the daemon closed the connection")
            self.buffer += data
        frame, self.buffer = self.buffer.split(b"\0", 1)
        reply = json.loads(frame)
        if "error" in reply:
            raise Refused(reply)
        return reply

    def call(self, method, **parameters):
        self.send(method, parameters)
        return self.receive()["parameters"]

    def stream(self, method, **parameters):
        self.send(method, parameters, more=True)
        while True:
            reply = self.receive()
            yield reply["parameters"]
            if not reply.get("continues"):
                return

    def complete(self, prompt, model="m", **parameters):
        """The whole text of a streamed answer and its last piece."""
        text, last = "", None
        for piece in self.stream("Inference.Complete", model=model, prompt=prompt, **parameters):
            text += piece["text"]
            last = piece
        return text, last

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def as_user(uid, function, gid=None):
    """Runs @function in a child process of that uid; its result comes back as JSON, Refused as Refused."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        try:
            os.setgroups([])
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            answer = {"result": function()}
        except Refused as e:
            answer = {"refused": {"error": e.error, "parameters": e.parameters}}
        except BaseException:  # the parent shows it
            answer = {"crash": traceback.format_exc()}
        with os.fdopen(w, "w") as f:
            json.dump(answer, f)
        os._exit(0)
    os.close(w)
    return pid, r


def join_user(handle):
    pid, r = handle
    with os.fdopen(r) as f:
        answer = json.load(f)
    os.waitpid(pid, 0)
    if "refused" in answer:
        raise Refused(answer["refused"])
    if "crash" in answer:
        raise AssertionError(answer["crash"])
    return answer["result"]


def run_as(uid, function, gid=None):
    return join_user(as_user(uid, function, gid))


class Daemon:
    """A residentd with its own policy, socket and log; ended at the latest by the with statement."""

    def __init__(self, policy, worker=None, uid=None, memlock=None, files=None, arguments=()):
        self.dir = tempfile.mkdtemp(prefix="residentd-e2e.")
        os.chmod(self.dir, 0o755)
        self.socket = os.path.join(self.dir, "io.residentd")
        self.log_path = os.path.join(self.dir, "log")
        self.policy_path = os.path.join(self.dir, "policy.json")
        self.worker = worker or FAKE_WORKER
        self.uid, self.memlock = uid, memlock
        self.process = None
        self.environment = {}
        self.arguments = [a.replace("@DIR@", self.dir) for a in arguments]
        for name, content in (files or {}).items():
            self.put(name, content)
        self.write_policy(policy)
        if uid is not None:
            os.chown(self.dir, uid, uid)

    def put(self, name, content):
        path = os.path.join(self.dir, name)
        if isinstance(content, bytes):
            with open(path, "wb") as f:
                f.write(content)
        else:
            shutil.copyfile(content, path)
        os.chmod(path, 0o644)
        return path

    def write_policy(self, policy):
        text = policy if isinstance(policy, str) else json.dumps(policy)
        with open(self.policy_path, "w") as f:
            f.write(text.replace("@DIR@", self.dir))
        os.chmod(self.policy_path, 0o644)

    def start(self, expect=None):
        command = [RESIDENTD, "--policy", self.policy_path, "--socket", self.socket, "--worker", self.worker,
                   "--state", self.dir, "--log-level", "debug", *self.arguments]

        def become():
            if self.memlock is not None:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (self.memlock, self.memlock))
            if self.uid is not None:
                os.setgroups([])
                os.setresgid(self.uid, self.uid, self.uid)
                os.setresuid(self.uid, self.uid, self.uid)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            preexec_fn=become, env={**os.environ, "LANG": "C", **self.environment})
        if expect is not None:
            assert self.process.wait(PATIENCE_S) == expect, self.log()
            return self
        wait_for(lambda: "listens on" in self.log() or self.process.poll() is not None, "the daemon to listen")
        assert self.process.poll() is None, self.log()
        return self

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def client(self):
        return Client(self.socket)

    def status(self, model="m"):
        with self.client() as c:
            status = c.call("Models.Status")
        for entry in status["models"]:
            if entry["name"] == model:
                return entry
        raise AssertionError(f"{model} is not in {status}")

    def wait_state(self, state, model="m"):
        def reached():
            now = self.status(model)["state"]
            assert now != "failed" or state == "failed", self.log()
            return now == state
        wait_for(reached, f"{model} to be {state}")
        return self.status(model)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self):
        """kill -9; start() may follow. The log begins anew."""
        self.process.kill()
        self.process.wait()
        with open(self.log_path, "w"):
            pass

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, error=None, *_):
        status = self.stop() if self.process and self.process.poll() is None else 0
        log = self.log() if os.path.exists(self.log_path) else ""
        shutil.rmtree(self.dir, ignore_errors=True)
        if error is None:
            assert status == 0, f"the daemon ended with {status}:\n{log}"
            assert "runtime error:" not in log and "Sanitizer" not in log, log
        elif log:
            print("# " + log.rstrip().replace("\n", "\n# "), flush=True)


def one_model(quotas=None, options=None, **model):
    """A daemon with the fake worker and one model, m, of a few bytes; @model is said of it in the policy."""
    return Daemon({"version": 1, "quotas": quotas or {},
                   "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"}, **model}}},
                  files={"m.gguf": b"x" * 4096}, **(options or {}))


def refusal(function):
    """The error that it is refused with, and its parameters."""
    try:
        answer = function()
    except Refused as e:
        return e.error, e.parameters
    raise AssertionError(f"not refused but {answer}")


def connections(d):
    """How many each user has, for an administrator."""
    with d.client() as c:
        return {u["uid"]: u["connections"] for u in c.call("Models.Status")["users"]}


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def open_proc(pid, name):
    """A file of /proc/PID: the service can't be dumped, so only root may look at it."""
    try:
        return open(f"/proc/{pid}/{name}")
    except PermissionError:
        raise Skip(f"only root may read /proc/PID/{name} of the service") from None


def private_bytes(pid):
    with open_proc(pid, "smaps") as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith("Private_Dirty:"))


def smaps(pid, path):
    """Sums over the mappings of @path in process @pid: Rss and Pss in bytes, size, and whether all are locked."""
    total = {"size": 0, "rss": 0, "pss": 0, "locked": True, "found": False}
    inside = False
    with open_proc(pid, "smaps") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                fields = line.split(maxsplit=5)
                inside = len(fields) == 6 and fields[5].strip() == path
                if inside:
                    start, end = (int(x, 16) for x in fields[0].split("-"))
                    total["size"] += end - start
                    total["found"] = True
            elif inside and line.startswith("Rss:"):
                total["rss"] += int(line.split()[1]) * 1024
            elif inside and line.startswith("Pss:"):
                total["pss"] += int(line.split()[1]) * 1024
            elif inside and line.startswith("VmFlags:"):
                total["locked"] &= "lo" in line.split()[1:]
    return total


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, before it was read
        return False


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root, to be several users")


def may_lock(n_bytes):
    """Whether a daemon started by this process can lock so much."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY or hard >= n_bytes:
        return True
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> 14 & 1)
    return False


def need_locking(n_bytes):
    if not may_lock(n_bytes):
        raise Skip(f"may not lock {n_bytes} bytes here")


def main(tests):
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for i, test in enumerate(tests, 1):
        name = test.__name__.replace("_", " ")
        try:
            test()
            print(f"ok {i} - {name}", flush=True)
        except Skip as e:
            print(f"ok {i} - {name} # SKIP {e}", flush=True)
        except BaseException:
            failed += 1
            for line in traceback.format_exc().splitlines():
                print("# " + line)
            print(f"not ok {i} - {name}", flush=True)
    sys.exit(1 if failed else 0)
