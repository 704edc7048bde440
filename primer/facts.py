"""Questions about everyday facts, and their answers.

Each function takes the random generator and returns (question, answer); the question is lower case at its start and
has no mark at its end, since generate.py dresses it as people write. The facts are in data/*.txt. Used by generate.py.
"""

import os

from words import article, capital, fill, listing, made_up

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


def read_lines(name):
    """The lines of a data file without comments and empty lines."""
    with open(os.path.join(DATA, name), encoding="utf-8") as f:
        return [line.strip() for line in f if line.strip() and not line.startswith("#")]


def read_parts(name):
    """A data file whose [headings] divide it, as a dictionary of lists of lines."""
    parts, current = {}, None
    for line in read_lines(name):
        if line.startswith("["):
            current = parts[line.strip("[]")] = []
        else:
            current.append(line)
    return parts


def _cells(line):
    return [cell.strip() for cell in line.split("|")]


EXPLAIN = [_cells(line) for line in read_lines("explain.txt")]
QA = [(question.split(" / "), answer) for question, answer in map(_cells, read_lines("qa.txt"))]
TABLES = {name: [_cells(line) for line in lines] for name, lines in read_parts("tables.txt").items()}
LISTS = {row[0]: row[1].split(", ") for row in TABLES["lists"]}
UNKNOWN = {name: [x for line in lines for x in line.split(", ")] for name, lines in read_parts("unknown.txt").items()}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
SEASON_OF = ["winter", "winter", "spring", "spring", "spring", "summer", "summer", "summer", "autumn", "autumn",
             "autumn", "winter"]
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
           "seventeen eighteen nineteen twenty").split()



def bare(noun):
    """A noun phrase without its article."""
    return noun.split(" ", 1)[1] if noun.split(" ")[0] in ("a", "an", "the") else noun


def explanation(rng):
    """What a thing is."""
    names, answer = rng.choice(EXPLAIN)
    names = [n.strip() for n in names.split(";")]
    one, many = names[0], names[-1]
    form = rng.random()
    if form < 0.45:
        return fill(rng, f"what is {one}", {}), answer
    if form < 0.60 and many != one:
        verb = "are" if one.startswith(("a ", "an ")) and many.endswith(("s", "fish")) else "is"
        return fill(rng, f"what {verb} {many}", {}), answer
    question = rng.choice((
        f"tell me about {many}", f"tell me something about {many}", f"what do you know about {many}",
        f"can you explain what {one} is", f"explain what {one} is", f"explain {one}", f"explain {many}",
        f"do you know what {one} is", f"can you tell me what {one} is", f"tell me what {one} is",
        f"what does the word {bare(one)} mean", f"what does {bare(one)} mean", f"define {bare(one)}",
        f"what exactly is {one}", f"describe {one}", f"could you explain {many} to me", f"please explain {one}",
        f"i want to know what {one} is", f"what can you tell me about {many}", f"{bare(one)}", f"what is {bare(one)}"))
    return question, answer


def asked_often(rng):
    """One of the questions of qa.txt."""
    questions, answer = rng.choice(QA)
    question = rng.choice(questions)
    if question.startswith(("why ", "how ", "what ", "where ", "who ", "when ", "which ")) and rng.random() < 0.12:
        question = rng.choice(("tell me: ", "please tell me: ", "explain: ", "do you know ", "can you tell me: ",
                               "i want to know ", "can you explain ", "i wonder ")) + question
    elif rng.random() < 0.05:
        question = rng.choice(("do you know the answer: ", "a question: ", "i have a question. ")) + question
    return question, answer


def capital_city(rng):
    """A country and its capital, asked either way, or its continent."""
    country, city, continent = rng.choice(TABLES["capitals"])
    form, known = rng.random(), rng.random() < 0.85
    if not known:
        form, country = form * 0.7, rng.choice(UNKNOWN["countries"])
    if form < 0.70:
        question = rng.choice((f"what is the capital of {country}",) * 4 + (
            f"what is the capital city of {country}", f"which city is the capital of {country}",
            f"capital of {country}", f"tell me the capital of {country}", f"name the capital of {country}",
            f"do you know the capital of {country}", f"what city is the capital of {country}",
            f"can you tell me the capital of {country}", f"the capital of {country} is", f"{country} capital"))
        return question, (f"The capital of {country} is {city}." if known else
                          "I am sorry, I do not know the capital of that country.")
    if form < 0.85:
        country = {"England": "the United Kingdom", "America": "the United States"}.get(country, country)
        question = rng.choice((f"{city} is the capital of which country", f"which country has the capital {city}",
                               f"what country is {city} the capital of", f"where is {city}", f"what is {city}",
                               f"in which country is {city}", f"where is {city} located"))
        return question, f"{city} is the capital of {country}."
    question = rng.choice((f"where is {country}", f"in which continent is {country}", f"which continent is {country} in",
                           f"what continent is {country} in", f"on which continent is {country}"))
    verb = "are" if country in ("the Netherlands", "the Philippines", "the United States") else "is"
    return question.replace(" is " + country, f" {verb} {country}"), f"{capital(country)} {verb} in {continent}."


def colour(rng):
    """The colour of a thing."""
    thing, shade = rng.choice(TABLES["colours"])
    question = rng.choice((f"what colour is {thing}",) * 3 + (f"what is the colour of {thing}",
                          f"which colour does {thing} have", f"tell me the colour of {thing}",
                          f"what is the colour of {bare(thing)}"))
    return question, f"{capital(thing)} is {shade}."


def animal(rng):
    """Something about an animal: its young, sound, legs, food or home."""
    kind, young, sound, legs, food, home = rng.choice(TABLES["animals"])
    one, many = f"{article(kind)} {kind}", _plural(kind)
    form = rng.randrange(5)
    if form == 0:
        return (rng.choice((f"what is a baby {kind} called", f"what do you call a baby {kind}",
                            f"what is the name of a baby {kind}", f"what is a young {kind} called")),
                f"A baby {kind} is called {article(young)} {young}.")
    if form == 1 and sound:
        return (rng.choice((f"what sound does {one} make", f"what does {one} say", f"what noise does {one} make",
                            f"how does {one} go", f"what sound do {many} make")),
                f"{capital(one)} goes \"{sound}\".")
    if form == 2:
        part = "arms" if kind == "octopus" else "legs"
        count = "no" if legs == "0" else NUMBERS[int(legs)]
        return (rng.choice((f"how many legs does {one} have",) * 3 + (f"how many legs do {many} have",
                            f"number of legs of {one}", f"how many legs has {one}")),
                f"{capital(one)} has {count} {part}.")
    if form == 3:
        return (rng.choice((f"what does {one} eat", f"what do {many} eat", f"what do {many} like to eat",
                            f"what is the food of {one}", f"what should i feed {one}")),
                f"{capital(many)} eat {food}.")
    return (rng.choice((f"where do {many} live", f"where does {one} live", f"where can i find {many}",
                        f"where can you find {one}", f"what is the home of {one}")),
            f"{capital(many)} live {home}.")


def _plural(kind):
    odd = {"mouse": "mice", "sheep": "sheep", "deer": "deer", "fish": "fish", "goose": "geese", "wolf": "wolves",
           "fox": "foxes", "butterfly": "butterflies", "octopus": "octopuses", "ox": "oxen", "donkey": "donkeys"}
    return odd.get(kind, kind + "s")


def word_game(rng):
    """Opposites, synonyms, plurals, past tenses and rhymes."""
    form = rng.random()
    if form < 0.35:
        a, b = rng.choice(TABLES["opposites"])
        firsts, seconds = [p[0] for p in TABLES["opposites"]], [p[1] for p in TABLES["opposites"]]
        if rng.random() < 0.5 and b not in firsts and seconds.count(b) == 1:
            a, b = b, a
        else:
            b = next(p[1] for p in TABLES["opposites"] if p[0] == a)
        return (rng.choice((f"what is the opposite of {a}",) * 4 + (f"opposite of {a}", f"tell me the opposite of {a}",
                            f"what is the contrary of {a}", f"give me the opposite of {a}", f"the opposite of {a}",
                            f"what word is the opposite of {a}")), f"The opposite of {a} is {b}.")
    if form < 0.50:
        a, b = rng.choice(TABLES["synonyms"])
        return (rng.choice((f"what is another word for {a}", f"give me a synonym for {a}", f"a synonym of {a}",
                            f"what word means the same as {a}", f"what is a synonym for {a}")),
                f"Another word for {a} is {b}.")
    if form < 0.65:
        a, b = rng.choice(TABLES["plurals"])
        return (rng.choice((f"what is the plural of {a}", f"plural of {a}", f"what is the plural form of {a}",
                            f"one {a}, two what", f"tell me the plural of {a}")), f"The plural of {a} is {b}.")
    if form < 0.78:
        a, b = rng.choice(TABLES["past"])
        return (rng.choice((f"what is the past tense of {a}", f"past tense of {a}", f"what is the past of {a}",
                            f"how do you say {a} in the past")), f"The past tense of {a} is {b}.")
    if form < 0.90:
        a, b = rng.choice(TABLES["rhymes"])
        return (rng.choice((f"what rhymes with {a}", f"which word rhymes with {a}", f"a rhyme for {a}",
                            f"give me a word that rhymes with {a}", f"find a rhyme for {a}")),
                f"{capital(b)} rhymes with {a}.")
    word = rng.choice(rng.choice(list(LISTS.values())))
    return (rng.choice((f"how do you spell {word}", f"spell {word}", f"spell the word {word}", f"how is {word} spelled",
                        f"can you spell {word}", f"how many letters are in the word {word}")),
            "I am sorry, I am not good at spelling. I see words as whole pieces, not as letters.")


def use(rng):
    """What a thing is used for."""
    thing, purpose = rng.choice(TABLES["uses"])
    many = thing in ("scissors", "glasses")
    verb, does = ("are", "do") if many else ("is", "does")
    question = rng.choice((f"what {verb} {thing} used for", f"what {verb} {thing} for", f"what {verb} {thing} good for",
                           f"what {does} {thing} do", f"why do people use {thing}", f"what do you do with {thing}",
                           f"what do people use {thing} for", f"what do i need {thing} for",
                           f"what is the purpose of {thing}", f"what can i do with {thing}"))
    return question, f"{capital(thing)} {verb} used for {purpose}."


def name_some(rng):
    """A list of things of one sort."""
    sort = rng.choice(list(LISTS))
    items = LISTS[sort]
    count = min(rng.choice((2, 3, 3, 3, 4, 5, 5)), len(items))
    number = rng.choice((str(count), NUMBERS[count]))
    question = rng.choice((f"name {number} {sort}", f"tell me {number} {sort}", f"give me {number} {sort}",
                           f"list {number} {sort}", f"can you name {number} {sort}", f"write down {number} {sort}",
                           f"i need {number} {sort}", f"say {number} {sort}", f"what are {number} {sort}",
                           f"give me a list of {number} {sort}"))
    if rng.random() < 0.15:
        count = min(5, len(items))
        question = rng.choice((f"name some {sort}", f"tell me some {sort}", f"give me a list of {sort}",
                               f"which {sort} do you know", f"what {sort} do you know", f"list some {sort}"))
    chosen = items[:count]
    if count == 5 or rng.random() < 0.7:
        return question, f"Here are {NUMBERS[count]} {sort}: {listing(chosen)}."
    return question, f"{capital(listing(chosen))}."


def is_it(rng):
    """Whether things belong to a sort."""
    sorts = [s for s in ("fruits", "vegetables", "birds", "insects", "trees", "flowers", "vehicles", "tools", "clothes",
                         "metals", "instruments", "drinks", "sea animals")]
    own, other = rng.sample(sorts, 2)
    thing = rng.choice(LISTS[own][:7])
    if own == "drinks" or own == "metals":
        question, verb = "is {} {}", "is"
        one = lambda sort: f"{article(sort)} {sort[:-1]}" if sort != "clothes" else "a piece of clothing"  # noqa: E731
        if rng.random() < 0.5:
            return question.format(thing, one(own)), f"Yes, {thing} is {one(own)}."
        return question.format(thing, one(other)), f"No, {thing} is not {one(other)}. It {verb} {one(own)}."
    if rng.random() < 0.5:
        return f"are {thing} {own}", f"Yes, {thing} are {own}."
    return f"are {thing} {other}", f"No, {thing} are not {other}. They are {own}."


def size(rng):
    """Which of two things is bigger or smaller."""
    things = [row[0] for row in TABLES["sizes"]]
    i, j = sorted(rng.sample(range(len(things)), 2))
    first, second = rng.sample((things[i], things[j]), 2)
    if rng.random() < 0.6:
        word = rng.choice(("bigger", "larger"))
        return (rng.choice((f"which is {word}, {first} or {second}", f"what is {word}, {first} or {second}",
                            f"what is {word}: {first} or {second}", f"which one is {word}, {first} or {second}")),
                f"{capital(things[j])} is {word} than {things[i]}.")
    if rng.random() < 0.5:
        answer = "Yes" if first == things[j] else "No"
        return (f"is {first} bigger than {second}", f"{answer}, {things[j]} is bigger than {things[i]}.")
    return (rng.choice((f"which is smaller, {first} or {second}", f"what is smaller, {first} or {second}")),
            f"{capital(things[i])} is smaller than {things[j]}.")


def calendar(rng):
    """Days, months and seasons."""
    form = rng.randrange(6)
    if form < 2:
        names, unit = (DAYS, "day") if form == 0 else (MONTHS, "month")
        i, after = rng.randrange(len(names)), rng.random() < 0.6
        word = "after" if after else "before"
        other = names[(i + (1 if after else -1)) % len(names)]
        return (rng.choice((f"what {unit} comes {word} {names[i]}", f"which {unit} comes {word} {names[i]}",
                            f"what is the {unit} {word} {names[i]}", f"what comes {word} {names[i]}")),
                f"{other} comes {word} {names[i]}.")
    i = rng.randrange(12)
    if form == 2:
        days = "28 days, and 29 in a leap year" if i == 1 else f"{MONTH_DAYS[i]} days"
        return (rng.choice((f"how many days does {MONTHS[i]} have", f"how many days are in {MONTHS[i]}",
                            f"how long is {MONTHS[i]}")), f"{MONTHS[i]} has {days}.")
    if form == 3:
        return (rng.choice((f"in which season is {MONTHS[i]}", f"what season is {MONTHS[i]}",
                            f"which season is {MONTHS[i]} in")),
                f"In the north of the world, {MONTHS[i]} is in {SEASON_OF[i]}.")
    if form == 4:
        seasons = ["spring", "summer", "autumn", "winter"]
        s = rng.randrange(4)
        return (rng.choice((f"what season comes after {seasons[s]}", f"which season comes after {seasons[s]}",
                            f"what comes after {seasons[s]}")),
                f"{capital(seasons[(s + 1) % 4])} comes after {seasons[s]}.")
    day = rng.randrange(7)
    if rng.random() < 0.5:
        return (rng.choice((f"today is {DAYS[day]}. what day is tomorrow", f"if today is {DAYS[day]}, what day is tomorrow")),
                f"If today is {DAYS[day]}, tomorrow is {DAYS[(day + 1) % 7]}.")
    return (rng.choice((f"today is {DAYS[day]}. what day was yesterday", f"if today is {DAYS[day]}, what day was yesterday")),
            f"If today is {DAYS[day]}, yesterday was {DAYS[(day - 1) % 7]}.")


TOO_BIG = "That sum is too big for me. I am a very small model, and I can only do small sums."
ADD, SUB, MUL = range(3)
SIGNS = {ADD: (" + ", "+", " plus ", " and "), SUB: (" - ", "-", " minus "), MUL: (" * ", " x ", " times ", "*")}
SPOKEN = {ADD: "plus", SUB: "minus", MUL: "times"}


def sum_of(rng):
    """A small sum, or one that is too big."""
    kind = rng.choices((ADD, SUB, MUL), (50, 30, 20))[0]
    if rng.random() < 0.12:
        a, b = rng.randrange(12, 10000), rng.choice((rng.randrange(6, 30), rng.randrange(25, 1000)))
        sign = rng.choice(SIGNS[kind][:3])
        if sign == " and ":
            sign = " plus "
        return rng.choice(("what is {}", "{}", "calculate {}")).format(f"{a}{sign}{b}"), TOO_BIG
    if kind == ADD:
        a, b = rng.randrange(11), rng.randrange(11)
        result = a + b
    elif kind == SUB:
        a = rng.randrange(11)
        b = rng.randrange(a + 1)
        result = a - b
    else:
        a, b = rng.randrange(6), rng.randrange(6)
        result = a * b
    sign = rng.choice(SIGNS[kind])
    a_text, b_text = (NUMBERS[a], NUMBERS[b]) if max(a, b) <= 20 and rng.random() < 0.12 and " " in sign else (a, b)
    expression = f"{a_text}{sign}{b_text}"
    if sign == " and ":
        question = rng.choice((f"add {expression}", f"what is the sum of {expression}", f"how much is {expression}"))
    else:
        question = rng.choice((f"what is {expression}", f"what is {expression}", f"{expression}", f"how much is {expression}",
                               f"calculate {expression}", f"{expression} =", f"what does {expression} make",
                               f"can you tell me what {expression} is", f"what's {expression}", f"{expression} = ?"))
    return question, f"{a} {SPOKEN[kind]} {b} is {result}."


def counting(rng):
    """Counting up and down, neighbours, halves, doubles, even and odd, the larger of two."""
    form = rng.randrange(8)
    if form == 0:
        start, end = 1, rng.randrange(3, 21)
        if rng.random() < 0.35:
            start = rng.randrange(1, 13)
            end = start + rng.randrange(3, 10)
        question = (rng.choice((f"count to {end}", f"please count to {end}", f"can you count to {end}",
                                f"count up to {end}", f"count from 1 to {end}", f"count to {NUMBERS[min(end, 20)]}"))
                    if start == 1 and end <= 20 else f"count from {start} to {end}")
        return question, ", ".join(map(str, range(start, end + 1))) + "."
    if form == 1:
        start = rng.randrange(3, 16)
        return (rng.choice((f"count backwards from {start}", f"count down from {start}", f"count from {start} to 1")),
                ", ".join(map(str, range(start, 0, -1))) + ".")
    n = rng.randrange(1, 21)
    if form == 2:
        return (rng.choice((f"what number comes after {n}", f"what comes after {n}", f"which number comes after {n}",
                            f"what is the next number after {n}")), f"{n + 1} comes after {n}.")
    if form == 3:
        return (rng.choice((f"what number comes before {n}", f"what comes before {n}", f"which number is before {n}")),
                f"{n - 1} comes before {n}.")
    if form == 4:
        word = "even" if n % 2 == 0 else "odd"
        return (rng.choice((f"is {n} even or odd", f"is {n} an even number", f"is {n} an odd number", f"is {n} odd")),
                f"{n} is {article(word)} {word} number.")
    if form == 5:
        m = rng.randrange(1, 21)
        if m == n:
            m += 1
        return (rng.choice((f"which is bigger, {n} or {m}", f"what is bigger, {n} or {m}", f"which number is larger, {n} or {m}",
                            f"what is more, {n} or {m}")), f"{max(n, m)} is more than {min(n, m)}.")
    half = rng.randrange(1, 11)
    if form == 6:
        return f"what is half of {2 * half}", f"Half of {2 * half} is {half}."
    return rng.choice((f"what is the double of {half}", f"what is double {half}", f"what is twice {half}")), \
        f"Twice {half} is {2 * half}."


def unknown_word(rng):
    """A word that nobody knows, and somebody whom the model has never heard of."""
    if rng.random() < 0.3:
        name = rng.choice((capital(made_up(rng)) + " " + capital(made_up(rng)), rng.choice(UNKNOWN["people"])))
        return (rng.choice((f"who is {name}", f"who was {name}", f"tell me about {name}", f"do you know {name}",
                            f"what did {name} do")), "I am sorry, I do not know who that is.")
    if rng.random() < 0.5:
        one = rng.choice(UNKNOWN["things"])
        return (rng.choice((f"what is {one}",) * 3 + (f"explain what {one} is", f"tell me about {one}",
                            f"what does {bare(one)} mean", f"do you know what {one} is", f"what is {bare(one)}",
                            f"can you tell me what {one} is")), "I am sorry, I do not know what that is.")
    word = made_up(rng)
    one = f"{article(word)} {word}"
    return (rng.choice((f"what is {one}", f"what is {word}", f"explain {word}", f"what does {word} mean",
                        f"tell me about {word}", f"what is {one} used for", f"do you know what {one} is",
                        f"what colour is {one}", f"where do i find {one}", f"how do i use {one}")),
            "I am sorry, I do not know what that is.")


# How often each kind of question is asked.
KINDS = [(explanation, 24), (asked_often, 28), (capital_city, 8), (colour, 3), (animal, 7), (word_game, 8), (use, 4),
         (name_some, 6), (is_it, 2), (size, 2), (calendar, 4), (sum_of, 6), (counting, 4), (unknown_word, 8)]


def fact(rng):
    """A question of any kind and its answer."""
    return rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0](rng)
