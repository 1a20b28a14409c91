"""Forty prompts of a causal language model, ten of each kind, for `faithfulness.py`.

Half of each kind, every second one, is held out: set aside before any choice between methods or settings is made, and
used once at the end. The target is what SmolLM2-135M-Instruct predicts, but for "The keys to the old cabinet" (" were"
before " are") and "red seven, blue four, green nine, red seven, blue" (" five" and " six" before " four").
"""

from __future__ import annotations

from typing import NamedTuple


class Prompt(NamedTuple):
    """A text, the token that should come next and, where there is a natural one, the token that it is told from."""

    kind: str
    text: str
    target: str
    """One token."""
    contrast: str | None
    """One token, or None."""
    held_out: bool


_AGREEMENT = (
    ("The door was locked, and the windows of the house", " were", " was"),
    ("The keys to the old cabinet were lost, and the lock", " was", " were"),
    ("The soup is cold, and the potatoes in the pot", " are", " is"),
    ("The apples are ripe, and the pear on the table", " is", " are"),
    ("The teacher was tired, and the children in her class", " were", " was"),
    ("The letters were long, but the answer from the lawyers", " was", " were"),
    ("My brother is a doctor, and my two sisters", " are", " is"),
    ("The roads are open, but the bridge between the villages", " is", " are"),
    ("The keys to the old cabinet", " are", " is"),
    ("The road between the two villages", " is", " are"),
)
_FACTS = (
    ("The capital of Japan is the city of", " Tokyo", " Paris"),
    ("The Eiffel Tower stands in the city of", " Paris", " London"),
    ("The opposite of hot is", " cold", " warm"),
    ("The play Romeo and Juliet was written by William", " Shakespeare", None),
    ("The largest planet in the solar system is", " Jupiter", " Mars"),
    ("The Great Wall was built a long time ago in the country of", " China", " Japan"),
    ("The language spoken by most people in Brazil is", " Portuguese", " Spanish"),
    ("The first president of the United States was George", " Washington", None),
    ("The human body pumps blood with an organ called the", " heart", " liver"),
    ("The pyramids of Giza are in the country of", " Egypt", " Greece"),
)
_INDUCTION = (
    ("lamp river coat seven green lamp river coat seven", " green", " river"),
    ("Mr. Harold Baker opened the shop. At noon Mr. Harold", " Baker", None),
    ("table wine horn snow tree table wine horn", " snow", " tree"),
    ("The code is blue fox nine. I repeat: the code is blue fox", " nine", None),
    ("milk = cow, wool = sheep, egg = hen, milk = cow, wool =", " sheep", " hen"),
    ("Dr. Mary Stone called. The nurse said that Dr. Mary", " Stone", None),
    ("paper door silver queen paper door silver", " queen", " door"),
    ("We sailed past Red Island at dawn and came back to Red", " Island", None),
    ("red seven, blue four, green nine, red seven, blue", " four", " nine"),
    ("Anna: tea. Peter: milk. Laura: juice. Anna: tea. Peter:", " milk", " juice"),
)
_INDIRECT_OBJECT = (
    ("When Anna and Tom went to the market, Tom gave a basket to", " Anna", " Tom"),
    ("After John and Mary left the station, Mary handed the tickets to", " John", " Mary"),
    ("While Peter and Lucy were cooking, Peter passed the salt to", " Lucy", " Peter"),
    ("When Sarah and David met at the office, Sarah offered a coffee to", " David", " Sarah"),
    ("Because Emma and Jack shared a desk, Jack lent a pencil to", " Emma", " Jack"),
    ("Then Paul and Alice walked to the lake, and Alice threw the ball to", " Paul", " Alice"),
    ("As Maria and Robert sat in the garden, Robert read a poem to", " Maria", " Robert"),
    ("When James and Laura played cards, Laura showed the ace to", " James", " Laura"),
    ("Once Daniel and Kate had moved in, Daniel sent a letter to", " Kate", " Daniel"),
    ("Before Susan and Mark said goodbye, Susan gave a ring to", " Mark", " Susan"),
)

PROMPTS = tuple(
    Prompt(kind, *row, held_out=bool(index % 2))
    for kind, rows in (
        ("agreement", _AGREEMENT),
        ("facts", _FACTS),
        ("induction", _INDUCTION),
        ("indirect object", _INDIRECT_OBJECT),
    )
    for index, row in enumerate(rows)
)
