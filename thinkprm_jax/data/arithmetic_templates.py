"""The wordings of the synthetic task.

A wording is a sentence with fields: `{n}` is its number (`{a}` and `{b}` where it has two, `{p}` a percentage), `{N}` the person,
`{S}` / `{s}` the name or a pronoun at the start / inside of a sentence, `{O}` another person, `{x}` the things counted, `{y}` one
article. Square brackets mark the evidence: the words a verification chain quotes, which decide the operation.

`wordings("seen | seen || unseen")`: seen wordings make the splits "train" and "test"; unseen ones, about a fifth, make only the split
"unseen". They are other sentences, built of words that occur in seen ones.
"""

from __future__ import annotations

from dataclasses import dataclass

ADD, SUB, MUL, PERCENT = "+", "-", "*", "% of"

WOMEN = "Mia Ana Lena Ruth Nora Zoe Emma Kate Sara Ines Maya Lucy".split()
MEN = "Tom Raj Ben Omar Leo Ivan Paul Hugo Adam Noah Luis Max".split()
THINGS = (
    "apples pens books coins cards stamps shells marbles stickers eggs cups balls flowers toys keys "
    "candles buttons pears lemons photos"
).split()
ARTICLES = "hat bag lamp shirt phone chair coat watch clock jacket table ring".split()


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
    return Wordings(
        *(tuple(part.strip() for part in side.split("|") if part.strip()) for side in (seen, unseen))
    )


@dataclass(frozen=True)
class Event:
    """One verb that changes the running value by one operation. A problem uses a verb at most once."""

    operation: str
    wordings: Wordings


@dataclass(frozen=True)
class Domain:
    """One kind of story.

    openings: one number ({n}), or two ({a}, {b}: a product; {p}, {b}: a percentage) when opening_operation says so.
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
        "{S} [buys {n}] more. | {S} [buys {n}] more {x}. | {S} [buys {n}] at the market. || Then {s} [buys {n}] at the shop.",
        "{S} [finds {n}] more. | {S} [finds {n}] in a box. | Later {s} [finds {n}] at home. || {S} [finds {n}] {x} at the market.",
        "{S} [gets {n}] from {O}. | {S} [gets {n}] more from {O}. | Then {s} [gets {n}] more. || Later {s} [gets {n}] from a friend.",
        "{S} [wins {n}] in a game. | {S} [wins {n}] more. | Then {s} [wins {n}] {x}.",
        "{S} [receives {n}] as a gift. | Later {s} [receives {n}] more. || {S} [receives {n}] from {O}.",
        "{S} [collects {n}] more. | On Tuesday {s} [collects {n}]. | {S} [collects {n}] {x}.",
        "{S} [borrows {n}] from {O}. | Later {s} [borrows {n}]. || {S} [borrows {n}] from a friend.",
    ),
    *_events(
        SUB,
        "{S} [gives {n}] to {O}. | {S} [gives {n}] away. | Then {s} [gives {n}] to a friend. || Later {s} [gives {n}] {x} to {O}.",
        "{S} [loses {n}]. | {S} [loses {n}] on the way home. | Then {s} [loses {n}] {x}. || {S} [loses {n}] in a game.",
        "{S} [sells {n}] to {O}. | {S} [sells {n}] at the market. | Later {s} [sells {n}]. || On Tuesday {s} [sells {n}] of them.",
        "{S} [uses {n}] of them. | {S} [uses {n}] at home. | Later {s} [uses {n}] {x}.",
        "{S} [breaks {n}] of them. | On the way home {s} [breaks {n}].",
        "{S} [donates {n}] to a school. | {S} [donates {n}] of them. || Then {s} [donates {n}] {x}.",
        "{S} [drops {n}] of them. | {S} [drops {n}] on the way.",
    ),
    *_events(
        MUL,
        "Soon the number [becomes {n} times] as large. | Then it [becomes {n} times] as large. || Later the number [becomes {n} times] as large.",
        "Soon the pile [grows {n} times] as large. | Then the pile [grows {n} times] as large.",
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
        "{S} [adds a {y} for {n}] dollars. | Then {s} [adds a {y} for {n}] dollars. || Later {s} [adds a {y} for {n}] dollars.",
        "The bag [costs {n}] dollars more. | A gift box [costs {n}] dollars more. || The box [costs {n}] dollars more.",
        "Sending it home [takes {n}] dollars. | The way home [takes {n}] dollars.",
        "There is a [tax of {n}] dollars. | The shop asks a [tax of {n}] dollars. || Then there is a [tax of {n}] dollars.",
    ),
    *_events(
        SUB,
        "A coupon [saves {n}] dollars. | {S} has a coupon that [saves {n}] dollars. || Then a coupon [saves {n}] dollars.",
        "The shop [takes off {n}] dollars. | A friend at the shop [takes off {n}] dollars.",
        "{S} [returns a {y} for {n}] dollars. | Later {s} [returns a {y} for {n}] dollars. || Then {s} [returns a {y} for {n}] dollars.",
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
                "It [picks up {n}] more. | At the park it [picks up {n}]. || At the market it [picks up {n}] people.",
                "The next stop [brings {n}] more. | The school [brings {n}] people. || The market [brings {n}] more.",
                "At the park it [takes in {n}]. | Then it [takes in {n}] more.",
            ),
            *_events(
                SUB,
                "It [drops off {n}]. | At the shop it [drops off {n}]. || At the park it [drops off {n}] people.",
                "It [leaves {n}] at the school. | It [leaves {n}] at the market. || It [leaves {n}] at the park.",
                "Then it [lets out {n}] people. | At the next stop it [lets out {n}].",
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
                "{S} gets a [bonus of {n}] dollars. | There is a [bonus of {n}] dollars. || Later {s} gets a [bonus of {n}] dollars.",
                "A friend [pays back {n}] dollars. | {O} [pays back {n}] dollars. || Then {O} [pays back {n}] dollars.",
                "{S} [earns {n}] more. | {S} [earns {n}] dollars at home. || On Tuesday {s} [earns {n}] more.",
            ),
            *_events(
                SUB,
                "{S} [spends {n}] dollars on a {y}. | Then {s} [spends {n}] dollars. || Later {s} [spends {n}] dollars on a {y}.",
                "{S} [lends {n}] dollars to {O}. | Later {s} [lends {n}] dollars to a friend. || Then {s} [lends {n}] dollars to {O}.",
                "{S} [owes {n}] dollars to {O}. | {S} [owes {n}] dollars in the shop.",
            ),
            *_events(
                MUL,
                "{S} does this [in {n} weeks]. | Then {s} does this [in {n} weeks]. || Later {s} does this [in {n} weeks].",
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
            " || Then {N} has lunch [for {b} dollars, plus {p}% tip]."
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
