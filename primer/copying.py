"""Exercises in looking back: lists to say again, and who is who.

A small model learns late to copy a word from earlier in its text, and until then a story loses its names and a chat
forgets what was said. Where every word of an answer is a copy of a random word, it is learned in the first minutes
(C. Olsson et al., In-context Learning and Induction Heads, 2022). train.py gives many of these at first and few later.
"""

from words import ANIMALS, BELONGINGS, BOYS, COLOURS, GIRLS, HE_PETS, PEOPLE, SHE_PETS, THINGS, article, capital, listing, made_up

NAMES = sorted(set(BOYS + GIRLS + HE_PETS + SHE_PETS))
KINDS = sorted({row[0] for row in ANIMALS + PEOPLE + THINGS})
WORDS = sorted(set(NAMES + KINDS + COLOURS + BELONGINGS))


def some_names(rng, count):
    """Names without doubles, many of them of several tokens since nobody has them."""
    names = set()
    while len(names) < count:
        names.add(capital(made_up(rng)) if rng.random() < 0.4 else rng.choice(NAMES))
    return rng.sample(sorted(names), count)


def list_again(rng):
    """Words that the user says, and the assistant says again."""
    words = rng.sample(WORDS, rng.choice((2, 3, 5, 8, 13))) + some_names(rng, rng.choice((0, 1, 3)))
    rng.shuffle(words)
    if rng.random() < 0.5:
        text = listing(words)
    else:
        text = rng.choice((", ", " ", ". ")).join(words)
    say = rng.choice(("repeat: ", "say again: ", "repeat after me: ", "say: "))
    return [("user", say + text), ("assistant", capital(text) + "." * (text[-1] != "."))]


def who_is_who(rng):
    """Beings with names, colours and things; then whose is what, in another order."""
    count = rng.choice((1, 2, 2, 3, 4))
    kinds, names = rng.sample(KINDS, count), some_names(rng, count)
    colours, things = rng.sample(COLOURS, count), rng.sample(BELONGINGS, count)
    beings = list(zip(kinds, names, colours, things))
    said = [f"{article(k)} {k} named {n} has {article(c)} {c} {t}" for k, n, c, t in beings]
    order = rng.sample(beings, count)
    forms = [lambda k, n, c, t: f"The {k}'s name is {n}.", lambda k, n, c, t: f"{n} is the {k}.",
             lambda k, n, c, t: f"The {k} is called {n}.", lambda k, n, c, t: f"{n} has the {c} {t}.",
             lambda k, n, c, t: f"The {k} has {article(c)} {c} {t}.", lambda k, n, c, t: f"The {t} of {n} is {c}.",
             lambda k, n, c, t: f"The {c} {t} belongs to {n}, the {k}."]
    answer = " ".join(form(*being) for being in order for form in rng.sample(forms, 4))
    return [("user", capital(". ".join(map(capital, said))) + ". Who is who?"), ("assistant", answer)]


def document(rng):
    """The next exercise."""
    return rng.choice((list_again, who_is_who))(rng)
