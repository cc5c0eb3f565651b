"""What hypothesis draws for the tests of the ranking's mathematics."""

import math

from hypothesis import strategies as st

from app.backends.base import LabelScores
from app.ranking.models import Grade

IDS = st.integers(0, 99).map(lambda n: f"p{n:02}")
UNIT = st.integers(0, 1000).map(lambda n: n / 1000)
LOGS = st.integers(-20_000, 0).map(lambda n: n / 1000)
ODD_LOGS = st.sampled_from([None, -math.inf, math.nan, math.inf, 0.0, 1e-7, -9999.0, -1e300])


def label_scores(
    logs: st.SearchStrategy[float | None] = LOGS | ODD_LOGS, size: int = 4
) -> st.SearchStrategy[LabelScores]:
    return st.builds(
        lambda logprobs, floor: LabelScores(logprobs=tuple(logprobs), floor=floor),
        st.lists(logs, min_size=size, max_size=size),
        LOGS | st.sampled_from([-math.inf, math.nan]),
    )


GRADES = st.builds(lambda e, v: Grade(expected=e, variance=v / 4), UNIT, UNIT)
GRADED = st.dictionaries(IDS, GRADES, max_size=40)
