"""Byte-level BPE of the primer: the trainer of its merges, and the encoder and decoder.

Used by train.py (trains the merges, encodes the corpus), export.py (writes the vocabulary) and evaluate.py
(rebuilds a tokenizer from the GGUF file alone).

The vocabulary is laid out as 256 byte tokens, then one token for each merge in the order of the merges, then the
control tokens. Text is cut by GPT-2's pattern first; a merge never crosses a cut. Control tokens are never made
from text: encode() only emits them where the caller put them.
"""

import re
import sys
import unicodedata
from collections import Counter, defaultdict

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def _class_of(letter):
    """The inside of a character class with every code point whose general category starts with `letter`."""
    ranges, start, last = [], None, None
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] == letter:
            if start is None:
                start = code
            last = code
        elif start is not None:
            ranges.append((start, last))
            start = None
    if start is not None:
        ranges.append((start, last))
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in ranges)


def _gpt2_pattern():
    """GPT-2's splitting pattern, with \\p{L} and \\p{N} spelled out since Python's re has no such classes."""
    letters, numbers = _class_of("L"), _class_of("N")
    return re.compile(
        f"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{numbers}]+| ?[^\\s{letters}{numbers}]+|\\s+(?!\\S)|\\s+")


def byte_alphabet():
    """GPT-2's printable stand-in for each of the 256 bytes, as a list indexed by byte."""
    plain = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    table, extra = {b: chr(b) for b in plain}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return [table[b] for b in range(256)]


PATTERN = _gpt2_pattern()
BYTES = byte_alphabet()
UNBYTES = {c: b for b, c in enumerate(BYTES)}


def to_symbols(piece):
    """A piece of text as a string of byte stand-ins."""
    return "".join(BYTES[b] for b in piece.encode("utf-8"))


def train_merges(texts, count):
    """The `count` best merges of the texts, as pairs of token strings; ties go to the smaller pair of strings."""
    words = Counter()
    for text in texts:
        words.update(PATTERN.findall(text))
    pieces = [(list(to_symbols(w)), n) for w, n in sorted(words.items())]
    pairs, where = Counter(), defaultdict(set)
    for i, (symbols, n) in enumerate(pieces):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += n
            where[pair].add(i)
    merges = []
    while len(merges) < count and pairs:
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        joined = best[0] + best[1]
        for i in list(where[best]):
            symbols, n = pieces[i]
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] -= n
                if pairs[pair] <= 0:
                    del pairs[pair]
                where[pair].discard(i)
            symbols[:] = _apply(symbols, best, joined)
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
                where[pair].add(i)
    return merges


def _apply(symbols, pair, joined):
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] == pair[0] and symbols[i + 1] == pair[1]:
            out.append(joined)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    """Encodes and decodes with a fixed list of merges. Pieces are cached, so encoding a corpus is fast."""

    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.ranks = {m: r for r, m in enumerate(self.merges)}
        self.tokens = BYTES + [a + b for a, b in self.merges] + CONTROLS
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.endoftext, self.im_start, self.im_end = (self.ids[c] for c in CONTROLS)
        self.cache = {}

    def _piece(self, piece):
        symbols = list(to_symbols(piece))
        while len(symbols) > 1:
            rank, pair = min((self.ranks.get(p, len(self.ranks)), p) for p in zip(symbols, symbols[1:]))
            if rank == len(self.ranks):
                break
            symbols = _apply(symbols, pair, pair[0] + pair[1])
        return [self.ids[s] for s in symbols]

    def encode(self, text):
        """The token ids of plain text."""
        out = []
        for piece in PATTERN.findall(text):
            ids = self.cache.get(piece)
            if ids is None:
                ids = self.cache[piece] = self._piece(piece)
            out += ids
        return out

    def encode_special(self, text):
        """The token ids of text in which the control tokens are written out, as in a rendered chat."""
        out = []
        for part in re.split("(" + "|".join(map(re.escape, CONTROLS)) + ")", text):
            if part in CONTROLS:
                out.append(self.ids[part])
            elif part:
                out += self.encode(part)
        return out

    def decode(self, ids):
        """The text of token ids; control tokens come out as they are written."""
        out = bytearray()
        for i in ids:
            token = self.tokens[i]
            out += token.encode() if token in CONTROLS else bytes(UNBYTES[c] for c in token)
        return out.decode("utf-8", "replace")


def render(messages, generate=False):
    """The ChatML text of a list of (role, content); with `generate` it ends where the assistant begins."""
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return text + "<|im_start|>assistant\n" if generate else text
