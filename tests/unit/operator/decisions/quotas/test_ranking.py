"""The first of many, and their order, while keys change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.decisions.quotas.ranking import Ranking

changes_ = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 5)), max_size=60)


@given(changes_)
def test_it_says_the_same_as_sorting_after_each_change(changes: list[tuple[int, int | None]]) -> None:
    ranking: Ranking[tuple[int, int], str] = Ranking()
    keys: dict[str, tuple[int, int]] = {}
    for item, key in changes:
        if key is None:
            keys.pop(str(item), None)
        else:
            keys[str(item)] = key, item
        ranking.put(str(item), None if key is None else (key, item))
        expected = sorted((key, item) for item, key in keys.items())
        assert list(ranking.in_order()) == expected
        assert set(ranking) == set(keys)
        assert all((str(item) in ranking) == (str(item) in keys) for item in range(10))
        assert ranking.first() == (expected[0][1] if expected else None)


def test_outdated_keys_do_not_pile_up() -> None:
    ranking: Ranking[tuple[int, str], str] = Ranking()
    for number in range(1_000):
        ranking.put("a", (number, "a"))
        ranking.put("b", (-number, "b"))
    assert len(ranking._heap) < 100
    assert list(ranking.in_order()) == [((-999, "b"), "b"), ((999, "a"), "a")]


def test_the_first_few_do_not_look_at_the_others() -> None:
    """The order is wanted for each session that arrives, and thousands may wait."""
    looked_at: list[int] = []

    class Counted(int):
        def __lt__(self, other: object) -> bool:
            looked_at.append(int(self))
            return int(self) < int(other)  # type: ignore[call-overload,no-any-return]

    ranking: Ranking[tuple[Counted], str] = Ranking()
    for number in range(1_000):
        ranking.put(str(number), (Counted(number),))
    looked_at.clear()
    found = ranking.in_order()
    assert [next(found)[1] for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(looked_at) < 100
