import json
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.json_repair import MAX_DEPTH, MAX_REPLY_LENGTH, salvage, strict_json
from app.ranking.reply_parser import ParsedGrades, read_grades, read_order
from tests.unit.app.ranking.written_replies import spoil, write_grades

KINDS = {
    "empty", "illegible", "not_json", "cut_off", "too_long", "several", "other_shape", "repeated_key", "unknown_grade",
    "odd_id", "unknown_id", "repeated_id", "missing_id", "junk",
}  # fmt: skip


def check_grades(read: ParsedGrades, n: int) -> None:
    """Valid whatever the reply: known grades, known numbers, each once, and repairs that happened."""
    named = [number for row in read.listed.values() for number in row]
    assert set(read.listed) <= {0, 1, 2, 3}
    assert len(set(named)) == len(named)
    assert set(named) <= set(range(1, n + 1))
    assert set(read.repairs) <= KINDS
    assert all(count > 0 for count in read.repairs.values())


def check_order(order: tuple[int, ...], repairs: Mapping[str, int], n: int) -> None:
    """Always a permutation, or nothing where nothing was named."""
    named = not {"illegible", "empty"} & set(repairs)
    assert sorted(order) == (list(range(1, n + 1)) if named else [])
    assert set(repairs) <= KINDS
    assert all(count > 0 for count in repairs.values())


def plainly(text: str, n: int) -> dict[int, tuple[int, ...]] | None:
    """The reply as json reads it, if it is exactly as asked for; None if anything at all is to be repaired."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(pairs, list) and pairs and all(isinstance(pair, tuple) for pair in pairs)):
        return None
    keys = [key for key, _ in pairs]
    rows = [row if isinstance(row, list) else [row] for _, row in pairs]
    numbers = [number for row in rows for number in row]
    if not set(keys) <= set("0123") or len(set(keys)) < len(keys):
        return None
    if any(type(number) is not int or not 1 <= number <= n for number in numbers) or len(set(numbers)) < len(numbers):
        return None
    return {int(key): tuple(row) for key, row in zip(keys, rows, strict=True) if row}


def test_whole_replies_are_read_as_they_were_written() -> None:
    """5,000 seeded ones: what they list, and every repair by kind and number, are as known by construction."""
    for seed in range(5000):
        rng = random.Random(seed)
        n = rng.randint(1, 30)
        written = write_grades(rng, n)
        read = read_grades(written.text, range(1, n + 1))
        check_grades(read, n)
        assert (read.listed, Counter(read.repairs)) == (written.listed, written.repairs), written.text
        assert read.complete == bool(written.listed or not {"junk", "unknown_id"} & set(written.repairs))


def test_spoiled_replies_are_read_validly_and_no_repair_goes_uncounted() -> None:
    """5,000 seeded ones, cut, doubled, attacked or random: no repairs if and only if the reply is as asked for."""
    for seed in range(5000):
        rng = random.Random(f"spoiled {seed}")
        n = rng.randint(1, 30)
        text = spoil(rng, write_grades(rng, n).text)
        read = read_grades(text, range(1, n + 1))
        check_grades(read, n)
        check_order(*read_order(text, range(1, n + 1)), n)
        plain = plainly(text, n)
        assert (plain is not None) == (not read.repairs), text
        if plain is not None:
            assert read == ParsedGrades(listed=plain, complete=True, repairs={})


def test_what_is_cut_off_says_nothing_new() -> None:
    """A prefix lists only what the whole reply names, never under a lower grade, and does not pass for complete."""
    text = json.dumps({"3": [11, 2, 30], "2": [4, 15], "1": [11, 6]})
    said = {11: 1, 2: 3, 30: 3, 4: 2, 15: 2, 6: 1}
    for end in range(len(text)):
        read = read_grades(text[:end], range(1, 31))
        assert not read.complete
        assert all(grade >= said[number] for grade, row in read.listed.items() for number in row)
        assert read.repairs


@given(st.text(max_size=200) | st.text(alphabet="{}[]\":,'\\ 123０².-> \n", max_size=200))
def test_any_text_is_read(text: str) -> None:
    """As grades and as an order, without an exception."""
    check_grades(read_grades(text, range(1, 6)), 5)
    check_order(*read_order(text, range(1, 6)), 5)


@pytest.mark.parametrize(
    ("text", "listed", "complete", "repairs"),
    [
        ('{"3":[],"2":[],"1":[]}', {}, True, {}),
        ("", {}, False, {"empty": 1}),
        ("I cannot judge these.", {}, False, {"not_json": 1, "illegible": 1}),
        ("{}", {}, False, {"illegible": 1}),
        ('{"error":"quota"}', {}, False, {"illegible": 1}),
        ("7", {}, False, {"illegible": 1}),
        ('{"3":[9]}', {}, False, {"unknown_id": 1}),
        ('{"3":null}', {}, False, {"junk": 1}),
        ('{"3":[1],"2":[1,2],"1":[2]}', {2: (1,), 1: (2,)}, True, {"repeated_id": 2}),
        ('{"3":[1],"3":[2]}', {3: (1, 2)}, True, {"repeated_key": 1}),
        ('{"3":[1],"4":[2]}', {3: (1,)}, False, {"unknown_grade": 1}),
        ('{"3":[1],"reason":"it says so"}', {3: (1,)}, True, {"unknown_grade": 1}),
        ('{"3":1,"2":2,"1":3}', {3: (1,), 2: (2,), 1: (3,)}, True, {}),
        ('{"1":3,"2":0,"5":2}', {3: (1,), 2: (5,), 0: (2,)}, True, {"other_shape": 1}),
        ('{"passage 1":3,"2":0,"x":1}', {3: (1,), 0: (2,)}, True, {"other_shape": 1, "odd_id": 1, "junk": 1}),
        ('{"grade 3":[1]}', {3: (1,)}, True, {"other_shape": 1}),
        ('[{"id":1,"grade":3},{"id":"2","grade":1},5]', {3: (1,), 1: (2,)}, True,
         {"other_shape": 1, "odd_id": 1, "junk": 1}),
        ('{"a":{"b":{"c":{"d":{"3":[1]}}}}}', {3: (1,)}, True, {"other_shape": 4}),
        ('{"a":{"b":{"c":{"d":{"e":{"3":[1]}}}}}}', {}, False, {"illegible": 1}),
        ('{"3":"1, 2"}', {3: (1, 2)}, True, {"odd_id": 2}),
        ('{"3":[[1,[2]],{"id":4}]}', {3: (1, 2, 4)}, True, {"other_shape": 2, "odd_id": 1}),
        ("{3: [1], '2': ['2'], 1: [３, 4.0, 5.5, None, True]}", {3: (1,), 2: (2,), 1: (3, 4)}, True,
         {"not_json": 1, "odd_id": 2, "junk": 3}),
        ('{"3":[NaN,1e400,1]}', {3: (1,)}, True, {"not_json": 1, "junk": 2}),
        ('{"3":[1e400,1]}', {3: (1,)}, True, {"junk": 1}),
        ('first {"3":[5]}, better {"3":[1]}', {3: (1,)}, True, {"not_json": 1, "several": 1}),
        ('{"3":[5]} {"thanks":1', {3: (5,)}, True, {"not_json": 1}),
        ('{"3":[1,2],"2":[4,5', {3: (1, 2), 2: (4,)}, False, {"not_json": 1, "cut_off": 1}),
        ('{"3":[1,2}', {3: (1, 2)}, False, {"not_json": 1, "cut_off": 1}),
        ('{"3":[1,2],"2",}', {3: (1, 2)}, True, {"not_json": 1}),
        ('{"3":[1],[2]:[3],}', {3: (1,)}, False, {"not_json": 1, "unknown_grade": 1}),
    ],
)  # fmt: skip
def test_grades_are_read_from_whatever_comes_near(
    text: str, listed: dict[int, tuple[int, ...]], complete: bool, repairs: dict[str, int]
) -> None:
    """Each oddity by itself, with its repair."""
    assert read_grades(text, range(1, 6)) == ParsedGrades(listed=listed, complete=complete, repairs=repairs)


@pytest.mark.parametrize(
    ("text", "order", "repairs"),
    [
        ("[3, 1, 2]", (3, 1, 2), {}),
        ('{"order": [3, 1, 2]}', (3, 1, 2), {}),
        ("[3] > [1] > [2]", (3, 1, 2), {}),
        ("[3] > [1]", (3, 1, 2), {"missing_id": 1}),
        ("[3] > [1] > [3] > [9] > [2]", (3, 1, 2), {"repeated_id": 1, "unknown_id": 1}),
        ("Ranking: [3] > [1] > [2].", (3, 1, 2), {"not_json": 1}),
        ("[3] > [1] > [", (3, 1, 2), {"not_json": 1, "cut_off": 1, "missing_id": 1}),
        ("3 > 1 > 2", (3, 1, 2), {"not_json": 1, "odd_id": 3}),
        ("[[3], [1, 2]]", (3, 1, 2), {"other_shape": 2}),
        ("[1] looks good, but: [3, 1, 2]", (3, 1, 2), {"not_json": 1}),
        ("[1, 2, 3] no, [3, 1, 2]", (3, 1, 2), {"not_json": 1, "several": 1}),
        ("[3, 1, 2", (3, 1, 2), {"not_json": 1, "cut_off": 1, "missing_id": 1}),
        ('{"order": "3 > 1 > 2", "n": "x"}', (3, 1, 2), {"odd_id": 3, "junk": 1}),
        ("3", (3, 1, 2), {"missing_id": 2}),
        ("1234567890123456789", (), {"unknown_id": 1, "missing_id": 3, "illegible": 1}),
        ("Sorry, error 3.", (), {"not_json": 1, "missing_id": 3, "illegible": 1}),
        (" ", (), {"missing_id": 3, "empty": 1}),
    ],
)  # fmt: skip
def test_orders_are_read_from_whatever_comes_near(text: str, order: tuple[int, ...], repairs: dict[str, int]) -> None:
    """Each oddity by itself, with its repair; no order only when no passage was named."""
    assert read_order(text, [1, 2, 3]) == (order, repairs)


def test_missing_passages_keep_the_order_they_came_in() -> None:
    """Behind those that were named."""
    assert read_order("[2]", [4, 2, 3, 1])[0] == (2, 4, 3, 1)
    assert read_order("[2]", [])[0] == ()


def test_no_passages_are_no_trouble() -> None:
    """Every number is unknown then."""
    assert read_grades('{"3":[1]}', []).repairs == {"unknown_id": 1}


@pytest.mark.parametrize(
    "text",
    [
        '["\\"[\\"' * 40_000,
        "[" * 200_000,
        "'" * 200_000,
        '{"3":1}' * 50_000,
        "[1] > " * 50_000,
        '{"3":[' + "1," * 100_000,
    ],
    ids=["quotes", "brackets", "apostrophes", "tables", "chain", "one list"],
)
def test_only_so_much_of_a_reply_is_read(text: str) -> None:
    """What is longer is cut, counted, and never complete."""
    read = read_grades(text, range(1, 6))
    assert read.repairs["too_long"] == 1
    assert not read.complete
    assert read_order(text, range(1, 6))[1]["too_long"] == 1
    assert len(text) > MAX_REPLY_LENGTH


def test_depth_beyond_reason_breaks_off() -> None:
    """Strict JSON may nest as deep as its reader goes; what has to be salvaged, so deep and no deeper."""
    assert [found.whole for found in salvage("[" * MAX_DEPTH + "]" * MAX_DEPTH + ",")] == [True]
    assert not any(found.whole for found in salvage("[" * (MAX_DEPTH + 1) + "]" * MAX_DEPTH)[:1])
    assert strict_json("[" * 100_000) is None
    assert read_grades('{"3":' + "[" * 500 + "1" + "]" * 500 + "}", [1]).listed == {3: (1,)}


def test_numbers_of_a_thousand_digits_cost_nothing() -> None:
    """They are unknown, and are not converted whole."""
    for text in ('{"3":[1' + "0" * 10_000 + "]}", "{3:[1" + "0" * 10_000 + "]}"):
        assert read_grades(text, [1]).repairs["unknown_id"] == 1
