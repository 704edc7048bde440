#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Embeddings, log-probabilities and prompts that are too long, through the socket of a real daemon with a real worker.

What a decoder's vector should be is known from the engine's own logits, taken from another program: the output matrix times
the state of a token is its row of logits, so the matrix times the vector has to point where the (sum of the) rows point.
An encoder's is what a forward pass in doubles makes of the same tokens."""

import base64
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, PATIENCE_S, REAL_WORKER, REFERENCE, SOURCE, Daemon, Refused, Skip, main  # noqa: E402

ENGINE = os.path.join(BUILD, "engine", "tool", "resident-engine")
MAKE = os.path.join(BUILD, "tests", "model-writer", "make-test-model")
PLAIN = os.path.join(BUILD, "tests", "plain", "plain-embeddings")
RESIDENTCTL = os.path.join(BUILD, "client", "residentctl", "residentctl")
DEFAULT_MODEL = os.path.join(SOURCE, "primer", "primer.gguf")
STORIES = os.path.join(REFERENCE, "models", "stories260k-f32.gguf")
TEXT = "Once upon a time there was a girl named Lily who had a red ball."


def daemon(model, **context):
    policy = {"version": 1, "host": {"ram": {"budget": "1G"}},
              "models": {"m": {"path": "@DIR@/m.gguf", "residency": {"ram": "map", "when": "always"},
                               "context": {"sequences": 4, "k": "f32", "v": "f32", **context}}}}
    return Daemon(policy, worker=REAL_WORKER, files={"m.gguf": model})


class Gguf:
    """Enough of the format to read an F32 tensor and to put a key in front."""

    SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def __init__(self, path):
        with open(path, "rb") as f:
            self.bytes = f.read()
        self.at = 4
        _, n_tensors, n_keys = self.take("IQQ")
        self.keys_at = self.at
        for _ in range(n_keys):
            self.text()
            self.value(self.take("I")[0])
        self.infos_at = self.at
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.text()
            dims = self.take("%dQ" % self.take("I")[0])
            self.tensors[name] = dims, *self.take("IQ")
        self.infos_end = self.at
        self.data_at = -(-self.at // 32) * 32
        self.counts = n_tensors, n_keys

    def take(self, form):
        values = struct.unpack_from("<" + form, self.bytes, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def text(self):
        n = self.take("Q")[0]
        self.at += n
        return self.bytes[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            kind, n = self.take("IQ")
            for _ in range(n):
                self.value(kind)
        else:
            self.at += self.SIZES[kind]

    def floats(self, name):
        dims, kind, offset = self.tensors[name]
        assert kind == 0
        n = math.prod(dims)
        return dims[0], struct.unpack_from("<%df" % n, self.bytes, self.data_at + offset)

    def with_u32(self, name, number):
        return self.with_value(name, 4, struct.pack("<I", number))

    def with_text(self, name, text):
        return self.with_value(name, 8, struct.pack("<Q", len(text)) + text.encode())

    def with_value(self, name, kind, value):
        n_tensors, n_keys = self.counts
        key = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value
        head = self.bytes[:4] + struct.pack("<IQQ", 3, n_tensors, n_keys + 1) + key + self.bytes[self.keys_at:self.infos_end]
        return head + bytes(-len(head) % 32) + self.bytes[self.data_at:]


def stories():
    if not os.path.exists(STORIES):
        raise Skip(f"{STORIES} is not there")
    return Gguf(STORIES)


def embed(c, *texts):
    reply = c.call("Inference.Embed", model="m", input=list(texts))
    vectors = [e["values"] for e in reply["embeddings"]]
    assert len(vectors) == len(texts), reply
    for v in vectors:
        assert abs(math.fsum(x * x for x in v) - 1) < 1e-5, v
    return vectors, reply["usage"]


def logits_of(ids):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits")
        subprocess.run([ENGINE, "logits", STORIES, "--ids", " ".join(map(str, ids)), "--out", out, "--k-type", "f32", "--v-type",
                        "f32"], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)
        with open(out, "rb") as f:
            all_rows = f.read()
    n = len(all_rows) // 4 // len(ids)
    return [struct.unpack_from("<%df" % n, all_rows, 4 * n * i) for i in range(len(ids))]


def cosine(a, b):
    dot = math.fsum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(x * x for x in b))


def check_direction(model, vector, wanted):
    name = "output.weight" if "output.weight" in model.tensors else "token_embd.weight"
    n, matrix = model.floats(name)
    assert len(vector) == n, len(vector)
    ours = [math.fsum(map(float.__mul__, map(float, matrix[i:i + n]), vector)) for i in range(0, len(matrix), n)]
    assert cosine(ours, wanted) > 1 - 1e-9, cosine(ours, wanted)


def pooled_as(number, pick):
    """A model whose file says pooling @number; @pick makes of all rows of logits the one that the vector points to."""
    model = stories()
    data = model.with_u32("llama.pooling_type", number) if number else model.bytes
    with daemon(data) as d, d.client() as c:
        d.wait_state("ready")
        ids = c.call("Inference.Tokenize", model="m", text=TEXT, special=True)["tokens"]
        (vector,), usage = embed(c, TEXT)
        assert usage["prompt_tokens"] == len(ids) and usage["output_tokens"] == 0, usage
        check_direction(model, vector, pick(logits_of(ids)))


def without_a_setting_the_last_token_is_the_text():
    pooled_as(0, lambda rows: rows[-1])


def mean_pooling():
    pooled_as(1, lambda rows: [math.fsum(column) for column in zip(*rows)])


def cls_pooling():
    pooled_as(2, lambda rows: rows[0])


def last_pooling():
    pooled_as(3, lambda rows: rows[-1])


def unit(v):
    length = math.sqrt(math.fsum(x * x for x in v))
    return [x / length for x in v]


def encoder(architecture, weights, pooling, pick, tolerance):
    """Vectors of a random encoder; @pick makes of the states of all tokens the one that is meant."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "encoder.gguf")
        subprocess.run([MAKE, path, "--architecture", architecture, "--tokenizer", "bert", "--pooling", str(pooling), "--dim", "128",
                        "--ff", "256", "--layers", "3", "--context", "96", "--type", weights, "--seed", "5"], check=True)
        with open(path, "rb") as f:
            data = f.read()
        with daemon(data) as d, d.client() as c:
            d.wait_state("ready")
            capabilities = c.call("Inference.ListModels")["models"][0]["capabilities"]
            assert "embed" in capabilities and "complete" not in capabilities, capabilities
            texts = ["The old dog said: there was a little cat, once upon a time!", "Caf\u00e9", "", "x" * 60]
            vectors, usage = embed(c, *texts)
            n_tokens = 0
            for text, vector in zip(texts, vectors):
                ids = c.call("Inference.Tokenize", model="m", text=text, special=True)["tokens"]
                n_tokens += len(ids)
                assert ids[0] == 2 and ids[-1] == 3 and len(ids) > 1, ids
                done = subprocess.run([PLAIN, path, " ".join(map(str, ids))], check=True, capture_output=True, text=True,
                                      timeout=PATIENCE_S)
                states = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
                assert len(states) == len(ids)
                wanted = unit(pick(states))
                off = max(abs(x - y) for x, y in zip(vector, wanted))
                assert off < tolerance and len(vector) == len(wanted), (architecture, text, off)
            assert usage["prompt_tokens"] == n_tokens and usage["output_tokens"] == 0, usage
            assert embed(c, *reversed(texts))[0] == vectors[::-1]
            e = refused(c, "Embed", input=["the cat " * 60])
            assert e.error == "io.residentd.ContextTooLong" and e.parameters["limit"] == 96 < e.parameters["given"], e
            e = refused(c, "Complete", prompt="the")
            assert e.parameters == {"parameter": "model", "reason": "it makes embeddings only, no text"}, e


def the_tool_asks_an_encoder_for_no_tokens():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "encoder.gguf")
        subprocess.run([MAKE, path, "--architecture", "bert", "--tokenizer", "bert"], check=True)
        for verb in (["generate", path, "--ids", "2 5 3", "-n", "1"], ["bench", path, "-p", "8", "-n", "1", "-r", "1"]):
            done = subprocess.run([ENGINE, *verb], capture_output=True, text=True, timeout=PATIENCE_S)
            assert done.returncode == 1 and "it is an encoder" in done.stderr and not done.stdout, done


def mean(states):
    return [math.fsum(column) for column in zip(*states)]


def an_encoders_mean():
    encoder("bert", "f32", 1, mean, 1e-6)
    encoder("nomic-bert", "f32", 1, mean, 1e-6)


def an_encoders_cls():
    encoder("bert", "f32", 2, lambda states: states[0], 1e-6)
    encoder("nomic-bert", "f32", 2, lambda states: states[0], 1e-6)


def an_encoders_last_and_its_default():
    encoder("bert", "f32", 3, lambda states: states[-1], 1e-6)
    encoder("bert", "f32", 0, mean, 1e-6)


def a_quantised_encoder():
    encoder("bert", "q8_0", 1, mean, 0.01)


def a_vector_does_not_depend_on_slices_and_company():
    long_text = " ".join([TEXT] * 12)
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        texts = [TEXT, "a", long_text, TEXT, "The dog."]
        together, usage = embed(c, *texts)
        alone = [embed(c, t) for t in texts]
        assert [v for (v,), _ in alone] == together
        assert usage["prompt_tokens"] == sum(u["prompt_tokens"] for _, u in alone), usage
        assert together[0] == together[3] != together[1]
        with d.client() as other:
            stream = other.stream("Inference.Complete", model="m", prompt="Once", max_tokens=200, temperature=0)
            next(stream)
            assert embed(c, *texts)[0] == together
            list(stream)


def capabilities_say_embed():
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        assert "embed" in c.call("Inference.ListModels")["models"][0]["capabilities"]


def residentctl_prints_a_vector_a_line():
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        vectors, _ = embed(c, TEXT, "b")
        done = subprocess.run([RESIDENTCTL, "--socket", d.socket, "embed", "m", TEXT, "b"], capture_output=True, text=True,
                              timeout=PATIENCE_S)
        lines = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
        assert done.returncode == 0 and lines == vectors, done


def refused(c, method, **parameters):
    try:
        c.call("Inference." + method, model="m", **parameters)
    except Refused as e:
        return e
    raise AssertionError(f"{method} took {str(parameters)[:100]}")


def what_can_not_be_embedded_is_refused():
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        for parameters in ({"input": []}, {"input": [TEXT] * 5000}):
            e = refused(c, "Embed", **parameters)
            assert e.error == "org.varlink.service.InvalidParameter" and e.parameters["parameter"].startswith("input"), e
    model = stories()
    with daemon(model.with_u32("llama.pooling_type", 4)) as d, d.client() as c:
        d.wait_state("ready")
        assert "embed" not in c.call("Inference.ListModels")["models"][0]["capabilities"]
        assert refused(c, "Embed", input=["x"]).parameters["parameter"].startswith("model")
    with daemon(model.with_u32("llama.pooling_type", 9)) as d, d.client() as c:
        e = refused(c, "Embed", input=["x"])
        assert e.error in ("io.residentd.ModelInvalid", "io.residentd.ModelUnavailable"), e
        assert "llama.pooling_type is 9" in d.log(), d.log()


def too_long_is_said_with_both_numbers():
    long_text = "word " * 400
    with daemon(DEFAULT_MODEL, tokens=64) as d, d.client() as c:
        d.wait_state("ready")
        n = len(c.call("Inference.Tokenize", model="m", text=long_text, special=True)["tokens"])
        e = refused(c, "Embed", input=["short", long_text])
        assert e.error == "io.residentd.ContextTooLong" and e.parameters == {"limit": 64, "given": n}, e
        # An answer needs room for one token more.
        e = refused(c, "Complete", prompt=long_text)
        assert e.error == "io.residentd.ContextTooLong" and e.parameters["limit"] == 64, e
        assert n <= e.parameters["given"] <= n + 1, (e, n)
        e = refused(c, "Complete", prompt_tokens=[5] * 64)
        assert e.error == "io.residentd.ContextTooLong" and e.parameters == {"limit": 64, "given": 65}, e
        e = refused(c, "Chat", messages=[{"role": "user", "content": long_text}])
        assert e.error == "io.residentd.ContextTooLong" and e.parameters["limit"] == 64 < n < e.parameters["given"], e


def check_logprobs(c, entries, text, n_top):
    joined = b"".join(base64.b64decode(e["bytes"]) for e in entries)
    assert joined.decode().lstrip() == text.lstrip(), (joined, text)
    for e in entries:
        assert len(e["top"]) == n_top and e["logprob"] <= 0, e
        assert e["top"] == sorted(e["top"], key=lambda t: -t["logprob"]), e
        assert math.fsum(math.exp(t["logprob"]) for t in e["top"]) <= 1 + 1e-5, e
        own = [t for t in e["top"] if t["token"] == e["token"]]
        assert all(t["logprob"] == e["logprob"] and t["bytes"] == e["bytes"] for t in own), e
        assert base64.b64decode(e["bytes"]).decode(errors="replace") == e["text"] or "\ufffd" in e["text"], e


def logprobs_come_with_each_piece():
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        entries, text = [], ""
        for piece in c.stream("Inference.Complete", model="m", prompt="Once upon", max_tokens=12, temperature=0, logprobs=5):
            entries += piece.get("logprobs", [])
            text += piece["text"]
        assert len(entries) == 12, entries
        check_logprobs(c, entries, text, 5)
        assert all(e["top"][0]["token"] == e["token"] for e in entries), entries
        # One reply has them all; of the sampler's settings they say nothing.
        reply = c.call("Inference.Complete", model="m", prompt="Once upon", max_tokens=12, temperature=0, logprobs=5)
        assert reply["logprobs"] == entries, reply
        warm = c.call("Inference.Complete", model="m", prompt="Once upon", max_tokens=1, temperature=2, top_k=1, logprobs=5,
                      logit_bias={str(entries[0]["token"]): 3})
        assert warm["logprobs"][0] == entries[0], warm
        reply = c.call("Inference.Chat", model="m", messages=[{"role": "user", "content": "Tell me a story."}], max_tokens=8,
                       temperature=0, logprobs=0)
        check_logprobs(c, reply["logprobs"], reply["text"], 0)
        assert "logprobs" not in c.call("Inference.Complete", model="m", prompt="Once", max_tokens=2)


def nobody_writes_control_tokens_into_a_conversation():
    with daemon(DEFAULT_MODEL) as d, d.client() as c:
        d.wait_state("ready")
        def tokens(text, special=False):
            return len(c.call("Inference.Tokenize", model="m", text=text, special=special)["tokens"])
        def prompt(role, text):
            return c.call("Inference.Chat", model="m", messages=[{"role": role, "content": text}, {"role": "user", "content": "x"}],
                          max_tokens=1)["usage"]["prompt_tokens"]
        ends = [t for t in ("<|im_end|>", "<|end|>", "</s>", "<eos>", "<|eot_id|>") if tokens(t) > 2 > tokens(t, True) - tokens("", True)]
        assert ends, "the default model has none of these"
        for end in ends:
            # As text it is as long as text is; as a control token it would be one.
            assert prompt("user", "a" + end + "b") - prompt("user", "ab") >= tokens(end) - 1, end


def a_second_template_is_for_conversations_with_tools():
    second = "{% if tools %}{{ raise_exception('the second: ' ~ tools|length) }}{% endif %}<tool_call>{\"name\": </tool_call>"
    with daemon(Gguf(DEFAULT_MODEL).with_text("tokenizer.chat_template.tool_use", second)) as d, d.client() as c:
        d.wait_state("ready")
        messages = [{"role": "user", "content": "x"}]
        tools = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}]
        assert c.call("Inference.Chat", model="m", messages=messages, max_tokens=1)["done"]
        e = refused(c, "Chat", messages=messages, tools=tools)
        assert "the second: 1" in json.dumps(e.parameters), e


def logprobs_are_the_engines_logits():
    stories()
    with daemon(STORIES) as d, d.client() as c:
        d.wait_state("ready")
        ids = c.call("Inference.Tokenize", model="m", text="Once upon a time", special=True)["tokens"]
        row = logits_of(ids)[-1]
        total = math.log(math.fsum(math.exp(x - max(row)) for x in row)) + max(row)
        reply = c.call("Inference.Complete", model="m", prompt="Once upon a time", max_tokens=1, temperature=0, logprobs=20)
        best = sorted(range(len(row)), key=lambda i: -row[i])[:20]
        top = reply["logprobs"][0]["top"]
        assert [t["token"] for t in top] == best, (top, best)
        assert all(abs(t["logprob"] - (row[t["token"]] - total)) < 1e-4 for t in top), top


main([
    without_a_setting_the_last_token_is_the_text,
    mean_pooling,
    cls_pooling,
    last_pooling,
    an_encoders_mean,
    an_encoders_cls,
    an_encoders_last_and_its_default,
    a_quantised_encoder,
    the_tool_asks_an_encoder_for_no_tokens,
    a_vector_does_not_depend_on_slices_and_company,
    capabilities_say_embed,
    residentctl_prints_a_vector_a_line,
    what_can_not_be_embedded_is_refused,
    too_long_is_said_with_both_numbers,
    logprobs_come_with_each_piece,
    nobody_writes_control_tokens_into_a_conversation,
    a_second_template_is_for_conversations_with_tools,
    logprobs_are_the_engines_logits,
])
