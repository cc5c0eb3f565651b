"""What fits a GPU, and with which command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.vllm import CARDS, CONTEXT, GIB, MODELS, TYPICAL, explanation, preset
from app.errors import InvalidRequest

MEASURES = {
    "4b": {2_048: 156, 4_096: 196, 8_192: 276, 32_768: 756},
    "12b": {2_048: 448, 4_096: 576, 8_192: 832, 32_768: 2_368},
    "27b": {2_048: 576, 4_096: 736, 8_192: 1_056, 32_768: 2_976},
}


@pytest.mark.parametrize("model", MEASURES)
def test_the_cache_of_a_conversation_is_computed_from_the_models_layers(model: str) -> None:
    """One layer in six remembers all of it, the others the last 1,024 tokens; MiB."""
    assert {tokens: MODELS[model].cache(tokens) for tokens in MEASURES[model]} == MEASURES[model]


@given(st.sampled_from(sorted(MODELS)), st.integers(1, 100_000))
def test_a_longer_conversation_takes_more(model: str, tokens: int) -> None:
    """But less than if every layer remembered everything."""
    chosen = MODELS[model]
    assert chosen.cache(tokens) < chosen.cache(tokens + 1)
    assert chosen.cache(tokens) <= chosen.layers * tokens * chosen.kib_per_token / 1024


@pytest.mark.parametrize("card", CARDS)
def test_what_is_let_in_at_once_fits_the_card(card: str) -> None:
    """Weights, vLLM and the caches together stay below what vLLM may use, and one more conversation would not."""
    chosen = preset(card)
    used = chosen.weights + chosen.own + chosen.conversations(TYPICAL) * chosen.model.cache(TYPICAL)
    assert used <= chosen.usable < CARDS[card].memory_gib * GIB
    assert used + chosen.model.cache(TYPICAL) > chosen.usable


def test_a_ranking_has_room_on_every_card() -> None:
    """The card's own model takes two dozen ranking prompts at once; those that would not are left to be named."""
    assert all(preset(card).conversations(TYPICAL) >= 24 for card in CARDS)
    assert 1 <= preset("rtx3060", "12b").conversations(CONTEXT) <= 3
    assert 3 <= preset("rtx4090", "27b").conversations(4_096) <= 6


@pytest.mark.parametrize(("card", "model"), [("rtx3080", "12b"), ("rtx3080", "4b-bf16"), ("rtx3060", "27b")])
def test_a_model_that_does_not_fit_is_refused_with_the_figures(card: str, model: str) -> None:
    """It says how much there is, and what would have been needed."""
    with pytest.raises(InvalidRequest, match=r"does not fit.*GiB.*weights take.*8,192 tokens needs"):
        preset(card, model)


def test_the_server_is_reached_from_its_own_host_only_and_no_secret_is_in_its_command() -> None:
    """Whoever lists the processes of a machine reads their command lines."""
    command = preset("rtx3060").command(8001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert not any("api-key" in word for word in command)


def test_other_weights_of_the_same_model_are_calculated_like_it() -> None:
    """A folder or another hub's id takes the checkpoint's place, and nothing else."""
    own, other = preset("rtx4090"), preset("rtx4090", checkpoint="/models/mine")
    assert other.command(1)[3:] == own.command(1)[3:]
    assert other.command(1)[2] == "/models/mine"
    assert (other.weights, other.room) == (own.weights, own.room)


def test_the_explanation_tells_estimates_from_what_is_computed() -> None:
    """Weights and vLLM's own share are called estimates, and the sums add up."""
    lines = explanation(preset("rtx3080"))
    assert [line.startswith("-") for line in lines if "an estimate" in line] == [True, True]
    usable, weights, own, room = (float(line.split()[-1]) for line in lines[1:5])
    assert usable - weights - own == pytest.approx(room, abs=0.02)
