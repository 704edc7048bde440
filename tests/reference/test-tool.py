#!/usr/bin/env python3
"""resident-engine, as somebody from outside uses it, beside the reference folder: test-tool.py RESIDENT_ENGINE.

A thin pass over logits, generate, tokenize and dequant; the models' every run is compared in test-logits.c.
"""
import array
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

TOOL = sys.argv[1]
ROOT = pathlib.Path(os.environ.get('RESIDENTD_REFERENCE', '../shared/reference'))
cases = 0
failed = False


def report(name, problems, skip=None):
    global cases, failed
    cases += 1
    failed = failed or bool(problems)
    print('%sok %d - %s%s' % ('not ' if problems else '', cases, name, ' # SKIP ' + skip if skip else ''))
    for problem in problems:
        print('# ' + str(problem).replace('\n', '\n# '))


def run(*arguments, stdin=b''):
    done = subprocess.run([TOOL, *map(str, arguments)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def floats(data):
    return array.array('f', data)


def numbers(ids):
    return ' '.join(map(str, ids))


def farthest(a, b):
    return max(map(lambda x, y: abs(x - y), a, b)) if len(a) == len(b) else math.inf


def rms(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / len(a)) if len(a) == len(b) else math.inf


def logits(folder, model, ids, *options):
    out = folder / 'logits.f32'
    status, _, errors = run('logits', model, '--ids', numbers(ids), '--out', out, *options)
    return out.read_bytes() if status == 0 else errors


def test_logits(folder):
    """One float and one quantised model, with each option that must change nothing."""
    for name, run_number, types in (('llama-tiny-f32', 0, 'f32'), ('llama-tiny-f32', 1, 'f16'), ('llama-tiny-q4_k_m', 0, 'f16')):
        facts = json.loads((ROOT / 'logits' / (name + '.json')).read_text())
        model = ROOT / 'models' / facts['model']
        cache = ['--k-type', types, '--v-type', types]
        ours = logits(folder, model, facts['prompt_ids'], '--threads', 1, *cache)
        problems = [] if isinstance(ours, bytes) else [ours]
        if not problems and 'dequantised' in facts:
            truth = floats((ROOT / 'logits' / facts['dequantised']['logits_batch']).read_bytes())
            apart, limit = rms(floats(ours), truth), 1.25 * facts['dequantised']['quantised_vs_dequantised_rms']
        elif not problems:
            recorded = floats((ROOT / 'logits' / facts['runs'][run_number]['logits_batch']).read_bytes())
            apart, limit = farthest(floats(ours), recorded), {'f32': 1e-3, 'f16': 0.05}[types]
        if not problems and not apart <= limit:
            problems.append('%g apart, expected at most %g' % (apart, limit))
        for options in (['--step'], ['--threads', 2], ['--flash', 'on'], ['--flash', 'off'], ['--gpu-layers', 0], ['--chunk', 5]):
            if logits(folder, model, facts['prompt_ids'], *cache, *options) != ours:
                problems.append('%s changes the result' % ' '.join(map(str, options)))
        report('logits %s with %s keys and values' % (name, types), problems)


def test_generate():
    for story in json.loads((ROOT / 'models/stories260k-greedy.json').read_text()):
        problems = []
        model = ROOT / 'models' / story['model']
        for prompt in story['prompts']:
            status, out, errors = run('tokenize', model, '--special', '--ids', stdin=prompt['prompt'].encode())
            if status != 0 or out.decode().split() != numbers(prompt['prompt_ids']).split():
                problems.append('"%s" is %s%s, expected %s' % (prompt['prompt'], out.decode(), errors, prompt['prompt_ids']))
            status, out, errors = run('generate', model, '--ids', numbers(prompt['prompt_ids']), '-n', len(prompt['greedy_ids']))
            ids = list(map(int, out.split()))
            # With quantised weights a choice this close may fall the other way, and then all that follows is another story.
            toss = 0.02 if 'q' in story['model'].split('-')[-1] else 0
            same = next((i for i, margin in enumerate(prompt['greedy_margin']) if margin < toss), len(ids))
            if status != 0 or len(ids) != len(prompt['greedy_ids']) or ids[:same] != prompt['greedy_ids'][:same]:
                problems.append('after "%s" %s%s, expected %s' % (prompt['prompt'], ids, errors, prompt['greedy_ids']))
        report('generate %s' % story['model'], problems)


def ulps(a, b):
    """Distance along the line of all floats; both zeros are one point."""
    def place(bits):
        return -(bits & 0x7fffffff) if bits >> 31 else bits
    return max((abs(place(x) - place(y)) for x, y in zip(array.array('I', a), array.array('I', b))), default=0)


def test_dequant():
    known = run('dequant', 'nothing')[2].split('there are:')[-1].split()
    types = [b['type'] for b in json.loads((ROOT / 'blocks/index.json').read_text())]
    for name in types + ['f16', 'bf16']:
        if name not in known:
            report('dequant %s' % name, [], 'the engine does not know it yet')
            continue
        blocks, values = (ROOT / 'blocks' / (name + end) for end in ('.bin', '.f32'))
        status, out, errors = run('dequant', name, stdin=blocks.read_bytes())
        problems = [errors] if status else []
        if len(out) != values.stat().st_size:
            problems.append('%d bytes, expected %d' % (len(out), values.stat().st_size))
        elif ulps(out, values.read_bytes()) > 1:
            problems.append('%d units in the last place off' % ulps(out, values.read_bytes()))
        report('dequant %s' % name, problems)


def main():
    if not ROOT.exists():
        report('resident-engine beside the reference', [], 'no reference folder')
    else:
        with tempfile.TemporaryDirectory() as folder:
            test_logits(pathlib.Path(folder))
        test_generate()
        test_dequant()
    print('1..%d' % cases)
    return failed


sys.exit(main())
