"""The vocabulary of conditions: every reason is documented once, and the code knows no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentsession_operator.api import conditions
from agentsession_operator.api.conditions import REASONS, TROUBLE, ConditionType, reason_table

ROOT = Path(__file__).parents[4]
SOURCES = sorted((ROOT / "operator" / "agentsession_operator").rglob("*.py"))
VOCABULARIES = {
    ConditionType.ADMITTED: conditions.AdmittedReason,
    ConditionType.POD_READY: conditions.PodReadyReason,
    ConditionType.ACTIVE: conditions.ActiveReason,
    ConditionType.SUSPENDED: conditions.SuspendedReason,
    ConditionType.FINISHED: conditions.FinishedReason,
}


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_every_reason_is_documented_once(kind: ConditionType) -> None:
    assert sorted(row.reason for row in REASONS if row.condition is kind) == sorted(VOCABULARIES[kind])


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_every_reason_is_used(kind: ConditionType) -> None:
    code = "\n".join(path.read_text() for path in SOURCES if path.name != "conditions.py")
    wire = (ROOT / "session_runtime" / "wire.py").read_text()
    for reason in VOCABULARIES[kind]:
        name = f"{VOCABULARIES[kind].__name__}.{reason.name}"
        assert name in code or f'"{reason}"' in wire, f"{name} is documented and never set"


def test_no_condition_is_set_by_a_bare_word() -> None:
    words = "|".join(ConditionType)
    bare = re.compile(rf'(?:\.set|\.get|\.holds|\.remove|\.condition|\.written)\(\s*"(?:{words})"')
    assert not [f"{path.name}: {found[0]}" for path in SOURCES for found in bare.finditer(path.read_text())]


def test_reasons_are_words_for_programs_and_meanings_fit_a_table() -> None:
    for row in REASONS:
        assert re.fullmatch("[A-Z][A-Za-z]*", row.reason)
        assert "|" not in row.meaning
        assert "\n" not in row.meaning


def test_the_table_names_each_condition_where_its_rows_begin() -> None:
    table = reason_table()
    assert len(table.splitlines()) == len(REASONS) + 2
    assert table.count("PodReady=False") == 1


def test_what_is_worth_a_look_is_a_part_of_all() -> None:
    shown = conditions.worth_a_look()
    assert set(shown) < set(REASONS)
    assert {(row.condition, row.reason) for row in shown} >= TROUBLE
