"""Random modifiers that go into a topic, in prompt and argument alike: a student learns to copy.

Names, codes, places, times and plain words come from lists that all rules share, so that they say
nothing about the label. Many are invented, and so split into many subword tokens: unseen words are
what a copying student gets wrong first.
"""

from __future__ import annotations

from random import Random

from distill.teachers.grammar.english import word_list

_ONSETS = word_list(
    "b br c ch d dr f fl g gr h j k kr l m n p pl qu r s sh sk st t th tr v w x y z"
)
_VOWELS = word_list("a e i o u ai au ee ia io oa oo ou ue y")
_CODAS = (*("",) * 3, *word_list("b ck d ft k l lm m n nd nx p r rk rn s sk st t th v x z"))
_ENDINGS = word_list("a o ex ix on ar is us um el ia ora ent ify ly io eon ard ik")
_TAILS = word_list("js io py rs cpp md ai dev net app yml csv")
_PARTS = word_list(
    "core lite pro hub kit lab base flow sync grid desk line gate port box api cli sdk web data "
    "node beam path mesh mark view link cast one go x max plus"
)

PLACES = word_list(
    "Berlin|Lisbon|Oslo|Nairobi|Osaka|Denver|Toronto|Prague|Seoul|Austin|Dublin|Mumbai|Warsaw|"
    "Lyon|Geneva|Cairo|Lima|Boston|Zurich|Helsinki|Manila|Quito|Tallinn|Accra|Bogota|Perth|"
    "Hanoi|Porto|Malmo|Leeds|Utrecht|Krakow|Tampa|Calgary|Busan|Jakarta|Ghent|Antwerp|Riga|"
    "Vilnius|Izmir|Tbilisi|Almaty|Dakar|Lusaka|Maputo|Cusco|Rosario|Guadalajara|Reykjavik|"
    "Brazil|Norway|Kenya|Vietnam|Portugal|Chile|Finland|Poland|Ghana|Peru|Ireland|Taiwan|"
    "Bavaria|Ontario|Texas|Oregon|Scotland|Catalonia|Kerala|Tasmania|the Netherlands|the UK|"
    "the north|the west coast|South Korea|New Zealand|Costa Rica|Cape Town|Buenos Aires|"
    "Ho Chi Minh City|San Diego|Tel Aviv|Stuttgart|Gothenburg|Wroclaw|Montevideo|Ljubljana",
    separator="|",
)
PEOPLE = word_list(
    "Maria Lopez|Tom Becker|Aisha Khan|Yuki Tanaka|Olu Adeyemi|Priya Raman|Jens Holm|Chloe Martin|"
    "Samir Haddad|Ingrid Dahl|Pavel Novak|Linh Tran|Mateo Cruz|Fatima Zahra|George Osei|"
    "Hannah Weiss|Ravi Patel|Sofia Rossi|Kwame Mensah|Elena Petrova|Marcus Webb|Noor Aziz|"
    "Dmitri Orlov|Beatriz Silva|Kenji Mori|Zoe Papadakis|Lars Nygaard|Amara Obi|Wei Zhang|"
    "Callum Frase|Ximena Rojas|Tariq Aslam|Birgit Vogel|Anselm Kroeger|Oksana Bondar",
    separator="|",
)
MONTHS = word_list(
    "January February March April May June July August September October November December"
)
WORDS = word_list(
    "lantern magnet quartz saddle orchard ribbon copper violet harbor meadow pepper thunder "
    "marble falcon cactus velvet puzzle rocket anchor basket candle dragon engine feather garden "
    "hammer island jacket kettle ladder mirror needle oyster pillow quiver rabbit shadow tunnel "
    "umbrella valley walnut yogurt zipper acoustic bamboo cinnamon domino elastic fabric glacier "
    "hybrid indigo jasmine koala lemon mosaic nectar opal pebble quilt raven sapphire timber "
    "ultra vintage willow xylophone yellow zebra antique brisk cobalt dusty eager fragile gentle "
    "hollow icy jolly keen lunar mellow narrow orange proud rapid silent tiny urban vivid wooden "
    "bridge carbon delta ember forest granite helium ivory juniper kernel lagoon monsoon nylon "
    "olive pixel radar satin turbine uranium vapor wax alloy blanket cement diesel enamel filter "
    "gravel hinge insulin jigsaw keyboard laser muffler napkin oxygen piston quiche rubber solar "
    "tripod utensil vaccine widget yacht algebra ballot cartoon debate essay fiction grammar "
    "hockey icon jury karate lyric melody novel opera poetry quiz rhythm saga tango verse waltz "
    "apron bakery chisel dentist editor farmer gymnast hostel inspector janitor knight lawyer "
    "midwife nurse officer pilot ranger sailor tailor usher vendor welder autumn blizzard comet "
    "drought eclipse flood gale hail midnight sunrise tide volcano almond broccoli cheddar "
    "dumpling espresso fennel ginger hazelnut kiwi lentil mango noodle oregano pretzel radish "
    "salmon tofu vanilla wasabi zucchini binary cursor decimal fractal hexagon integer matrix "
    "polygon radius sigma theorem vector axle bumper clutch gearbox pedal rudder throttle "
    "backlog bottleneck carousel dashboard eyelet firefly gasket hourglass inkwell jukebox kayak "
    "lighthouse mailbox nightfall outpost paperclip quicksand rainfall snowflake toolbox "
    "underpass viaduct waterfall paragraph signature envelope receipt voucher pamphlet ledger "
    "amber bronze crimson emerald fuchsia khaki lilac maroon scarlet teal turquoise"
)

_QUALIFIERS = word_list(
    "in {place}|in {place}|for {place}|for {place}|from {place}|near {place}|in {year}|"
    "for {year}|since {year}|before {year}|in {month}|in {month} {year}|since last {month}|"
    "for {name}|for {name}|for {name}|in {name}|on {name}|from {name}|with {name}|"
    "with {name}|using {name}|via {name}|called {name}|called {name} {name}|and {name}|"
    "or {name}|for {name} and {name}|with {name} or {name}|like {name}|for {code}|on {code}|"
    "with {code}|version {version}|in version {version}|for {name} {version}|by {person}|"
    "from {person}|for {person}|about {word} {word}|about {word} {name}|for {word} {word}|"
    "for {word} {word} {word}|with {word}|with {word} and {word}|for {word} and {name}|"
    "without {word}|related to {word} {word}|involving {name}|on {word}|using {word} {code}|"
    "as {word} {word}",
    separator="|",
)
# Qualifiers that begin so follow a noun, and no verb phrase.
_NOUN_ONLY = word_list("called about like related involving by version and or as")
_ACTION_QUALIFIERS = tuple(text for text in _QUALIFIERS if not text.startswith(_NOUN_ONLY))
_REQUEST_QUALIFIERS = word_list(
    "in {place}|in {year}|for {name}|for {code}|for {word} {word}|with {name}|in {name}|"
    "for {person}|for {name} {version}|on {name}",
    separator="|",
)
_MODIFIERS = word_list(
    "{name}|{name}|{name}|{place1}|{year}|{code}|{word}|{word} {word}|{name} {word}|"
    "{word} {name}|{version}|{name} {name}",
    separator="|",
)


def invented_name(rng: Random) -> str:
    """An invented product name: zorvex, Tabrix-core, quandl.io, vlinHub."""
    name = _blend(rng) if rng.random() < 0.4 else _spell(rng)
    if len(name) < 4 or rng.random() < 0.25:
        name += rng.choice(_ENDINGS)
    match rng.randrange(10):
        case 0:
            return f"{name}.{rng.choice(_TAILS)}"
        case 1:
            return f"{name}-{rng.choice(_PARTS)}"
        case 2:
            return f"{name.capitalize()}{rng.choice(_PARTS).capitalize()}"
        case 3:
            return f"{name}{rng.randrange(2, 100)}"
        case 4:
            return f"{rng.choice(_PARTS)}-{name}"
        case 5 | 6:
            return name
        case 7:
            return rng.choice(_PARTS) + name
        case _:
            return name.capitalize()


def code(rng: Random) -> str:
    """A product code: QX-204, H7731, TK-88b."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice((1, 2, 3))))
    number = str(rng.randrange(2, 10 ** rng.choice((1, 2, 3, 4)) + 2))
    return letters + rng.choice(("-", "-", "", " ")) + number + rng.choice(("", "", "", "b", "x"))


def version(rng: Random) -> str:
    """v2.14, 3.0.1, 11"""
    parts = [str(rng.randrange(0, 20)) for _ in range(rng.choice((2, 2, 3)))]
    return rng.choice(("v", "")) + ".".join(parts)


def modifier(rng: Random) -> str:
    """A modifier that may precede any noun, such as `zorvex` or `2024`."""
    return _fill_fields(rng.choice(_MODIFIERS), rng)


def qualifier(rng: Random) -> str:
    """A qualifier that may follow any noun phrase, such as `in Lisbon` or `called zorvex`."""
    return _fill_fields(rng.choice(_QUALIFIERS), rng)


def action_qualifier(rng: Random) -> str:
    """A qualifier that may follow any verb phrase."""
    return _fill_fields(rng.choice(_ACTION_QUALIFIERS), rng)


def request_qualifier(rng: Random) -> str:
    """A qualifier that may follow most complete requests."""
    return _fill_fields(rng.choice(_REQUEST_QUALIFIERS), rng)


def _blend(rng: Random) -> str:
    """The start of one word and the end of another: lantbow, magfowl."""
    first, second = rng.choice(WORDS), rng.choice(WORDS)
    return first[: rng.randrange(2, 6)] + second[-rng.randrange(2, 5) :]


def _spell(rng: Random) -> str:
    return "".join(_syllable(rng) for _ in range(rng.choice((1, 2, 2))))


def _syllable(rng: Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)


def _fill_fields(template: str, rng: Random) -> str:
    return " ".join(_field_value(part, rng) for part in template.split(" "))


def _field_value(part: str, rng: Random) -> str:
    match part:
        case "{name}":
            return invented_name(rng)
        case "{code}":
            return code(rng)
        case "{version}":
            return version(rng)
        case "{place}":
            return rng.choice(PLACES)
        case "{place1}":
            return rng.choice([place for place in PLACES if " " not in place])
        case "{person}":
            return rng.choice(PEOPLE)
        case "{month}":
            return rng.choice(MONTHS)
        case "{year}":
            return str(rng.randrange(2012, 2032))
        case "{word}":
            return rng.choice(WORDS)
        case _:
            return part
