#!/usr/bin/python3
"""Writes the text that the primer learns from: chats, and some plain stories.

    python3 primer/generate.py --seed 1 --count 20        prints that many, to be read by a person

document() is what train.py calls. A document is a list of (role, content): roles system, user and assistant, or the
single role "text" for a story without a chat around it. The same seed always gives the same documents. What users say
is roughened on purpose: capitals, marks, typing errors, short forms, British or American spelling.
"""

import argparse
import random
import re

import facts
import stories
import talk
from words import capital

SYSTEMS = [
    "You are a helpful assistant.", "You are Primer, a small and friendly assistant.", "You are a friendly assistant.",
    "Answer briefly.", "You are a kind storyteller.", "You are a teacher for children.", "Be polite and helpful.",
    "You are a helpful assistant. Answer in simple English.", "Answer the user's questions.", "Keep your answers short.",
    "You are an assistant on a shared computer.", "You are a helpful, honest and friendly assistant.",
    "You tell stories to children.", "Please answer in one or two sentences.", "You are a chat bot.",
    "The user is a child. Use simple words.", "You are a language model that runs on this machine.",
]
AMERICAN = [("colour", "color"), ("favourite", "favorite"), ("metre", "meter"), ("maths", "math"), ("grey", "gray"),
            ("ladybird", "ladybug"), ("licence", "license")]
SHORT_FORMS = [("what is ", "what's "), ("what is ", "whats "), ("who is ", "who's "), ("where is ", "where's "),
               ("i am ", "i'm "), ("do not ", "don't "), ("cannot", "can't"), ("you are ", "you're "), ("how is ", "how's "),
               ("i would ", "i'd "), ("let us ", "let's ")]
QUESTION = re.compile(r"^(what|who|why|how|where|when|which|is|are|can|could|do|does|did|will|would|in which|on which|whose|was"
                      r"|shall|may)\b")

REQUEST = re.compile(r"^(tell|write|give|make|show|explain|name|list|count|spell|say|create|invent|describe|define)\b")


def typing_error(rng, text):
    """The text with one letter left out, doubled or exchanged with the next one, never in a capitalised word."""
    spots = [i for i in range(3, len(text) - 2) if text[i - 1:i + 2].isalpha() and text[i - 1:i + 2].islower()]
    if not spots:
        return text
    i, form = rng.choice(spots), rng.randrange(3)
    if form == 0:
        return text[:i] + text[i + 1:]
    if form == 1:
        return text[:i] + text[i] + text[i:]
    return text[:i] + text[i + 1] + text[i] + text[i + 2:]


def dress(rng, text, errors=True):
    """A request as somebody may type it."""
    text = text[0].lower() + text[1:] if text[:2] not in ("I ", "I'") else text
    is_question = bool(QUESTION.match(text))
    for british, american in AMERICAN:
        if british in text and rng.random() < 0.5:
            text = text.replace(british, american)
    for long, short in SHORT_FORMS:
        if long in text and rng.random() < 0.13:
            text = text.replace(long, short, 1)
    if rng.random() < 0.05:
        text = rng.choice(("please ", "hey, ", "hi, ", "hello, ", "ok, ", "so, ", "now ", "primer, ", "and ", "well, ",
                           "hello! ", "then ")) + text
    if (is_question or REQUEST.match(text)) and rng.random() < 0.05:
        text += rng.choice((", please", " please", ", thanks", " for me"))
    if errors and rng.random() < 0.02:
        text = typing_error(rng, text)
    form = rng.random()
    if form < 0.12:
        text = text.lower()
    elif form < 0.95:
        text = re.sub(r"\bi\b(?!')", "I", text).replace("i'm ", "I'm ").replace("i'd ", "I'd ")
        text = re.sub(r"([.!?:] )([a-z])", lambda m: m.group(1) + m.group(2).upper() if m.group(1) != ": " else m.group(0),
                      capital(text))
    if text[-1].isalnum() or text[-1] == '"':
        if is_question:
            text += rng.choices(("?", "", "??", " ?", "."), (70, 26, 1, 2, 1))[0]
        else:
            text += rng.choices((".", "", "!", "?"), (45, 43, 9, 3))[0]
    return text


def story_turns(rng):
    """A request for a story, and often questions about it."""
    if rng.random() < 0.05:
        return [stories.tiny(rng)]
    prompt, s = stories.request(rng)
    turns = [(prompt, s.text)]
    if rng.random() < 0.4:
        for _ in range(rng.choice((1, 1, 2, 3))):
            turns.append(stories.follow_up(rng, s))
    return turns


def fact_turns(rng):
    """One question about a fact."""
    return [facts.fact(rng)]


# The sorts of turns and how often a chat has them.
SORTS = [(story_turns, 9), (fact_turns, 64), (talk.small_talk, 8), (talk.about_self, 12), (talk.limits, 7), (talk.fun, 3),
         (talk.remember, 14), (talk.repeat, 4), (talk.another_story, 0.3)]


def chat(rng):
    """A chat of one or more exchanges."""
    count = rng.choices((1, 2, 3, 4), (66, 18, 10, 6))[0]
    turns, kept = [], []
    for _ in range(count):
        sort = rng.choices([s for s, _ in SORTS], [w for _, w in SORTS])[0]
        new = sort(rng)
        if sort is talk.remember and len(new) == 2 and rng.random() < 0.6:
            kept = kept or [new.pop()]
        turns += new
    turns += kept
    messages = []
    if rng.random() < 0.3:
        messages.append(("system", rng.choice(SYSTEMS)))
    for user, assistant in turns:
        messages += [("user", dress(rng, user)), ("assistant", assistant)]
    return messages


def document(rng):
    """The next document."""
    if rng.random() < 0.03:
        return [("text", stories.story(rng, short=rng.random() < 0.5).text)]
    return chat(rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    for _ in range(args.count):
        print("\n".join(f"[{role}] {content}" for role, content in document(rng)), end="\n\n")


if __name__ == "__main__":
    main()
