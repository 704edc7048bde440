"""Writes stories, and the requests that ask for them.

story() picks characters and a plot and returns a Story; request() says what a user may have asked to get it;
follow_up() asks something about it. The character that was asked for is always the hero. Used by generate.py.
"""

from frames import BROKENS, FEARS, FRAMES, GOALS, LOST_IN
from words import (ADJECTIVES, AIR_HOMES, ANIMALS, BELONGINGS, BOYS, COLOURS, GIFTS, GIRLS, LAND_HOMES, LAND_PLACES,
                   HE_PEOPLE, HE_PETS, PEOPLE, SEA_HOMES, SEA_PLACES, SHE_PEOPLE, SHE_PETS, SKILLS, THINGS, article,
                   capital, favourites, fill, made_up)

PRONOUNS = {"he": ("he", "him", "his", "himself"), "she": ("she", "her", "her", "herself")}
NAMES = {"he": (BOYS, HE_PEOPLE), "she": (GIRLS, SHE_PEOPLE)}
POOLS = {"he": (HE_PETS, HE_PEOPLE), "she": (SHE_PETS, SHE_PEOPLE)}


class Hero:
    """A character: kind of being, name, pronoun, adjective, home.

    The pronoun goes with the name, and each kind of being has a few names that it likes best: so small a model
    can't hold a name, a pronoun and a kind together when all of them are free.
    """

    def __init__(self, rng, group, row, adjective):
        self.group, self.kind, self.adjective = group, row[0], adjective
        self.world, self.food, self.home = "land", "apples", rng.choice(LAND_HOMES)
        self.plural = row[2]
        gender = rng.choice(("he", "she"))
        if group == "a":
            self.world, self.food = row[1], rng.choice(row[3].split(","))
            self.home = rng.choice({"land": LAND_HOMES, "air": AIR_HOMES, "sea": SEA_HOMES}[self.world])
        elif group == "p":
            gender = gender if row[1] == "any" else row[1]
        else:
            self.home = row[1]
        self.name = rng.choice(favourites(POOLS[gender][group == "p"], self.kind, 2))
        self.he, self.him, self.his, self.self = PRONOUNS[gender]

    def intro(self, adjective=True):
        """ "a~ little cat named Momo" """
        return f"a~ {self.adjective + ' ' if adjective else ''}{self.kind} named {self.name}"

    def keys(self, mark):
        """The template keys of this character; `mark` is "" for the hero and "2" for the other one."""
        out = {"n": self.name, "k": f"the {self.kind}", "kind": self.kind, "he": self.he, "him": self.him, "his": self.his,
               "self": self.self, "intro": self.intro(), "introx": f"a~ {self.adjective} {self.kind}",
               "introbig": self.intro(False), "adj": self.adjective, "home": self.home}
        out = {k + mark: v for k, v in out.items()}
        out.update({capital(k): capital(v) for k, v in list(out.items())})
        return out


class Story:
    """A finished story and what is known about it."""

    def __init__(self, text, frame, hero, friend, values, moral):
        self.text, self.frame, self.hero, self.friend = text, frame, hero, friend
        self.values, self.moral_said = values, moral


def hero_row(rng, wanted=None):
    """A group and a row of the word tables; `wanted` is a group letter string."""
    group = wanted or rng.choice("aaaaapppptt")
    return group, rng.choice({"a": ANIMALS, "p": PEOPLE, "t": THINGS}[group])


def new_hero(rng, invented=0.015):
    """Any character, now and then of a kind that nobody has heard of."""
    group, row = hero_row(rng)
    if rng.random() < invented:
        word = made_up(rng)
        group, row = "p", [word, "any", word + "s"]
    return Hero(rng, group, row, rng.choice(ADJECTIVES))


def fitting(hero, frame):
    """Whether this plot suits this character."""
    if hero.group not in frame.kinds:
        return False
    return frame.world == "any" or (frame.world == "land") == (hero.world != "sea")


def new_friend(rng, hero):
    """A second character of another kind and name, from the same world."""
    while True:
        group, row = hero_row(rng, rng.choice("aaap") if hero.world != "sea" else "a")
        friend = Hero(rng, group, row, rng.choice(ADJECTIVES))
        if (friend.kind != hero.kind and friend.name != hero.name and friend.adjective != hero.adjective
                and (friend.world == "sea") == (hero.world == "sea") and "tiny" != friend.adjective):
            return friend


# How often a story takes the first of several ways to say something: what is said most often is learned first.
USUAL = 0.6
OPENINGS = [
    "[Once upon a time|Once|Long ago|A long time ago|Once upon a time], there was {intro}. {He} lived {home}.",
    "[Once upon a time|Once|Long ago], {intro} lived {home}.",
    "There was once {intro} who lived {home}.",
    "[In a land far away|Far, far away], there lived {intro}. {His} home was {home}.",
    "{Intro} lived {home}.",
]
THING_LINES = ["[It was no ordinary {kind}|This was no ordinary {kind}]: it could [talk and move about|talk, think and go where it liked].",
               "Nobody knew that {n} could [talk and walk|think and speak], but {he} could."]


def values_of(rng, hero, friend):
    """Everything that templates may ask for."""
    places = rng.sample(SEA_PLACES if hero.world == "sea" else LAND_PLACES, 2)
    while places[0] in hero.home or places[1] in hero.home:
        places = rng.sample(SEA_PLACES if hero.world == "sea" else LAND_PLACES, 2)
    colour, skill = rng.choice(COLOURS), rng.choice(SKILLS)
    values = {"place": places[0], "other": places[1], "colour": colour, "food": hero.food,
              "thing": f"{colour} {rng.choice(BELONGINGS)}", "fear": rng.choice(FEARS),
              "broken": rng.choice(BROKENS), "goal": rng.choice(GOALS), "gift": rng.choice(GIFTS),
              "lost_in": rng.choice(LOST_IN if hero.world != "sea" else ["kelp forest", "deep sea"]),
              "skill": skill[0], "skilling": skill[1], "skilled": skill[2]}
    values.update(hero.keys(""))
    values.update(friend.keys("2"))
    return values


def story(rng, hero=None, theme=None, short=False, moral=None):
    """A new story. What is given is used; the rest is chosen at random."""
    hero = hero or new_hero(rng)
    frames = [f for f in FRAMES if fitting(hero, f) and (theme is None or theme in f.themes.split(","))]
    frames = frames or [f for f in FRAMES if fitting(hero, f)]
    if theme is None and rng.random() < 0.6:
        frames = favourites(frames, hero.kind, 3)
    frame = rng.choice(frames)
    if frame.name in ("fear", "lonely", "share") or rng.random() < 0.7:
        hero.adjective = rng.choice(frame.adjectives.split(","))
    friend = new_friend(rng, hero)
    values = values_of(rng, hero, friend)
    lines = [line for line in frame.lines.strip().splitlines()
             if not line.startswith("?") or (not short and rng.random() < 0.35)]
    opening = [OPENINGS[0] if rng.random() < USUAL else rng.choice(OPENINGS)]
    if hero.group == "t":
        opening.append(rng.choice(THING_LINES))
    parts = [fill(rng, line.lstrip("?").strip(), values, USUAL) for line in opening + lines]
    moral = rng.random() < 0.3 if moral is None else moral
    cut = (len(parts) + 1) // 2 if len(parts) > 9 and rng.random() < 0.5 else None
    if cut:
        text = " ".join(parts[:cut]) + "\n\n" + " ".join(parts[cut:])
    else:
        text = " ".join(parts)
    if moral:
        text += ("\n\n" if cut else " ") + rng.choice(("The moral of the story: ", "The moral: ")) + frame.moral
    return Story(text, frame, hero, friend, values, moral)


ASK = ["[Tell me|Write|Tell|Write me|Please tell me|Please write|Can you tell me|Could you tell me|Can you write|I want"
       "|I would like|Give me|Make up|Could you write me|Let me hear|I'd like to hear|Will you tell me|Create|Invent]"]
STORY = ["a story", "a story", "a story", "a short story", "a little story", "a tale", "a nice story", "a bedtime story",
         "a fairy tale", "a children's story", "a small story", "a happy story", "a fun story", "a very short story"]


def about(rng, s, ask_name):
    """Words that name the hero, and maybe the friend, the plot or the place. Only what the story keeps is said."""
    hero, pick = s.hero, rng.random()
    kind = f"{article(hero.kind)} {hero.kind}"
    with_adjective = f"{article(hero.adjective)} {hero.adjective} {hero.kind}"
    plot = fill(rng, rng.choice(s.frame.about.split("|")), s.values)
    if ask_name:
        return rng.choice((f"{kind} named {hero.name}", f"{kind} called {hero.name}", f"{hero.name} the {hero.kind}",
                           f"my {hero.kind} {hero.name}", f"{with_adjective} named {hero.name}",
                           f"{kind} whose name is {hero.name}"))
    if pick < 0.50:
        return rng.choice((kind, kind, kind, with_adjective, "the " + hero.kind, hero.plural))
    if pick < 0.72:
        other = f"{article(s.friend.kind)} {s.friend.kind}"
        return rng.choice((f"{kind} and {other}", f"{kind} and {other}", f"{kind} who meets {other}",
                           f"{kind} and its friend, {other}", f"the {hero.kind} and the {s.friend.kind}",
                           f"{hero.plural} and {s.friend.plural}"))
    if pick < 0.90:
        return rng.choice((f"{kind} who {plot}", f"{kind} that {plot}", f"{with_adjective} who {plot}"))
    return f"{kind} {hero.home}"


def named_hero(rng):
    """A character with a name that the user chose, often one that no other story has."""
    hero = new_hero(rng)
    if rng.random() < 0.7:
        hero.name = capital(made_up(rng)) if rng.random() < 0.2 else rng.choice(rng.choice(NAMES[hero.he]))
    return hero


def request(rng):
    """A (prompt, Story) of any sort."""
    pick, short = rng.random(), rng.random() < 0.4
    word = rng.choice(STORY)
    if "short" in word or "small" in word or "little" in word:
        short = True
    if pick < 0.12:
        s = story(rng, short=short)
        return fill(rng, rng.choice((ASK[0] + " " + word, "[A story|Story|Story time|A story, please|tell a story|"
                                     "I am bored, tell me a story|Do you know a story|Do you know any stories|"
                                     "Can you tell stories|Write something|Tell me something nice]")), {}), s
    if pick < 0.24:
        theme = rng.choice(sorted({t for f in FRAMES for t in f.themes.split(",")}))
        s = story(rng, theme=theme, short=short)
        if theme in s.frame.themes.split(","):
            return fill(rng, f"{ASK[0]} {word} about {theme}", {}), s
    moral, ask_name = True if rng.random() < 0.12 else None, rng.random() < 0.2
    s = story(rng, hero=named_hero(rng) if ask_name else None, short=short, moral=moral)
    subject = about(rng, s, ask_name)
    text = f"{ASK[0]} {word} about {subject}"
    if rng.random() < 0.06:
        text = f"[A story|Story|One story] about {subject}"
    if moral:
        text += rng.choice((" with a moral", " that has a moral", " and tell me the moral"))
    return fill(rng, text, {}), s


TINY = {
    1: ["{Intro} {lived} and [was happy every day|made a new friend every spring|always had time for others].",
        "Once upon a time, {intro} {lived} and found the best friend in the world: {intro2}.",
        "When {intro} met {intro2}, [both of them laughed|they shared some cake], and they were friends for ever."],
    2: ["{Intro} {lived}. One day {he} met {intro2}, and from then on they were [the best of friends|never alone again].",
        "{Intro} lost {his} {thing} near the {place}. {Intro2} found it and gave it back, and so they became friends.",
        "Once upon a time, {intro} wanted to see the {goal}. {He} went there with {intro2}, and they came home happy."],
    3: ["{Intro} {lived}. One day {he} met {intro2}, and they played together at the {place}. From then on, they were "
        "[the best of friends|never alone again].",
        "{Intro} was afraid of the {fear}. Then {intro2} took {him} by the hand, and together they went past it. After "
        "that, {n} was not afraid any more.",
        "{Intro} had lost {his} {thing}. {He} looked for it everywhere, and {intro2} helped {him}. In the evening they found "
        "it near the {place}, and both of them were happy.",
        "Once upon a time, {intro} {lived}. {He} wanted to learn to {skill}, and {he} practised every day. In the end, "
        "{he} {skilled} so well that everybody cheered."],
}


def tiny(rng):
    """A (prompt, text) for a story of one, two or three sentences."""
    count, hero = rng.choice((1, 2, 3, 3)), new_hero(rng)
    values = values_of(rng, hero, new_friend(rng, hero))
    values["lived"] = "lived " + hero.home
    word = rng.choice((("one", "two", "three")[count - 1], str(count))) + (" sentence" if count == 1 else " sentences")
    kind = f"{article(hero.kind)} {hero.kind}"
    subject = rng.choice((f" about {kind}", f" about {kind}", f" about {kind} named {hero.name}", ""))
    prompt = rng.choice((f"{ASK[0]} a story{subject} in {word}", f"{ASK[0]} a story in {word}{subject}",
                         f"{ASK[0]} {word}{subject}", f"in {word}, tell me a story{subject}"))
    return fill(rng, prompt, {}), fill(rng, rng.choice(TINY[count]), values, USUAL)


def follow_up(rng, s):
    """A (question, answer) about a story that was just told."""
    v = s.values
    named = [("[What was the name of the {kind}|What was the {kind}'s name|What is the {kind} called|"
              "Who was the main character|What was the hero's name]", "The {kind}'s name was {n}."),
             ("[Who is the story about|Who is the hero of the story]", "The story is about a~ {kind} named {n}.")]
    named += [("[Who did {n} meet|Who was the other character|Who else was in the story|Who was {n}'s friend]",
               "{N} met {introbig2}."),
              ("[Where did {n} live|Where does the {kind} live|Where did the {kind} live]", "{N} lived {home}."),
              ("[What is the moral of the story|What is the moral|What can we learn from this story|"
               "What does the story teach us|What's the moral of that story]", "The moral of the story is: " + s.frame.moral),
              ("[Is it a true story|Is that a true story|Did that really happen|Is this a real story]",
               "It is not a true story. I made it up for you."),
              ("[I liked that story|That was a nice story|Nice story|That was beautiful|I love it|What a nice story]",
               "[Thank you! I am glad that you liked it.|I am happy that you liked it. Would you like to hear another one?]")]
    if s.frame.name == "lost":
        named += [("[What did {n} lose|What did the {kind} lose|What was lost]", "{N} lost {his} {thing}.")] * 2
    if s.frame.name == "fear":
        named += [("[What was {n} afraid of|What was the {kind} afraid of]", "{N} was afraid of the {fear}.")] * 2
    if s.frame.name == "skill":
        named += [("[What did {n} learn|What did the {kind} want to learn]", "{N} learned to {skill}.")] * 2
    question, answer = rng.choice(named)
    return fill(rng, question, v), fill(rng, answer, v, USUAL)
