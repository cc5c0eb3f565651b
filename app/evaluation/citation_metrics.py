"""How well an answer is cited, by ALCE's rules (Gao et al., 2023, "Enabling Large Language Models to Generate Text with
Citations"). Pure.

A sentence is recalled when all that it cites, together, support it. A citation is precise when its sentence is recalled
and needs it: it supports the sentence alone, or the others do not without it. Both are means over one answer: recall
over its sentences, precision over its citations.

ALCE asks a model of entailment what supports what. Here `supports` decides: see `app.evaluation.records`.
"""

from collections.abc import Callable, Sequence

Supports = Callable[[int, frozenset[int]], bool]
"""(number of the sentence, some of its citations) -> whether these support it together; none never do."""


def citation_recall(cited: Sequence[frozenset[int]], supports: Supports) -> float:
    """`cited` are the citations of each sentence. 0 of no sentence."""
    recalled = [bool(citations) and supports(number, citations) for number, citations in enumerate(cited)]
    return sum(recalled) / max(len(cited), 1)


def citation_precision(cited: Sequence[frozenset[int]], supports: Supports) -> float:
    """0 of no citation."""
    precise = [_is_needed(number, one, all_, supports) for number, all_ in enumerate(cited) for one in all_]
    return sum(precise) / max(len(precise), 1)


def _is_needed(number: int, one: int, all_: frozenset[int], supports: Supports) -> bool:
    if not supports(number, all_):
        return False
    others = all_ - {one}
    return supports(number, frozenset((one,))) or not (others and supports(number, others))
