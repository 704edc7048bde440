#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Layers on GPUs from the policy to the answer: a daemon and real workers, whose GPUs are those of the test double of
libcuda. The double is found by the environment of the worker alone, which a script sets that is started in its place."""

import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, SOURCE, Daemon, Refused, main, may_lock, need_locking, wait_for  # noqa: E402

WORKER = os.path.join(BUILD, "tests", "e2e", "gpu-worker")
DOUBLE = os.path.join(BUILD, "tests", "fake-libcuda")
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
MAKE_MODEL = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
MIB, GIB = 1 << 20, 1 << 30
N_LAYERS = 4


def write_worker(d, extra=(), **settings):
    """What the workers that start from now on find: FAKE_CUDA_* by their names."""
    path = os.path.join(d.dir, "worker")
    lines = ["#!/bin/sh", f"export LD_LIBRARY_PATH={DOUBLE}"]
    lines += [f"export FAKE_CUDA_{name}={value}" for name, value in settings.items()]
    lines += ["export " + setting for setting in extra]
    with open(path + ".new", "w") as f:
        f.write("\n".join(lines) + f'\nexec {WORKER} "$@"\n')
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)
    return path


def model_entry(name="m", **placement):
    return {"path": f"@DIR@/{name}.gguf", "residency": {"ram": "map", "idle": "infinity"},
            "context": {"tokens": 128, "sequences": 2}, **({"placement": placement} if placement else {})}


class GpuDaemon(Daemon):
    def __init__(self, models, host=None, **settings):
        policy = {"version": 1, "models": models, **({"host": host} if host else {})}
        super().__init__(policy)
        self.worker = write_worker(self, **settings)
        for name in models:
            path = os.path.join(self.dir, f"{name}.gguf")
            subprocess.run([MAKE_MODEL, path, *MODEL_ARGUMENTS], check=True)
            os.chmod(path, 0o644)

    def all_status(self):
        with self.client() as c:
            return c.call("Models.Status")

    def looked(self):
        wait_for(lambda: self.all_status()["vram"] or self.all_status().get("gpu_reason"), "somebody to look for GPUs")
        return self.all_status()

    def answer(self, model="m", n_prompt=20, n=8):
        with self.client() as c:
            tokens = list(range(5, 5 + n_prompt))
            return c.call("Inference.Complete", model=model, prompt_tokens=tokens, max_tokens=n, temperature=0)["text"]

    def brief(self, model="m"):
        """An answer for which an emulated GPU does not take long."""
        return self.answer(model, n_prompt=2, n=2)

    def load(self, model="m"):
        with self.client() as c:
            for _ in c.stream("Models.Load", model=model):
                pass
        return self.status(model)

    def unload(self, model="m"):
        with self.client() as c:
            c.call("Models.Unload", model=model)

    def leave(self, model):
        """Who would leave for it, if it fits."""
        with self.client() as c:
            reply = c.call("Models.Plan", model=model)
            assert reply["plan"]["fits"] and reply["plan"]["gpu_layers"] == N_LAYERS, reply
            return reply["leave"]

    def plan(self, model="m", **limits):
        with self.client() as c:
            return c.call("Models.Plan", model=model, **limits)["plan"]


# Layers of some MiB, so that what is rounded up for each device is little beside them.
MODEL_ARGUMENTS = ["--layers", str(N_LAYERS), "--dim", "1024", "--ff", "4096", "--heads", "8", "--kv-heads", "8",
                   "--vocab", "512", "--context", "128", "--type", "q8_0"]


def planned_vram(plan):
    return sum(plan[kind + "_vram_bytes"] for kind in ("weights", "kv", "scratch", "driver"))


ANSWERS = {}


def expected():
    """What the processor answers."""
    if not ANSWERS:
        with GpuDaemon({"m": model_entry(gpu_layers=0)}) as d:
            ANSWERS["m"] = d.answer()
            ANSWERS["brief"] = d.brief()
            assert d.status()["gpu_layers"] == 0 and d.status()["vram_bytes"] == 0, d.status()
            assert "gpu_reason" not in d.status(), d.status()
    return ANSWERS["m"]


def brief():
    expected()
    return ANSWERS["brief"]


def layers_are_where_the_policy_wants_them():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}) as d:
        d.looked()
        wait_for(lambda: "others_bytes" in d.all_status()["vram"][0], "somebody to say what the GPU is doing")
        assert d.all_status()["vram"] == [{"device": 0, "name": "Pretended GPU 0", "budget_bytes": 8 * GIB * 9 // 10,
                                           "used_bytes": 0, "total_bytes": 8 * GIB, "others_bytes": 0,
                                           "temperature_celsius": 41}], d.all_status()
        assert d.answer() == expected()
        status = d.all_status()
        assert status["models"][0]["gpu_layers"] == N_LAYERS, status
        assert status["models"][0]["vram_bytes"] == status["vram"][0]["used_bytes"] > 50 * MIB, status
        assert "gpu_reason" not in status and "gpu_reason" not in status["models"][0], status
        d.unload()
        assert d.all_status()["vram"][0]["used_bytes"] == 0, d.all_status()
    for n in (1, 2):
        with GpuDaemon({"m": model_entry(gpu_layers=n)}) as d:
            d.looked()
            assert d.answer() == expected()
            assert d.status()["gpu_layers"] == n, d.status()


def steps_are_planned_small_where_vram_is_short():
    with GpuDaemon({"m": model_entry(gpu_layers=2)}) as d:
        d.looked()
        plan = d.plan()
    with GpuDaemon({"m": model_entry(gpu_layers=2)}, {"vram": {"budget": f"{planned_vram(plan) // MIB - 1}M"}}) as d:
        d.looked()
        small = d.plan()
        assert small["fits"] and small["kv_vram_bytes"] == plan["kv_vram_bytes"] > 0, small
        assert small["scratch_vram_bytes"] < plan["scratch_vram_bytes"] // 2, (small, plan)
        assert "VRAM has no room for larger steps: one takes 64 tokens at most" in small["reasons"], small
        status = d.load()
        assert status["gpu_layers"] == 2 and status["gpu_reason"] == "a step takes 64 tokens at most", status
        planned, used = planned_vram(small), status["vram_bytes"]
        assert planned >= used >= 0.95 * planned, (planned, used)
        assert d.brief() == brief()


def adapters_are_where_the_layers_are():
    entry = {**model_entry(gpu_layers="all"), "adapters": {name: f"@DIR@/{name}.gguf" for name in ("a", "b")}}
    answers = {}
    for layers in (0, 2, "all"):
        entry["placement"] = {"gpu_layers": layers}
        d = GpuDaemon({"m": entry}, DEVICES=2)
        for name, rank in (("a", "16"), ("b", "8")):
            path = os.path.join(d.dir, f"{name}.gguf")
            subprocess.run([MAKE_MODEL, path, *MODEL_ARGUMENTS, "--adapter", rank, "--adapter-seed", rank], check=True)
            os.chmod(path, 0o644)
        with d:
            d.looked()
            plan = d.plan()
            status = d.load()
            planned, used = planned_vram(plan), status["vram_bytes"]
            assert status["gpu_layers"] == (N_LAYERS if layers == "all" else layers), status
            assert "gpu_reason" not in status, status
            assert planned >= used >= 0.95 * planned, (planned, used)
            with d.client() as c:
                for adapter in (None, "a", "b"):
                    text = c.call("Inference.Complete", model="m", prompt_tokens=[5, 6, 7], max_tokens=4, temperature=0,
                                  **({"adapter": adapter} if adapter else {}))["text"]
                    assert answers.setdefault(adapter, text) == text, (layers, adapter, text, answers)
            assert "takes" not in d.log(), d.log()
    assert len(set(answers.values())) == 3, answers


def a_plan_is_what_is_taken():
    for placement in ({"gpu_layers": "all"}, {"gpu_layers": 2}, {"gpu_layers": "auto", "devices": [1]},
                      {"gpu_layers": "all", "devices": [1, 0], "vram": "480M"}):
        with GpuDaemon({"m": model_entry(**placement)}, DEVICES=2) as d:
            d.looked()
            plan = d.plan()
            assert plan["fits"], plan
            status = d.load()
            planned, used = planned_vram(plan), status["vram_bytes"]
            assert status["gpu_layers"] == plan["gpu_layers"] > 0, (plan, status)
            assert planned >= used >= 0.95 * planned, (placement, planned, used)
            # Without what a driver takes, which nobody could measure, it is as near.
            drivers = plan["driver_vram_bytes"]
            assert planned - drivers >= used - drivers >= 0.9 * (planned - drivers), (placement, planned, used)
            assert "takes" not in d.log(), d.log()


def a_plan_chooses_as_a_load_does():
    """Whether a small model is faster on the GPU depends on how fast the memory is: both have to believe the same."""
    # A token reads 1.1 to 4.2 MB; the GPU is worth it from 1.3 MB on with 20 GB/s, from 4.2 MB on with 60.
    sizes = {f"m{ff}": ff for ff in (64, 192, 320, 448, 704, 1024)}
    with GpuDaemon({name: model_entry(name) for name in sizes}) as d:
        for name, ff in sizes.items():
            subprocess.run([MAKE_MODEL, os.path.join(d.dir, f"{name}.gguf"), "--layers", str(N_LAYERS), "--dim", "256", "--ff",
                            str(ff), "--vocab", "512", "--context", "128", "--type", "q8_0"], check=True)
        d.looked()
        chosen = [(d.plan(name)["gpu_layers"], d.load(name)["gpu_layers"]) for name in sizes]
        assert all(planned == there for planned, there in chosen), chosen


def a_lost_gpu_is_nobodys_fault():
    """Who was there twice does not wait for the next answer, as after two crashes (e2e-lifecycle)."""
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        lost = on_a_gpu_to_lose(d)
        for i in range(2):
            lose_gpu(d, lost)
            assert d.log().count("the worker lost its GPU") == i + 1, d.log()
            assert d.brief() == brief()
            os.unlink(lost)
            wait_for(lambda: is_on_gpu(d), "the model to be on the GPU again")
        assert d.brief() == brief()


def without_a_driver_it_is_said_and_everything_else_works():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}) as d:
        path = os.path.join(d.dir, "worker")
        with open(path, "w") as f:
            f.write(f'#!/bin/sh\nexec {WORKER} "$@"\n')
        d.kill()
        d.start()
        assert d.looked()["gpu_reason"] == "no NVIDIA driver is installed (libcuda.so.1 was not found)", d.all_status()
        assert d.answer() == expected()
        assert d.status()["gpu_layers"] == 0, d.status()


def the_environment_of_the_service_names_no_library():
    d = Daemon({"version": 1, "models": {}}, worker=WORKER)
    d.environment = {"LD_LIBRARY_PATH": DOUBLE, "LD_PRELOAD": os.path.join(DOUBLE, "libcuda.so.1"),
                     # A sanitizer wants to be the first library; here it may be the second.
                     "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
    with d:
        wait_for(lambda: "gpu_reason" in d.client().call("Models.Status"), "somebody to look for GPUs")
        assert "no NVIDIA driver" in d.client().call("Models.Status")["gpu_reason"]


def two_devices():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, {"vram": {"devices": {"0": {"budget": "380M"}}}}, DEVICES=2) as d:
        d.looked()
        assert d.answer() == expected()
        vram = d.all_status()["vram"]
        assert all(320 * MIB < v["used_bytes"] <= v["budget_bytes"] for v in vram), vram
        assert d.status()["gpu_layers"] == N_LAYERS, d.status()


def auto_takes_what_there_is_room_for():
    with GpuDaemon({"m": model_entry()}, {"vram": {"budget": "380M"}}) as d:
        d.looked()
        assert d.answer() == expected()
        status = d.status()
        assert 0 < status["gpu_layers"] < N_LAYERS, status
        assert status["gpu_reason"] == f"VRAM is full after {status['gpu_layers']} of {N_LAYERS} layers", status


def a_number_of_layers_that_does_not_fit_fails_with_the_figures():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, {"vram": {"budget": "380M"}}) as d:
        d.looked()
        try:
            d.answer()
            raise AssertionError("it was loaded")
        except Refused as e:
            assert e.error == "io.residentd.InsufficientMemory", e
            assert e.parameters["kind"] == "vram" and e.parameters["needed"] > e.parameters["available"], e
            assert 0 < e.parameters["available"] <= 380 * MIB, e
            assert any(s["change"] == "gpu_layers" for s in e.parameters["suggestions"]), e


def memory_of_other_programs_is_seen_at_the_next_load():
    with GpuDaemon({"m": model_entry()}, VRAM=2 * GIB) as d:
        d.looked()
        assert d.load()["gpu_layers"] == N_LAYERS
        d.unload()
        write_worker(d, VRAM=2 * GIB, OTHERS=2 * GIB - 150 * MIB)
        status = d.load()
        assert 0 < status["gpu_layers"] < N_LAYERS and status["gpu_reason"], status
        assert d.answer() == expected()


def refused_memory_is_less_of_it_or_an_error():
    # It is refused to the worker that loads, after the plan: others were faster.
    for refuse in ("REFUSE=1", "REFUSE=3", "REFUSE_ALL=1", "REFUSE_ALL=4"):
        name, value = refuse.split("=")
        with GpuDaemon({"m": model_entry()}, **{name: value}) as d:
            d.looked()
            assert d.answer() == expected()
            status = d.status()
            assert status["gpu_layers"] < N_LAYERS and status["gpu_reason"], status
    with GpuDaemon({"m": model_entry(gpu_layers=2)}, REFUSE_ALL=2) as d:
        d.looked()
        try:
            d.answer()
            raise AssertionError("it was loaded")
        except Refused as e:
            assert e.error == "io.residentd.InsufficientMemory" and e.parameters["kind"] == "vram", e


def a_number_of_layers_is_got_with_less_of_the_rest():
    # Refused once: the layers are there, but keys and values are in RAM; they are what the policy says, the rest is told.
    with GpuDaemon({"m": model_entry(gpu_layers=2)}, REFUSE=2) as d:
        d.looked()
        assert d.brief() == brief()
        status = d.status()
        assert status["gpu_layers"] == 2, status
        assert "a step takes 64 tokens at most" in status["gpu_reason"], status


def memory_refused_in_a_request_fails_that_request_only():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}) as d:
        full = os.path.join(d.dir, "full")
        write_worker(d, FULL_FILE=full)
        d.looked()
        assert d.brief() == brief()
        pid = d.status()["worker_pid"]
        open(full, "w").close()
        for _ in range(3):
            try:
                d.brief()
                raise AssertionError("it was answered")
            except Refused as e:
                assert e.error == "io.residentd.InsufficientMemory" and e.parameters["kind"] == "vram", e
                assert e.parameters["needed"] > e.parameters["available"] > 0, e
        os.unlink(full)
        assert d.brief() == brief()
        assert d.status()["worker_pid"] == pid and d.status()["gpu_layers"] == N_LAYERS, d.status()


def memory_refused_once_in_a_request_is_not_seen():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}) as d:
        full = os.path.join(d.dir, "full")
        write_worker(d, FULL_FILE=full)
        d.looked()
        assert d.brief() == brief()
        pid = d.status()["worker_pid"]
        # At the beginning, in the prompt's step, and in those behind it; cuda-memory has them all.
        for n in (1, 30, 150):
            with open(full, "w") as f:
                f.write("x" * n)
            assert d.brief() == brief(), n
            os.unlink(full)
        assert d.status()["worker_pid"] == pid and d.status()["gpu_layers"] == N_LAYERS, d.status()


def status_says_why_the_machine_has_no_gpu():
    cases = [
        (dict(DEVICES=0), "the NVIDIA driver is installed, but there is no GPU"),
        (dict(INIT=100), "there is no GPU that can be used: CUDA_ERROR_NO_DEVICE (100) from cuInit"),
        (dict(INIT=803), "the NVIDIA driver (CUDA 12.4) can't run these kernels, a newer one can: "),
        (dict(MODULE=222), "the NVIDIA driver (CUDA 12.4) can't run these kernels, a newer one can: "
                           "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222) from cuModuleLoadData"),
        (dict(INIT=999), "the GPU was lost: "),
        (dict(MODULE=1), "the GPU can't be used: CUDA_ERROR_INVALID_VALUE (1) from cuModuleLoadData"),
        (dict(CAPABILITY=61), "GPU 0 (Pretended GPU 0) has compute capability 6.1, the kernels need 7.5 or later"),
        (dict(COMPUTE_MODE=2), "GPU 0 (Pretended GPU 0) is set not to compute (nvidia-smi --compute-mode)"),
        (dict(VRAM=GIB, OTHERS=GIB, CONTEXT=MIB), "not enough vram memory: "),
    ]
    for settings, reason in cases:
        with GpuDaemon({"m": model_entry(gpu_layers="all")}, **settings) as d:
            status = d.looked()
            assert status["vram"] == [] and status["gpu_reason"].startswith(reason), (settings, status)
            text = subprocess.run([RESIDENTCTL, "--socket", d.socket, "status"], check=True, capture_output=True,
                                  text=True).stdout
            assert reason in text, text
            assert d.brief() == brief()
            assert d.status()["gpu_reason"].startswith(reason), d.status()


def a_library_without_what_is_needed_is_an_old_driver():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}) as d:
        os.symlink(os.path.join(DOUBLE, "libnvidia-ml.so.1"), os.path.join(d.dir, "libcuda.so.1"))
        write_worker(d, extra=[f"LD_LIBRARY_PATH={d.dir}"])
        d.kill()
        d.start()
        reason = "the NVIDIA driver is too old: libcuda.so.1 has no cuInit"
        wait_for(lambda: d.all_status().get("gpu_reason") == reason, "the library to be looked at")
        assert d.brief() == brief()


def workers_for_gpus_that_are_not_installed_are_missed():
    # Workers of systemd are asked for at a socket; beside it there is none for GPUs.
    with GpuDaemon({"m": model_entry(gpu_layers="all")}) as d:
        os.unlink(d.worker)
        os.mkdir(os.path.join(d.dir, "daemon")) # where it hears of workers' ends
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.bind(d.worker)
            s.listen()
            d.kill()
            d.start()
            reason = "no workers for GPUs are installed (package residentd-cuda)"
            assert d.all_status()["gpu_reason"] == reason, d.all_status()
            assert d.all_status()["vram"] == [], d.all_status()


def status_says_why_a_model_is_not_on_the_gpu():
    limited = model_entry(gpu_layers="auto")
    limited["residency"] = {"ram": "lock", "limit": "64M"}
    models = {"absent": model_entry("absent", devices=[3])}
    if may_lock(64 * MIB):
        models["limited"] = {**limited, "path": "@DIR@/limited.gguf"}
    reasons = {"absent": "none of the GPUs that the policy names is there",
               "limited": "models with a limit of the memory for their weights are computed on the processor"}
    with GpuDaemon(models) as d:
        d.looked()
        for name in models:
            d.load(name)
            assert d.status(name)["gpu_layers"] == 0, d.status(name)
            assert d.status(name).get("gpu_reason") == reasons[name], d.status(name)


def keys_that_no_gpu_reads_stay_in_ram():
    entry = model_entry(gpu_layers="all")
    entry["context"].update(k="q5_1", v="q5_1")
    with GpuDaemon({"m": {**entry, "placement": {"gpu_layers": 0}}}) as d:
        answer = d.brief()
    with GpuDaemon({"m": entry}) as d:
        d.looked()
        plan = d.plan()
        assert plan["kv_vram_bytes"] == 0 < plan["kv_ram_bytes"], plan
        assert "the KV cache stays in RAM: no kernels on a GPU read types q5_1 and q5_1" in plan["reasons"], plan
        assert d.brief() == answer
        status = d.status()
        assert status["gpu_layers"] == N_LAYERS and planned_vram(plan) >= status["vram_bytes"], (plan, status)


def a_gpu_that_is_filled_between_the_look_and_the_return():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        lost = on_a_gpu_to_lose(d)
        lose_gpu(d, lost)
        assert d.brief() == brief()
        # The first that starts now looks, the next measures.
        first = os.path.join(d.dir, "first")
        write_worker(d, extra=[f"X=1\nif [ -e {first} ]; then export FAKE_CUDA_OTHERS={8 * GIB - 100 * MIB}; "
                               f"else : > {first}; fi"])
        reason = "the GPU is there again, but has too little memory free"
        wait_for(lambda: d.status().get("gpu_reason") == reason, "the model to try")
        wait_for(lambda: d.status()["state"] == "ready", "the model to go on")
        assert d.status()["gpu_layers"] == 0, d.status()
        assert d.brief() == brief()


def on_a_gpu_to_lose(d):
    """Has the model answer on a GPU; returns the file that takes the GPU away once it exists."""
    lost = os.path.join(d.dir, "lost")
    write_worker(d, LOST_FILE=lost)
    d.kill()
    d.start()
    d.looked()
    assert d.brief() == brief()
    return lost


def lose_gpu(d, lost):
    open(lost, "w").close()
    try:
        d.answer()
        raise AssertionError("it was answered")
    except Refused as e:
        assert e.error == "io.residentd.ModelUnavailable", e
        assert "lost its GPU" in e.parameters["reason"], e


def a_lost_gpu_ends_the_worker_and_the_next_computes_without():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        lost = on_a_gpu_to_lose(d)
        first = d.status()["worker_pid"]
        lose_gpu(d, lost)
        assert d.brief() == brief()
        status = d.all_status()
        assert status["models"][0]["gpu_layers"] == 0 and status["models"][0]["worker_pid"] != first, status
        assert "no GPU" in status["gpu_reason"] and status["vram"] == [], status
        assert "no GPU" in status["models"][0]["gpu_reason"], status


def is_on_gpu(d, model="m"):
    return d.status(model)["state"] == "ready" and d.status(model)["gpu_layers"] == N_LAYERS


def a_gpu_that_comes_back_is_used_again():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        lost = on_a_gpu_to_lose(d)
        lose_gpu(d, lost)
        assert d.brief() == brief()
        assert d.status()["gpu_layers"] == 0, d.status()
        os.unlink(lost)
        # Nobody asks for it: the daemon looks by itself, and moves the model when nothing runs.
        wait_for(lambda: is_on_gpu(d), "the model to be on the GPU again")
        assert "gpu_reason" not in d.all_status() and "gpu_reason" not in d.status(), d.all_status()
        assert d.brief() == brief()
        assert d.all_status()["vram"][0]["used_bytes"] == d.status()["vram_bytes"] > 0, d.all_status()


def a_gpu_keeps_its_number_when_another_one_is_gone():
    with GpuDaemon({"m": model_entry(gpu_layers="all", devices=[1])}, DEVICES=2) as d:
        def look(**settings):
            write_worker(d, **settings)
            with d.client() as c:
                c.call("Models.Reload")

        def there():
            return {gpu["device"]: gpu["name"] for gpu in d.all_status()["vram"]}

        def used():
            return {gpu["device"]: gpu["used_bytes"] for gpu in d.all_status()["vram"]}

        d.looked()
        assert d.load()["gpu_layers"] == N_LAYERS
        assert used()[0] == 0 < used()[1] == d.status()["vram_bytes"], used()
        # The driver calls the second one 0 now. The model goes on there, and the next one is loaded there.
        look(DEVICES=1, GONE=1)
        wait_for(lambda: there() == {1: "Pretended GPU 1"}, "the first GPU to be gone")
        assert used() == {1: d.status()["vram_bytes"]}, used()
        d.unload()
        assert used() == {1: 0}, used()
        status = d.load()
        assert status["gpu_layers"] == N_LAYERS and "gpu_reason" not in status, status
        assert used() == {1: status["vram_bytes"]}, used()
        wait_for(lambda: "temperature_celsius" in d.all_status()["vram"][0], "the worker to say what its GPU is doing")
        assert d.brief() == brief()
        d.unload()
        look(DEVICES=3)
        wait_for(lambda: there() == {i: f"Pretended GPU {i}" for i in range(3)}, "all GPUs to be there")
        assert d.load()["gpu_layers"] == N_LAYERS
        assert used() == {0: 0, 1: d.status()["vram_bytes"], 2: 0}, used()


def a_reload_looks_at_once():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, DEVICES=0) as d:
        assert "there is no GPU" in d.looked()["gpu_reason"]
        assert d.brief() == brief()
        assert d.status()["gpu_layers"] == 0, d.status()
        write_worker(d)
        with d.client() as c:
            c.call("Models.Reload")
        wait_for(lambda: is_on_gpu(d), "the model to be on the GPU")
        assert d.brief() == brief()


def requests_go_on_while_a_model_returns_to_the_gpu():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        lost = on_a_gpu_to_lose(d)
        lose_gpu(d, lost)
        assert d.brief() == brief()
        before = d.status()["worker_pid"]
        os.unlink(lost)
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append(d.brief())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for t in threads:
            t.start()
        try:
            wait_for(lambda: is_on_gpu(d), "the model to be on the GPU again")
        finally:
            stop.set()
            for t in threads:
                t.join()
        assert set(answers) == {brief()} and len(answers) > 3, len(answers)
        assert d.status()["worker_pid"] != before, d.status()
        assert d.brief() == brief()


def a_gpu_that_others_filled_meanwhile_is_not_returned_to():
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        lost = on_a_gpu_to_lose(d)
        lose_gpu(d, lost)
        assert d.brief() == brief()
        pid = d.status()["worker_pid"]
        write_worker(d, OTHERS=8 * GIB - 100 * MIB)
        wait_for(lambda: d.all_status()["vram"], "the GPU to be seen")
        time.sleep(5)
        status = d.status()
        assert status["state"] == "ready" and status["worker_pid"] == pid and status["gpu_layers"] == 0, status
        assert d.brief() == brief()


def locked_model(**placement):
    entry = model_entry(**placement)
    entry["residency"]["ram"] = "lock"
    return entry


def locked_by(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"^VmLck:\s+(\d+) kB", f.read(), re.M).group(1)) * 1024


def locked_files(pid):
    """Bytes of the model's mappings that a process has locked, and of those that it has not."""
    locked, free = 0, 0
    with open(f"/proc/{pid}/smaps") as f:
        for entry in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) [^\n]*/m\.gguf\n(?:[A-Z][^\n]*\n)*?VmFlags:([^\n]*)$",
                                f.read(), re.M):
            n_bytes = int(entry[1], 16) - int(entry[0], 16)
            if "lo" in entry[2].split():
                locked += n_bytes
            else:
                free += n_bytes
    return locked, free


def both_lock(d):
    return [locked_files(pid) for pid in (d.process.pid, d.status()["worker_pid"])]


def rest_bytes(size, plan):
    """What has to stay locked: all but the layers that are in VRAM, within what whole large pages leave."""
    return size - plan["weights_vram_bytes"], size - plan["weights_vram_bytes"] + 4 * 2 * MIB


def what_gpus_have_is_not_locked_in_ram():
    need_locking(256 * MIB)
    for placement in ({"gpu_layers": "all"}, {"gpu_layers": 2}):
        with GpuDaemon({"m": locked_model(**placement)}) as d:
            size = -(-os.path.getsize(os.path.join(d.dir, "m.gguf")) // 4096) * 4096
            d.looked()
            plan = d.plan()
            assert d.brief() == brief()
            low, high = rest_bytes(size, plan)
            assert high < size - 16 * MIB, (high, size)
            for locked, free in both_lock(d):
                assert locked + free == size and low <= locked <= high, (placement, locked, free, low, high)
            assert locked_by(d.process.pid) <= high + 4 * MIB, (locked_by(d.process.pid), high)
            assert d.status()["ram_locked_bytes"] == both_lock(d)[0][0], (d.status(), both_lock(d))
            assert d.all_status()["ram"]["used_bytes"] < size, d.all_status()
            assert d.brief() == brief()
            d.unload()
            assert locked_files(d.process.pid) == (0, 0), locked_files(d.process.pid)


def what_gpus_have_stays_locked_where_the_policy_keeps_it():
    need_locking(256 * MIB)
    entry = locked_model(gpu_layers="all")
    entry["residency"]["offloaded"] = "keep"
    with GpuDaemon({"m": entry}) as d:
        size = -(-os.path.getsize(os.path.join(d.dir, "m.gguf")) // 4096) * 4096
        d.looked()
        assert d.brief() == brief()
        assert both_lock(d) == [(size, 0), (size, 0)], both_lock(d)


def all_is_locked_again_when_a_gpu_is_lost():
    need_locking(256 * MIB)
    with GpuDaemon({"m": locked_model(gpu_layers="all")}, LOST_FILE="@LOST@") as d:
        size = -(-os.path.getsize(os.path.join(d.dir, "m.gguf")) // 4096) * 4096
        lost = on_a_gpu_to_lose(d)
        assert both_lock(d)[0][1] > 0, both_lock(d)
        lose_gpu(d, lost)
        assert d.brief() == brief()
        assert d.status()["gpu_layers"] == 0, d.status()
        assert both_lock(d) == [(size, 0), (size, 0)], both_lock(d)
        assert d.status()["ram_locked_bytes"] == size, d.status()
        assert d.all_status()["ram"]["used_bytes"] > size, d.all_status()


class Sampler(threading.Thread):
    """The most that the daemon and its workers have locked of the model's file, and that the budget says is used."""

    def __init__(self, d):
        super().__init__(daemon=True)
        self.d, self.stopped, self.n = d, threading.Event(), 0
        self.locked = self.used = 0

    def run(self):
        with self.d.client() as c:
            while not self.stopped.is_set():
                status = c.call("Models.Status")
                pids = [self.d.process.pid] + [m["worker_pid"] for m in status["models"] if m.get("worker_pid")]
                for pid in pids:
                    try:
                        self.locked = max(self.locked, locked_by(pid))
                    except (OSError, AttributeError):
                        pass  # it has just ended
                self.used = max(self.used, status["ram"]["used_bytes"])
                self.n += 1
                self.stopped.wait(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def needs(plan):
    return sum(plan[kind + "_ram_bytes"] for kind in ("weights", "kv", "scratch"))


def plan_of(**placement):
    with GpuDaemon({"m": locked_model(**placement)}) as d:
        d.looked()
        return d.plan(), os.path.getsize(os.path.join(d.dir, "m.gguf"))


def ram_of(n_bytes):
    return {"ram": {"budget": f"{-(-n_bytes // 1024)}K", "reserve": "0"}}


def refusal(d):
    try:
        d.brief()
        raise AssertionError("it was answered")
    except Refused as e:
        return e


def larger_than_the_budget_is_loaded_where_it_fits_with_vram():
    need_locking(256 * MIB)
    plan, size = plan_of()
    budget = needs(plan) + MIB
    assert plan["gpu_layers"] == N_LAYERS and budget < size - 16 * MIB, (plan, size)
    with GpuDaemon({"m": locked_model()}, ram_of(budget)) as d:
        lost = on_a_gpu_to_lose(d)
        d.unload()
        assert d.plan()["fits"], d.plan()
        with Sampler(d) as sampler:
            assert d.brief() == brief()
            wait_for(lambda: sampler.n > 5, "samples")
        assert 0 < sampler.locked <= sampler.used <= budget, (sampler.locked, sampler.used, budget)
        assert d.status()["gpu_layers"] == N_LAYERS, d.status()
        for locked, free in both_lock(d):
            assert 0 <= locked - plan["weights_ram_bytes"] < 4096 and locked + free >= size, (locked, free, plan, size)
        # Without the GPU it fits nowhere, which is said with the figures.
        with Sampler(d) as sampler:
            lose_gpu(d, lost)
            e = refusal(d)
            assert e.error == "io.residentd.InsufficientMemory" and e.parameters["kind"] == "ram", e
            assert e.parameters["needed"] > size > budget + 1024 > e.parameters["available"] > 0, (e, size, budget)
            assert d.status()["state"] == "failed", d.status()
        assert sampler.used <= budget and sampler.locked <= budget, (sampler.locked, sampler.used, budget)


def a_file_that_is_verified_is_not_locked_for_that():
    need_locking(256 * MIB)
    plan, size = plan_of()
    with GpuDaemon({"m": locked_model()}, ram_of(needs(plan) + MIB)) as d:
        with open(os.path.join(d.dir, "m.gguf"), "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        for sha256, error in ((digest, None), ("0" * 64, "io.residentd.ModelInvalid")):
            entry = locked_model()
            entry["sha256"] = sha256
            d.write_policy({"version": 1, "models": {"m": entry}, "host": ram_of(needs(plan) + MIB)})
            d.kill()
            d.start()
            d.looked()
            if error:
                assert refusal(d).error == error
                continue
            with Sampler(d) as sampler:
                assert d.brief() == brief()
                wait_for(lambda: sampler.n > 5, "samples")
            assert 0 < sampler.locked <= sampler.used <= needs(plan) + MIB, (sampler.locked, sampler.used, plan)


def fewer_layers_than_planned_are_planned_anew():
    """What the GPU refuses would have to be in RAM, where there was no room asked for it."""
    need_locking(256 * MIB)
    with GpuDaemon({"m": locked_model()}, REFUSE_ALL=1) as d:
        d.looked()
        assert d.brief() == brief()
        status = d.status()
        assert status["gpu_layers"] == 0 and status["gpu_reason"] == "the memory of the GPUs was refused", status
        assert d.log().count("fewer are planned") == N_LAYERS, d.log()
        assert "were planned" not in d.log(), d.log()
        size = -(-os.path.getsize(os.path.join(d.dir, "m.gguf")) // 4096) * 4096
        assert both_lock(d) == [(size, 0), (size, 0)], both_lock(d)
    plan, size = plan_of()
    budget = needs(plan) + MIB
    with GpuDaemon({"m": locked_model()}, ram_of(budget), REFUSE_ALL=1) as d:
        d.looked()
        with Sampler(d) as sampler:
            e = refusal(d)
            assert e.error == "io.residentd.InsufficientMemory" and e.parameters["kind"] == "ram", e
        assert sampler.locked <= budget and sampler.used <= budget, (sampler.locked, sampler.used, budget)


def idle_models_leave_the_gpu_where_ram_alone_is_too_small():
    need_locking(256 * MIB)
    plan, size = plan_of()
    models = {"a": model_entry("a", gpu_layers="all"), "b": locked_model()}
    models["b"]["path"] = "@DIR@/b.gguf"
    vram = planned_vram(plan) + 64 * MIB
    host = {**ram_of(2 * needs(plan)), "vram": {"budget": f"{vram // MIB}M"}}
    assert 2 * needs(plan) < size, (plan, size)
    with GpuDaemon(models, host) as d:
        d.looked()
        assert d.leave("b") == []
        assert d.load("a")["gpu_layers"] == N_LAYERS
        assert d.leave("b") == ["a"]
        assert d.load("b")["gpu_layers"] == N_LAYERS
        assert d.status("a")["state"] == "absent", d.status("a")


def idle_models_leave_the_gpu_for_one_that_needs_it():
    models = {"a": model_entry("a", gpu_layers="all"), "b": model_entry("b", gpu_layers="all")}
    with GpuDaemon(models, {"vram": {"budget": "500M"}}) as d:
        d.looked()
        assert d.load("a")["gpu_layers"] == N_LAYERS
        assert d.leave("b") == ["a"]
        assert d.load("b")["gpu_layers"] == N_LAYERS
        assert d.status("a")["state"] == "absent", d.status("a")


def what_a_gpu_is_doing_is_said():
    settings = {"VRAM": 4 * GIB, "OTHERS": 300 * MIB, "CONTEXT": 200 * MIB}
    with GpuDaemon({"m": model_entry(gpu_layers="all")}, **settings) as d:
        write_worker(d, extra=["FAKE_NVML_TEMPERATURE=83", "FAKE_NVML_THROTTLE=0x41"], **settings)
        d.looked()
        # Also before a model is there.
        wait_for(lambda: "temperature_celsius" in d.all_status()["vram"][0], "somebody to ask what the GPU is doing")
        assert d.all_status()["vram"][0]["others_bytes"] == 300 * MIB, d.all_status()
        plan = d.plan()
        d.load()
        wait_for(lambda: d.all_status()["vram"][0]["others_bytes"] == 300 * MIB, "the model not to count as others")
        gpu = d.all_status()["vram"][0]
        assert gpu["temperature_celsius"] == 83 and gpu["throttled"] == "too hot (hardware)", gpu
        assert gpu["others_bytes"] == 300 * MIB, gpu
        # What the driver takes is known, so the plan is exact.
        assert plan["driver_vram_bytes"] == 200 * MIB, plan
        used = d.status()["vram_bytes"]
        assert planned_vram(plan) >= used >= 0.95 * planned_vram(plan), (plan, used)
        text = subprocess.run([RESIDENTCTL, "--socket", d.socket, "status"], check=True, capture_output=True, text=True).stdout
        assert "300M held by others, 83 °C, throttled: too hot (hardware)" in text, text
        with d.client() as c:
            metrics = c.call("Models.Metrics")["text"]
        for line in (f'residentd_vram_budget_bytes{{device="0"}} {4 * GIB * 9 // 10}',
                     f'residentd_vram_used_bytes{{device="0"}} {used}',
                     f'residentd_vram_others_bytes{{device="0"}} {300 * MIB}',
                     'residentd_gpu_temperature_celsius{device="0"} 83', 'residentd_gpu_throttled{device="0"} 1'):
            assert line + "\n" in metrics, (line, metrics)
        with open(os.path.join(SOURCE, "docs", "metrics.md")) as f:
            documented = set(re.findall(r"^\| `(\w+)` \| gauge \| `device`", f.read(), re.M))
        assert documented == set(re.findall(r'^(\w+){device=', metrics, re.M)), documented


main([
    what_a_gpu_is_doing_is_said,
    layers_are_where_the_policy_wants_them,
    steps_are_planned_small_where_vram_is_short,
    adapters_are_where_the_layers_are,
    a_plan_is_what_is_taken,
    a_plan_chooses_as_a_load_does,
    without_a_driver_it_is_said_and_everything_else_works,
    the_environment_of_the_service_names_no_library,
    two_devices,
    auto_takes_what_there_is_room_for,
    a_number_of_layers_that_does_not_fit_fails_with_the_figures,
    memory_of_other_programs_is_seen_at_the_next_load,
    refused_memory_is_less_of_it_or_an_error,
    a_number_of_layers_is_got_with_less_of_the_rest,
    memory_refused_in_a_request_fails_that_request_only,
    memory_refused_once_in_a_request_is_not_seen,
    status_says_why_the_machine_has_no_gpu,
    a_library_without_what_is_needed_is_an_old_driver,
    workers_for_gpus_that_are_not_installed_are_missed,
    status_says_why_a_model_is_not_on_the_gpu,
    keys_that_no_gpu_reads_stay_in_ram,
    a_lost_gpu_ends_the_worker_and_the_next_computes_without,
    a_lost_gpu_is_nobodys_fault,
    a_gpu_that_is_filled_between_the_look_and_the_return,
    a_gpu_that_comes_back_is_used_again,
    a_gpu_keeps_its_number_when_another_one_is_gone,
    a_reload_looks_at_once,
    requests_go_on_while_a_model_returns_to_the_gpu,
    a_gpu_that_others_filled_meanwhile_is_not_returned_to,
    idle_models_leave_the_gpu_for_one_that_needs_it,
    what_gpus_have_is_not_locked_in_ram,
    what_gpus_have_stays_locked_where_the_policy_keeps_it,
    all_is_locked_again_when_a_gpu_is_lost,
    larger_than_the_budget_is_loaded_where_it_fits_with_vram,
    a_file_that_is_verified_is_not_locked_for_that,
    fewer_layers_than_planned_are_planned_anew,
    idle_models_leave_the_gpu_where_ram_alone_is_too_small,
])
