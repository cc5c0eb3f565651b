"""What passages say that want a model to lift them, in several languages.

All of it is matched against folded text: lower case, without accents (so и stands for й, and ss for ß). In the rows
needles stand before patterns: "|" is between needles, "&" between groups of them, and BAR is a needle's own "|".
"""

import re

import msgspec

from app.ranking.injection.patterns_en import ENGLISH
from app.ranking.injection.patterns_intl import FORGETTING, LIFTING


class Telltale(msgspec.Struct, eq=False):
    """Found where the pattern matches; looked for where one of each group of `needles` stands in the text."""

    needles: tuple[frozenset[str], ...]
    pattern: re.Pattern[str]

    def may_stand_among(self, found: set[str]) -> bool:
        """Whether one needle of each group was found."""
        return not any(found.isdisjoint(group) for group in self.needles)


# Turns and replies that look like the model's own.
_REPLIES = (
    (
        "_of_turn>|[inst]|[/inst]|sys>>|system_prompt]|<BAR|BAR>",
        r"<(?:start|end)_of_turn>|\[/?inst\]|<</?sys>>|\[/?system_prompt\]|<\|[^\s<>|]+\|?>|<[^\s<>|]+\|>",
    ),
    (
        '"3"|"order"|"2"|&quot;3',
        r"[{,]\s*(?:\"|&quot;)[1-3](?:\"|&quot;)\s*:\s*\[\s*(?:\d|\])|\{\s*\"order\"\s*:\s*\[\s*\d",
    ),
    (
        '"grade"|"relevance|"score"|"label"',
        r"\{\s*\"(?:grade|relevance|relevance_score|label|score)\"\s*:\s*\"?(?:3|1\.0)\"?\s*\}",
    ),
    ("] > [", r"\[\d+\] > \[\d+\]"),
)


def _groups(needles: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(word.replace("BAR", "|") for word in group.split("|")) for group in needles.split(" & "))


def _compiled() -> tuple[Telltale, ...]:
    plain = [(_groups(needles), pattern) for needles, pattern in (*ENGLISH, *_REPLIES, *LIFTING)]
    forgetting = [
        (_groups(needles), rf"{verb}.{{0,30}}?{whose}.{{0,25}}?(?:{what})") for needles, verb, whose, what in FORGETTING
    ]
    return tuple(Telltale(needles=needles, pattern=re.compile(pattern)) for needles, pattern in (*plain, *forgetting))


TELLTALES = _compiled()
NEEDLES = frozenset(needle for telltale in TELLTALES for group in telltale.needles for needle in group)
BY_FIRST_NEEDLE = {
    needle: tuple(telltale for telltale in TELLTALES if needle in telltale.needles[0]) for needle in sorted(NEEDLES)
}
"""The telltales whose first group has the needle."""
