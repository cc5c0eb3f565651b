"""Lines of text that are a chart."""

from hypothesis import given
from hypothesis import strategies as st

from app.cli.cost import HEIGHT, Curve, draw


def test_a_line_and_a_step_cross_at_their_mark() -> None:
    """One rises, one is flat, the mark stands where they meet, and one's own place is below."""
    lines = draw([Curve("a", "api", lambda n: n), Curve("1", "gpu", lambda _: 50.0)], [("X", 50, 50)], 25, 100, 100, 60)
    crossing = next(line for line in lines if "X" in line)
    left, right = crossing.split("X")
    assert set(left.partition("|")[2]) == set(right) == {"1"}
    assert abs(len(left.partition("|")[2]) - 49 / 2) < 1
    assert [line.partition("|")[2].strip()[0] for line in lines[:3]] == ["a", "a", "a"]
    assert lines[0].startswith("  $100.00 |")
    assert lines[-1].strip() == "^ your volume: 25"
    assert lines[-2].split() == ["0", "50", "100", "tokens"]


def test_what_lies_above_is_left_out() -> None:
    """A curve that is too dear is not drawn at the edge."""
    lines = draw([Curve("a", "", lambda n: n), Curve("b", "", lambda _: 1e9)], [], 1, 100, 100, 60)
    assert "b" not in "".join(lines)


def test_a_step_has_no_gap() -> None:
    """Where a GPU is added, its line goes up."""
    lines = draw([Curve("1", "", lambda n: 10.0 if n < 50 else 90.0)], [], 1, 100, 100, 60)
    assert all("1" in line for line in lines[2 : HEIGHT - 2])


figures = st.floats(0, 1e15)


@given(st.lists(st.tuples(figures, figures), max_size=4), st.floats(0, 1), st.floats(1, 1e15), st.floats(0.01, 1e12))
def test_no_line_is_too_long(curves: list[tuple[float, float]], here: float, right: float, top: float) -> None:
    """Whatever is drawn, 80 columns hold it."""
    drawn = [Curve("a", "", lambda n, fixed=fixed, each=each: fixed + each * n) for fixed, each in curves]  # type: ignore[misc]
    lines = draw(drawn, [("X", here * right, top)], here * right, right, top, 80)
    assert max(len(line) for line in lines) <= 80
    assert len(lines) == HEIGHT + 3
