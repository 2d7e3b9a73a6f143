"""What a session remembers besides its events, submissions and messages, as rows of its database and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from session_runtime.session.facts import Facts, Resumes
from session_runtime.session.outcome import Ending

TEXT = st.none() | st.text(max_size=5)
NUMBER = st.none() | st.integers(0)
SOME = st.builds(
    Facts,
    created_at=TEXT,
    last_activity_time=TEXT,
    resumes=st.none() | st.builds(Resumes, st.text(max_size=3), st.integers(0, 9)),
    outcome=st.none() | st.builds(Ending, st.sampled_from(["Completed", "Failed", "BudgetExceeded"]), st.text(max_size=5)),
    finished=TEXT,
    report_sequence=NUMBER,
    last_seq=NUMBER,
    conversation=TEXT,
)


@given(SOME)
def test_facts_come_back_from_their_rows(facts: Facts) -> None:
    assert Facts.from_rows(facts.to_rows()) == facts


@given(SOME, SOME)
def test_newer_facts_replace_older_ones_as_their_rows_do(older: Facts, newer: Facts) -> None:
    assert dict(older.updated(newer).to_rows()) == {**dict(older.to_rows()), **dict(newer.to_rows())}


def test_rows_are_those_that_earlier_versions_wrote() -> None:
    """A database outlives the runtime that made it."""
    rows = {
        "created_at": "2026-01-01T00:00:00.000Z",
        "last_activity_time": "2026-01-01T00:01:00.000Z",
        "resumes": '["s", 2]',
        "outcome": '["Failed", "why"]',
        "finished": "2026-01-01T00:02:00.000Z",
        "report_sequence": "7",
        "last_seq": "9",
        "conversation": "{}",
    }
    facts = Facts.from_rows(rows.items())
    assert (facts.resumes, facts.outcome, facts.report_sequence) == (Resumes("s", 2), Ending("Failed", "why"), 7)
    assert dict(facts.to_rows()) == rows


def test_unknown_names_are_ignored() -> None:
    assert Facts.from_rows([("later", "x")]) == Facts()
