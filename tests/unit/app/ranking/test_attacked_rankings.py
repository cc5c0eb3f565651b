"""The benchmark of attacks: what our rankings make of them, before models that fall for them."""

import pytest

from benchmarks.injection import GRADED, SCHEDULES, by_schedule, by_technique, outcomes

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OURS = [name for name in SCHEDULES if name.startswith("ours:")]


@pytest.mark.parametrize("name", OURS)
async def test_what_is_noticed_wins_no_place(name: str) -> None:
    """Before a model that obeys whatever it reads, a flagged passage stays where retrieval has it."""
    assert [
        one.attack.text for one in await outcomes(SCHEDULES[name]) if one.attack.told and one.won["always"] > 0
    ] == []


@pytest.mark.parametrize("name", [GRADED, "ours, uncapped, judge"])
async def test_no_control_token_arrives(name: str) -> None:
    """A model that believes in turns alone is never fooled, by no attack."""
    assert all(one.won["tokens"] <= 0 for one in await outcomes(SCHEDULES[name]))


async def test_the_models_fall_for_what_is_put_into_prompts_as_it_is() -> None:
    """Else the tables would show no defence: a schedule without one loses to either."""
    found = {name: await outcomes(SCHEDULES[name]) for name in ("rankgpt", "ours, uncapped, labels", GRADED)}
    assert all(one.won["always"] > 30 for one in found["rankgpt"])
    assert sum(one.won["tokens"] > 30 for one in found["rankgpt"]) > 15
    assert by_schedule(found).count("\n") == 4
    assert "| languages |" in by_technique(found)
