"""The wordings of the synthetic task.

A wording is a sentence with fields: `{n}` is its number (`{a}` and `{b}` where it has two, `{p}` a percentage), `{N}`
the person, `{s}` the name or a pronoun, `{O}` another person, `{x}` the things counted, `{y}` one article. Square
brackets mark the evidence: the words a verification chain quotes, which decide the operation. Events begin in lower
case, since a word of ORDER may precede them.

`wordings("seen | seen || unseen")`: seen wordings make the splits "train" and "test"; unseen ones, about a quarter,
make only the split "unseen". They are other sentences, built of words that occur in seen ones.
"""

# ruff: noqa: E501  (a verb and its sentences stay on one line)

from __future__ import annotations

from dataclasses import dataclass

ADD, SUB, MUL, PERCENT = "+", "-", "*", "% of"
ANSWER = "="  # the last step of a solution that states its answer: no operation, a value

WOMEN = ["Mia", "Ana", "Lena", "Ruth", "Nora", "Zoe", "Emma", "Kate", "Sara", "Ines", "Maya", "Lucy"]
MEN = ["Tom", "Raj", "Ben", "Omar", "Leo", "Ivan", "Paul", "Hugo", "Adam", "Noah", "Luis", "Max"]
THINGS = [
    "apples",
    "pens",
    "books",
    "coins",
    "cards",
    "stamps",
    "shells",
    "marbles",
    "stickers",
    "eggs",
    "cups",
    "balls",
    "flowers",
    "toys",
    "keys",
    "candles",
    "buttons",
    "pears",
    "lemons",
    "photos",
]
ARTICLES = ["hat", "bag", "lamp", "shirt", "phone", "chair", "coat", "watch", "clock", "jacket", "table", "ring"]


# ORDER[i] begins the sentence that asks for step i.
ORDER = (("First", "Soon"), ("Then", "Next"), ("Later", "Afterwards"), ("Finally", "Last"))


@dataclass(frozen=True)
class Wordings:
    """Alternative sentences for one place in a problem."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        return self.unseen if split == "unseen" else self.seen


def wordings(text: str) -> Wordings:
    """See the module's docstring for the notation."""
    seen, _, unseen = text.partition("||")
    return Wordings(*(tuple(part.strip() for part in side.split("|") if part.strip()) for side in (seen, unseen)))


@dataclass(frozen=True)
class Event:
    """One verb that changes the running value by one operation. A problem uses a verb at most once."""

    operation: str
    wordings: Wordings


@dataclass(frozen=True)
class Domain:
    """One kind of story.

    openings: one number ({n}), or two ({a}, {b}: a product; {p}, {b}: a percentage) with an opening_operation.
    apply: for percentages, what happens with the part: "-" (discount) or "+" (tip).
    results: how a solution may put the value {r} after a step into words; unit: the word after a bare result.
    """

    family: str
    openings: Wordings
    events: tuple[Event, ...]
    questions: Wordings
    results: tuple[str, ...]
    unit: str
    opening_operation: str | None = None
    apply: str | None = None


def _events(operation: str, *texts: str) -> tuple[Event, ...]:
    return tuple(Event(operation, wordings(text)) for text in texts)


_THING_EVENTS = (
    *_events(
        ADD,
        "{s} [buys {n}] more. | {s} [buys {n}] more {x}. | {s} [buys {n}] at the market. || {s} [buys {n}] at the shop.",
        "{s} [finds {n}] more. | {s} [finds {n}] in a box. | {s} [finds {n}] at home. || {s} [finds {n}] {x} at the market.",
        "{s} [gets {n}] from {O}. | {s} [gets {n}] more from {O}. | {s} [gets {n}] more. || {s} [gets {n}] from a friend.",
        "{s} [wins {n}] in a game. | {s} [wins {n}] more. | {s} [wins {n}] {x}.",
        "{s} [receives {n}] as a gift. | {s} [receives {n}] more. || {s} [receives {n}] from {O}.",
        "{s} [collects {n}] more. | {s} [collects {n}]. || {s} [collects {n}] {x}.",
        "{s} [borrows {n}] from {O}. | {s} [borrows {n}]. || {s} [borrows {n}] from a friend.",
    ),
    *_events(
        SUB,
        "{s} [gives {n}] to {O}. | {s} [gives {n}] away. | {s} [gives {n}] to a friend. || {s} [gives {n}] {x} to {O}.",
        "{s} [loses {n}]. | {s} [loses {n}] on the way home. | {s} [loses {n}] {x}. || {s} [loses {n}] in a game.",
        "{s} [sells {n}] to {O}. | {s} [sells {n}] at the market. | {s} [sells {n}]. || {s} [sells {n}] of them.",
        "{s} [uses {n}] of them. | {s} [uses {n}] at home. | {s} [uses {n}] {x}.",
        "{s} [breaks {n}] of them. | {s} [breaks {n}] on the way home. || {s} [breaks {n}] {x}.",
        "{s} [donates {n}] to a school. | {s} [donates {n}] of them. || {s} [donates {n}] {x}.",
        "{s} [drops {n}] of them. | {s} [drops {n}] on the way.",
    ),
    *_events(
        MUL,
        "the number [becomes {n} times] as large. | it [becomes {n} times] as much. || the number [becomes {n} times] as much.",
        "the pile [grows {n} times] as large. | it [grows {n} times] as large.",
    ),
)
_THING_QUESTIONS = wordings(
    "How many {x} does {N} have now? | How many {x} does {N} have in the end? | How many {x} are there now?"
    " || How many {x} are there in the end?"
)
_THING_RESULTS = ("{N} has {r} {x}", "there are {r} {x}", "the number is {r}")

_SHOP_EVENTS = (
    *_events(
        ADD,
        "{s} [adds a {y} for {n}] dollars. | {s} [adds a {y} for {n}] more. || {s} [adds a {y} for {n}] dollars more.",
        "the bag [costs {n}] dollars more. | a gift box [costs {n}] dollars more. || the box [costs {n}] dollars more.",
        "the way home [takes {n}] dollars. | the way home [takes {n}] more. || the way home [takes {n}] dollars more.",
        "there is a [tax of {n}] dollars. | the shop asks a [tax of {n}] dollars. || the market asks a [tax of {n}] dollars.",
    ),
    *_events(
        SUB,
        "a coupon [saves {n}] dollars. | a friend [saves {n}] dollars. || a gift [saves {n}] dollars.",
        "the shop [takes off {n}] dollars. | a friend [takes off {n}] dollars.",
        "{s} [returns a {y} for {n}] dollars. | {s} [returns a {y} worth {n}] dollars. || {s} [returns a gift for {n}] dollars.",
    ),
)
_SHOP_QUESTIONS = wordings(
    "How much does {N} pay? | How many dollars does {N} pay in the end? | How much is it now?"
    " || How much does {N} pay in the end?"
)
_SHOP_RESULTS = ("{N} pays {r} dollars", "the price is {r} dollars", "it is {r} dollars")

DOMAINS: tuple[Domain, ...] = (
    Domain(
        family="running",
        openings=wordings(
            "{N} [has {n}] {x}. | {N} [owns {n}] {x}. | {N} [starts with {n}] {x}. | In the morning {N} [has {n}] {x}."
            " | {N} [keeps {n}] {x} in a box. | On Monday {N} [owns {n}] {x}."
            " || On Monday {N} [has {n}] {x}. | {N} [keeps {n}] {x} at home."
        ),
        events=_THING_EVENTS,
        questions=_THING_QUESTIONS,
        results=_THING_RESULTS,
        unit="{x}",
    ),
    Domain(
        family="running",
        openings=wordings(
            "{N} fills [{a} boxes with {b}] {x} each. | {N} has [{a} boxes with {b}] {x} each."
            " | {N} has [{a} bags with {b}] {x} each. | At home {N} has [{a} bags with {b}] {x} each."
            " || {N} fills [{a} bags with {b}] {x} each."
        ),
        events=_THING_EVENTS,
        questions=_THING_QUESTIONS,
        results=_THING_RESULTS,
        unit="{x}",
        opening_operation=MUL,
    ),
    Domain(
        family="running",
        openings=wordings(
            "A bus [carries {n}] people. | In the morning a bus [carries {n}] people. | A train [carries {n}] people."
            " | On Monday a bus [carries {n}] people. || On Monday a train [carries {n}] people."
        ),
        events=(
            *_events(
                ADD,
                "it [picks up {n}] more. | at the park it [picks up {n}]. || it [picks up {n}] people.",
                "the next stop [brings {n}] more. | the school [brings {n}] people. || the market [brings {n}] more.",
                "at the park it [takes in {n}]. | it [takes in {n}] more. || it [takes in {n}] people.",
            ),
            *_events(
                SUB,
                "it [drops off {n}]. | at the shop it [drops off {n}]. || it [drops off {n}] people.",
                "it [leaves {n}] at the school. | it [leaves {n}] at the market. || it [leaves {n}] at the park.",
                "it [lets out {n}] people. | at the park it [lets out {n}]. || at the market it [lets out {n}].",
            ),
        ),
        questions=wordings(
            "How many people does it carry now? | How many people are there now?"
            " | How many people does it carry in the end? || How many people are there in the end?"
        ),
        results=("it carries {r} people", "there are {r} people"),
        unit="people",
    ),
    Domain(
        family="shop",
        openings=wordings(
            "{N} buys [{a} {x} at {b}] dollars each. | {N} orders [{a} {x} at {b}] dollars each."
            " | {N} wants [{a} {x} at {b}] dollars each. | At the market {N} buys [{a} {x} at {b}] dollars each."
            " || On Monday {N} orders [{a} {x} at {b}] dollars each."
        ),
        events=_SHOP_EVENTS,
        questions=_SHOP_QUESTIONS,
        results=_SHOP_RESULTS,
        unit="dollars",
        opening_operation=MUL,
    ),
    Domain(
        family="work",
        openings=wordings(
            "{N} works [{a} hours for {b}] dollars an hour. | On Monday {N} works [{a} hours for {b}] dollars an hour."
            " | {N} works [{a} days for {b}] dollars a day. || In the shop {N} works [{a} days for {b}] dollars a day."
        ),
        events=(
            *_events(
                ADD,
                "{s} gets a [bonus of {n}] dollars. | there is a [bonus of {n}] dollars. || {O} gives a [bonus of {n}] dollars.",
                "a friend [pays back {n}] dollars. | {O} [pays back {n}] dollars. || {O} [pays back {n}].",
                "{s} [earns {n}] more. | {s} [earns {n}] dollars at home. || {s} [earns {n}] dollars more.",
            ),
            *_events(
                SUB,
                "{s} [spends {n}] dollars on a {y}. | {s} [spends {n}] dollars. || {s} [spends {n}] on a {y}.",
                "{s} [lends {n}] dollars to {O}. | {s} [lends {n}] dollars to a friend. || {s} [lends {n}] to {O}.",
                "{s} [loses {n}] dollars. | {s} [loses {n}] in the shop. || {s} [loses {n}] dollars on the way.",
            ),
            *_events(
                MUL,
                "{s} does this [in {n} weeks]. | {s} does it [in {n} weeks]. || {s} works [in {n} weeks].",
            ),
        ),
        questions=wordings(
            "How much money does {N} have? | How many dollars does {N} have now? | How much does {N} have in the end?"
            " || How many dollars does {N} have in the end?"
        ),
        results=("{N} has {r} dollars", "the money is {r} dollars", "it is {r} dollars"),
        unit="dollars",
        opening_operation=MUL,
    ),
    Domain(
        family="percent",
        openings=wordings(
            "A {y} [costs {b} dollars, but {p}% off]. | The price is low: a {y} [costs {b} dollars, but {p}% off]."
            " | {N} wants a {y} that [costs {b} dollars, but {p}% off]."
            " || On Monday a {y} [costs {b} dollars, but {p}% off]."
        ),
        events=_SHOP_EVENTS,
        questions=_SHOP_QUESTIONS,
        results=_SHOP_RESULTS,
        unit="dollars",
        opening_operation=PERCENT,
        apply=SUB,
    ),
    Domain(
        family="percent",
        openings=wordings(
            "{N} has lunch [for {b} dollars, plus {p}% tip]. | On Tuesday {N} has lunch [for {b} dollars, plus {p}% tip]."
            " | At the market {N} has lunch [for {b} dollars, plus {p}% tip]."
            " || On Monday {N} has lunch [for {b} dollars, plus {p}% tip]."
        ),
        events=_SHOP_EVENTS,
        questions=_SHOP_QUESTIONS,
        results=_SHOP_RESULTS,
        unit="dollars",
        opening_operation=PERCENT,
        apply=ADD,
    ),
)

# An expression has a shape and a lead-in; a shape lists its operations in order, brackets where + or - comes before *.
EXPRESSION_QUESTIONS = wordings(
    "Compute {e}. | What is {e}? | Work out {e}. | Find {e}. | How much is {e}? || What number is {e}? | Find the number {e}."
)
EXPRESSION_SHAPES = Wordings(
    seen=("+-", "-+", "*+", "*-", "+*", "*+-", "+*-", "-*+", "*-+", "+-*"), unseen=("-*", "-+*")
)

# Family weights in the mix of examples; several domains of one family share its weight.
FAMILY_WEIGHTS = {"running": 40, "shop": 18, "work": 15, "percent": 12, "expression": 15}
