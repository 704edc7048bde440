"""The words that stories are made of, and the small template language of the generator.

A template is English text with three marks: `[this|that]` is one of several, `{key}` is looked up in a dictionary,
and `a~ word` becomes "a word" or "an word" by the sound of what follows. Used by stories.py, talk.py and generate.py.
"""

import random
import re

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_KEY = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa])~ (\w+)")
_AN = re.compile(r"(?i)^(?:[aeio]|u(?!ni|se|su|ti|ku|ra\b)|hour|honest)(?!ne\b|nce\b)")


def article(word):
    """The indefinite article that goes before a word."""
    return "an" if _AN.match(word) and not word.lower().startswith(("eu", "ew")) else "a"


def fill(rng, template, values, first=0.0):
    """A template as text. Choices are made from the inside out, then keys, then articles.

    `first` is the chance that a choice is its first alternative whatever the others are.
    """
    def pick(match):
        choices = match.group(1).split("|")
        return choices[0] if first and rng.random() < first else rng.choice(choices)
    while True:
        text = _CHOICE.sub(pick, template)
        if text == template:
            break
        template = text
    text = _KEY.sub(lambda m: str(values[m.group(1)]), text)
    return _ARTICLE.sub(lambda m: m.group(1) + article(m.group(2))[1:] + " " + m.group(2), text)


def capital(text):
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def table(text):
    """Rows of a table written as lines with | between the columns; empty lines are skipped."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines() if line.strip()]


GIRLS = """Lily Mia Anna Emma Sara Rosa Nina Ella Ruby Lucy Clara Maya Zoe Ivy Alice Daisy Holly Nora Hanna Eva Amy Molly
Sophie Grace Luna Jane Kate Bella Ada Elsa Tara Leila Fatima Yuki Priya Ines Greta Freya Olga Marta Wendy Penny Heidi
Julia Laura Maria Poppy Hazel Iris Flora""".split()
BOYS = """Tom Ben Max Sam Leo Jack Tim Finn Noah Oscar Paul Peter Omar Hugo Felix Milo Otto Theo Luke Adam Jonas Emil
Henry Ravi Kenji Ali Mateo Pablo Ivan Nils Oliver Daniel David Simon Robin Toby Charlie George Harry Arthur Bruno Carlo
Erik Frank Joe Karl Martin Will Eddie Fred""".split()
HE_PETS = """Pip Biscuit Pepper Rusty Shadow Ziggy Button Tango Basil Rex Buddy Felix Bruno Milo Oscar Toby Dusty
Sprout""".split()
SHE_PETS = """Momo Coco Kiki Ginger Willow Sunny Clover Fern Lulu Maple Olive Honey Misty Daisy Ruby Bella Luna
Hazel""".split()
# Names that stories take by themselves; a user may ask for any.
HE_PEOPLE = "Tom Ben Max Sam Leo Jack Tim Finn Noah Paul Peter Hugo Otto Henry".split()
SHE_PEOPLE = "Lily Mia Anna Emma Sara Rosa Nina Ella Lucy Clara Maya Alice Nora Molly".split()

# noun | world | plural | foods. Worlds: land, sea, air.
ANIMALS = table("""
cat|land|cats|fish,cream
dog|land|dogs|bones,biscuits
mouse|land|mice|cheese,crumbs
rabbit|land|rabbits|carrots,clover
fox|land|foxes|berries,eggs
bear|land|bears|honey,berries
wolf|land|wolves|meat,stew
lion|land|lions|meat,stew
tiger|land|tigers|meat,stew
elephant|land|elephants|bananas,leaves
monkey|land|monkeys|bananas,nuts
giraffe|land|giraffes|leaves,apples
horse|land|horses|hay,apples
pony|land|ponies|hay,carrots
cow|land|cows|grass,clover
pig|land|pigs|apples,turnips
sheep|land|sheep|grass,clover
lamb|land|lambs|grass,clover
goat|land|goats|leaves,cabbages
hen|land|hens|corn,seeds
duck|land|ducks|bread,seeds
frog|land|frogs|flies,beetles
turtle|land|turtles|leaves,strawberries
squirrel|land|squirrels|nuts,acorns
otter|land|otters|fish,crabs
deer|land|deer|grass,leaves
kitten|land|kittens|milk,fish
puppy|land|puppies|biscuits,bones
panda|land|pandas|bamboo,leaves
camel|land|camels|dates,grass
snake|land|snakes|eggs,stew
spider|land|spiders|flies,gnats
ant|land|ants|crumbs,sugar
penguin|land|penguins|fish,shrimps
polar bear|land|polar bears|fish,berries
chicken|land|chickens|corn,seeds
owl|air|owls|soup,cakes
robin|air|robins|crumbs,berries
crow|air|crows|corn,cherries
parrot|air|parrots|nuts,mangoes
swan|air|swans|reeds,bread
bird|air|birds|seeds,berries
bee|air|bees|honey,nectar
butterfly|air|butterflies|nectar,honey
dragonfly|air|dragonflies|gnats,dew
firefly|air|fireflies|nectar,dew
fish|sea|fish|seaweed,shrimps
whale|sea|whales|shrimps,little fish
dolphin|sea|dolphins|fish,squid
shark|sea|sharks|fish,seaweed cakes
seal|sea|seals|fish,squid
""")

# noun | he, she or any | plural
PEOPLE = table("""
girl|she|girls
boy|he|boys
king|he|kings
queen|she|queens
princess|she|princesses
prince|he|princes
farmer|any|farmers
baker|any|bakers
knight|any|knights
witch|she|witches
wizard|he|wizards
teacher|any|teachers
pirate|any|pirates
grandmother|she|grandmothers
old man|he|old men
gardener|any|gardeners
musician|any|musicians
doctor|any|doctors
cook|any|cooks
child|any|children
dancer|any|dancers
singer|any|singers
magician|any|magicians
dragon|any|dragons
giant|any|giants
fairy|she|fairies
elf|any|elves
unicorn|any|unicorns
ghost|any|ghosts
monster|any|monsters
snowman|he|snowmen
dinosaur|any|dinosaurs
programmer|any|programmers
man|he|men
mother|she|mothers
father|he|fathers
""")

# noun | where it lives | plural
THINGS = table("""
robot|in a workshop at the edge of the town|robots
cloud|high above a green valley|clouds
star|far up in the night sky|stars
kite|in a shed behind a blue house|kites
train|at a small station in the hills|trains
boat|in a quiet harbour|boats
tree|at the top of a hill|trees
flower|in a garden behind an old wall|flowers
lamp|on a desk beside a window|lamps
clock|on the wall of an old house|clocks
doll|in a box under a bed|dolls
teddy bear|on a pillow in a child's room|teddy bears
car|in a garage at the end of a street|cars
balloon|in a bright little shop|balloons
button|in a tin box full of buttons|buttons
spoon|in a kitchen drawer|spoons
stone|on the bank of a clear stream|stones
river|between two green hills|rivers
mountain|in the middle of a wide land|mountains
moon|high above the sleeping world|moons
leaf|on the highest branch of an oak tree|leaves
bicycle|in a shop full of old things|bicycles
broom|in a cupboard under the stairs|brooms
book|on the top shelf of a library|books
shoe|in a box at the back of a shop|shoes
snowball|at the foot of a steep hill|snowballs
computer|in a quiet room full of books|computers
bus|in a busy town by the sea|buses
ship|in a harbour full of masts|ships
house|at the end of a long lane|houses
mirror|in the hall of an old castle|mirrors
toy|in a basket beside the fireplace|toys
sock|in a drawer full of socks|socks
""")

LAND_HOMES = ["in a small house at the edge of the forest", "in a village by a river", "near a quiet pond",
              "in a green valley", "on a farm", "on a hill above a village", "in a cottage near the sea",
              "in a garden full of flowers", "at the foot of a mountain", "in a little town",
              "on a small island", "in a deep, green wood", "beside an old mill", "in a snowy land far away",
              "in the middle of a big city", "at the edge of a desert"]
AIR_HOMES = ["in a tall oak tree", "in a nest above a quiet pond", "under the roof of an old barn",
             "in a garden full of flowers", "at the top of an old tower", "in a deep, green wood",
             "in a hollow tree beside a meadow", "on a cliff above the sea"]
SEA_HOMES = ["in a bright coral reef", "in the deep blue sea", "near an old sunken ship", "in a warm, quiet bay",
             "in a cave under the waves", "in the kelp forest", "at the bottom of the sea"]
LAND_PLACES = ["forest", "meadow", "river", "old bridge", "village", "market", "hill", "lake", "garden", "old mill",
               "beach", "orchard", "cave", "park", "valley", "waterfall"]
SEA_PLACES = ["reef", "sunken ship", "kelp forest", "big rock", "dark cave", "sandy bay", "coral garden"]
ADJECTIVES = ["little", "small", "young", "kind", "clever", "shy", "brave", "curious", "cheerful", "gentle", "lonely",
              "old", "quiet", "proud", "lazy", "busy", "friendly", "funny", "happy", "tiny", "big", "sleepy", "wise"]
COLOURS = ["red", "blue", "green", "yellow", "white", "purple", "golden", "silver", "orange", "pink", "brown"]
BELONGINGS = ["hat", "scarf", "ball", "key", "ring", "bell", "book", "basket", "lantern", "ribbon", "flute", "cup",
              "blanket", "map", "button", "necklace", "whistle", "drum", "feather", "shell", "spoon", "coat"]
SKILLS = table("""
sing|singing|sang
dance|dancing|danced
paint|painting|painted
read|reading|read
whistle|whistling|whistled
cook|cooking|cooked
juggle|juggling|juggled
play the drum|playing the drum|played the drum
play the flute|playing the flute|played the flute
tell stories|telling stories|told stories
write|writing|wrote
draw|drawing|drew
""")
GIFTS = ["a cake with candles", "a basket of apples", "a warm scarf", "a wooden box", "a little lantern",
         "a song that they had made", "a big red kite", "a pot of honey", "a book full of pictures"]
SYLLABLES = ("ba be bi bo bu da de di do du fa fi fo ga gi go ka ki ko la le li lo lu ma me mi mo na ne ni no pa pe pi "
             "po ra re ri ro sa se si so ta te ti to va ve vi vo wa wi za ze zi zo blo gri flo sni plu tro zwi quo"
             ).split()
ENDINGS = ["", "", "", "x", "n", "b", "rk", "mp", "nd", "l", "r", "s", "g", "t", "ck", "zz"]


def made_up(rng):
    """A word that nobody has heard before."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((1, 2, 2, 3)))) + rng.choice(ENDINGS[3:] if
                                                                                          rng.random() < .5 else
                                                                                          ENDINGS)


def favourites(choices, kind, count):
    """The few of some choices that a kind of being has, always the same ones."""
    return random.Random(kind).sample(choices, min(count, len(choices)))


def listing(words):
    """Words as "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
