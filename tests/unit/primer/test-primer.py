#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The default model: the file is what the exporter writes, the engine says what was recorded, and the generator's text
is the same every time and clean. TAP; needs numpy (skipped, and counted as such, without it), never PyTorch.

test-primer.py RESIDENT_ENGINE: the engine's tool."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import traceback

PRIMER = os.path.join(os.environ.get("RESIDENTD_SOURCE", "."), "primer")
GGUF = os.path.join(PRIMER, "primer.gguf")
ENGINE = sys.argv[1]
sys.path.insert(0, PRIMER)

# The widest text that people type: words, typing errors, other scripts, numbers, white space, control tokens as text.
TEXTS = ["Tell me a short story about a fox.", "whats   the capital of  France??", "I'm sure they'll say \"don't\".",
         "a\nb\r\n\tc \n", "12345 + 67 = ?", "Größe, naïve, Ωmega, 中文字, \U0001f98a!", "<|im_start|>user", " ", "x" * 70]


class Skip(Exception):
    pass


def engine(*arguments, text=""):
    done = subprocess.run([ENGINE, *arguments], input=text.encode(), capture_output=True, timeout=60)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.decode()


def numpy_parts():
    """The exporter and the reader of its files."""
    try:
        import numpy
    except ImportError:
        raise Skip("numpy is not installed") from None
    import evaluate
    import export
    return numpy, export, evaluate


def expected():
    with open(os.path.join(PRIMER, "expected.json"), encoding="utf-8") as f:
        return json.load(f)


def the_file_is_small_and_of_the_shape():
    assert os.path.getsize(GGUF) <= 4_000_000
    _, export, evaluate = numpy_parts()
    meta, tensors = evaluate.load(GGUF)
    s = export.SHAPE
    q, kv = s["heads"] * s["head"], s["kv_heads"] * s["head"]
    layer = {"attn_norm": (s["dim"],), "attn_q": (q, s["dim"]), "attn_k": (kv, s["dim"]), "attn_v": (kv, s["dim"]),
             "attn_output": (s["dim"], q), "ffn_norm": (s["dim"],), "ffn_gate": (s["ff"], s["dim"]),
             "ffn_up": (s["ff"], s["dim"]), "ffn_down": (s["dim"], s["ff"])}
    want = {f"blk.{i}.{name}.weight": shape for i in range(s["layers"]) for name, shape in layer.items()}
    want.update({"token_embd.weight": (s["vocab"], s["dim"]), "output_norm.weight": (s["dim"],)})
    assert {k: v.shape for k, v in tensors.items()} == want
    assert meta["tokenizer.ggml.tokens"][meta["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    # Types as the engine's own reader sees them: matrices in Q8_0, norms in F32, nothing else.
    types = dict(re.findall(r"^  (\S+\.weight) +(\S+) ", engine("info", GGUF), re.MULTILINE))
    assert types == {k: "q8_0" if len(shape) == 2 else "f32" for k, shape in want.items()}, types


def the_exporter_writes_the_file_again():
    """From the file's own weights and merges: what Q8_0 holds is quantised to itself."""
    _, export, evaluate = numpy_parts()
    meta, tensors = evaluate.load(GGUF)
    tok = evaluate.Tokenizer([m.split(" ") for m in meta["tokenizer.ggml.merges"]])
    with open(GGUF, "rb") as f:
        assert export.gguf(tok, tensors, export.SHAPE) == f.read()


def tiny():
    """A tokenizer and random weights of a tiny shape; numpy promises that these numbers never change."""
    numpy, export, evaluate = numpy_parts()
    shape = {"dim": 64, "layers": 2, "heads": 2, "kv_heads": 1, "head": 32, "ff": 96, "vocab": 256 + 2 + 3,
             "context": 64, "rope_base": 10000.0, "eps": 1e-5}
    rng = numpy.random.RandomState(1)
    weights = {"token_embd.weight": (261, 64), "output_norm.weight": (64,)}
    for i in range(2):
        for name, dims in (("attn_norm", (64,)), ("attn_q", (64, 64)), ("attn_k", (32, 64)), ("attn_v", (32, 64)),
                           ("attn_output", (64, 64)), ("ffn_norm", (64,)), ("ffn_gate", (96, 64)), ("ffn_up", (96, 64)),
                           ("ffn_down", (64, 96))):
            weights[f"blk.{i}.{name}.weight"] = dims
    weights = {k: rng.standard_normal(v).astype(numpy.float32) for k, v in weights.items()}
    weights["blk.0.ffn_up.weight"][:, :32] = 0          # blocks without a scale
    return evaluate.Tokenizer([("h", "e"), ("\u0120", "he")]), weights, shape


def the_exporter_writes_these_bytes():
    numpy, export, evaluate = numpy_parts()
    tok, weights, shape = tiny()
    raw = export.gguf(tok, weights, shape)
    assert hashlib.sha256(raw).hexdigest() == "057ccc49968bbd0004e0be3f0aee96d21aa3e6a655b4f2d32363660f108e4b9e", hashlib.sha256(raw).hexdigest()
    with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
        f.write(raw)
        f.flush()
        meta, tensors = evaluate.load(f.name)
        for name, value in weights.items():
            # A scale of float16 and a step of half a quantum.
            off = numpy.abs(tensors[name] - value).max()
            assert off <= numpy.abs(value).max() / 127 * 0.57 if value.ndim == 2 else off == 0, (name, off)
        assert engine("tokenize", f.name, "--ids", text=" hehe").split() == ["257", "256"]
        # This prompt is decided by wide margins, so the engine's tokens are those of float32.
        prompt, ids, margins = evaluate.Model(f.name).answer("<|im_start|> hel", 6)
        assert min(margins) > 1, margins
        said = engine("generate", f.name, "--ids", ",".join(map(str, prompt)), "-n", str(len(ids)))
        assert list(map(int, said.split())) == ids, (said, ids)


def the_engine_tokenizes_as_the_training_did():
    _, _, evaluate = numpy_parts()
    meta, _ = evaluate.load(GGUF)
    tok = evaluate.Tokenizer([m.split(" ") for m in meta["tokenizer.ggml.merges"]])
    for text in TEXTS:
        ids = list(map(int, engine("tokenize", GGUF, "--ids", text=text).split()))
        assert ids == tok.encode(text) and tok.decode(ids) == text, (text, ids, tok.encode(text))
    chat = evaluate.render([("system", "Be brief."), ("user", TEXTS[4])], True)
    ids = list(map(int, engine("tokenize", GGUF, "--ids", "--special", text=chat).split()))
    assert ids == tok.encode_special(chat), ids
    assert ids[0] == tok.im_start and ids.count(tok.im_end) == 2


CHATS = [[("user", "Hello!")], [("system", ""), ("user", " two\nlines ")],
         [("user", "My name is Anna."), ("assistant", "Hello, Anna!"), ("user", "{{ messages }} <b> \u20ac")]]


def variables(messages, generate):
    return {"messages": [{"role": r, "content": c} for r, c in messages], "add_generation_prompt": generate}


def the_template_is_what_the_training_used():
    _, _, evaluate = numpy_parts()
    for messages in CHATS:
        for generate in (False, True):
            text = engine("render", GGUF, text=json.dumps(variables(messages, generate)))
            assert text == evaluate.render(messages, generate), text


def the_template_is_the_same_for_jinja2():
    _, export, evaluate = numpy_parts()
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise Skip("Jinja2 is not installed") from None
    assert evaluate.load(GGUF)[0]["tokenizer.chat_template"] == export.TEMPLATE
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(export.TEMPLATE)
    for messages in CHATS:
        for generate in (False, True):
            text = engine("render", GGUF, text=json.dumps(variables(messages, generate)))
            assert template.render(**variables(messages, generate)) == text, text


def the_engine_says_what_was_recorded():
    cases = expected()["cases"]
    assert len(cases) >= 8
    for case in cases:
        text = engine("render", GGUF, text=json.dumps({"messages": case["messages"], "add_generation_prompt": True}))
        assert text == case["rendered"]
        ids = list(map(int, engine("tokenize", GGUF, "--ids", "--special", text=text).split()))
        assert ids == case["prompt_ids"], ids
        said = engine("generate", GGUF, "--ids", ",".join(map(str, ids)), "-n", str(len(case["answer_ids"])))
        assert list(map(int, said.split())) == case["answer_ids"], (case["answer_text"], said)


def recorded_answers_are_text():
    """Sentences, about what was asked, that end by themselves."""
    _, _, evaluate = numpy_parts()
    tok = evaluate.Model(GGUF).tok
    said = {}
    for case in expected()["cases"]:
        ids = case["answer_ids"]
        assert ids[-1] == tok.im_end or len(ids) == 64, case
        assert tok.decode([i for i in ids if i != tok.im_end]) == case["answer_text"]
        if ids[-1] == tok.im_end:
            assert case["answer_text"][-1] in ".!?", case["answer_text"]
        said[case["messages"][-1]["content"]] = case["answer_text"]
    for question, words in (("Who are you?", "I am Primer"), ("What is the capital of France?", "Paris"),
                            ("How many legs does a spider have?", "eight legs"), ("What is a flumbaz?", "I do not know"),
                            ("What is a bee?", "flying insect")):
        assert words in said[question], said[question]


def written(seed, hash_seed):
    return subprocess.run([sys.executable, os.path.join(PRIMER, "generate.py"), "--seed", str(seed), "--count", "60"],
                          env={**os.environ, "PYTHONHASHSEED": str(hash_seed)}, capture_output=True, check=True).stdout


def the_generator_writes_the_same_for_a_seed():
    first = written(5, 1)
    assert len(first) > 10000 and written(5, 2) == first and written(6, 1) != first


def the_generators_text_is_clean():
    """No marks of the templates are left, articles fit, sentences end, roles take turns."""
    import generate
    rng = random.Random(11)
    for _ in range(800):
        document = generate.document(rng)
        roles = [role for role, _ in document]
        if roles != ["text"]:
            start = roles[0] == "system"
            assert roles[start:] == ["user", "assistant"] * ((len(roles) - start) // 2), roles
        for role, text in document:
            assert text == text.strip() and text, document
            if role in ("assistant", "text"):
                assert not re.search(r"[{}\[\]|~_]|  ", text), text
                assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [bcdfgjklmnpqrstvwxz]", text), text
                assert text[-1] in ".!?\"" or re.fullmatch(r"[\w ]+", text), text


def a_name_has_one_pronoun():
    import words
    for he, she in ((words.HE_PETS, words.SHE_PETS), (words.HE_PEOPLE, words.SHE_PEOPLE), (words.BOYS, words.GIRLS)):
        assert len(set(he)) == len(he) and len(set(she)) == len(she) and not set(he) & set(she), set(he) & set(she)
    everyone = [set(words.HE_PETS + words.HE_PEOPLE), set(words.SHE_PETS + words.SHE_PEOPLE)]
    assert not everyone[0] & everyone[1], everyone[0] & everyone[1]


def main(cases):
    print(f"1..{len(cases)}")
    failed = False
    for number, case in enumerate(cases, 1):
        try:
            case()
            print(f"ok {number} - {case.__name__}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {case.__name__} # SKIP {reason}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed = True
            print("# " + traceback.format_exc().rstrip().replace("\n", "\n# "))
            print(f"not ok {number} - {case.__name__}", flush=True)
    return failed


sys.exit(main([
    the_file_is_small_and_of_the_shape,
    the_exporter_writes_the_file_again,
    the_exporter_writes_these_bytes,
    the_engine_tokenizes_as_the_training_did,
    the_template_is_what_the_training_used,
    the_template_is_the_same_for_jinja2,
    the_engine_says_what_was_recorded,
    recorded_answers_are_text,
    the_generator_writes_the_same_for_a_seed,
    the_generators_text_is_clean,
    a_name_has_one_pronoun,
]))
