"""What a replacement does to line ends, and which lines are like a text that was not found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workspace.edits import nearest, pattern, replaced


@pytest.mark.parametrize(
    ("content", "old", "new", "result"),
    [
        (b"a\r\nb\r\n", b"a", b"a\nx", b"a\r\nx\r\nb\r\n"),
        (b"a\nb\n", b"a", b"a\nx", b"a\nx\nb\n"),
        (b"a\r\nb\nc\r\n", b"a\nb\nc", b"a\nx\nc", b"a\r\nx\nc\r\n"),
        (b"a\r\nb\nc\r\n", b"b", b"b\nx", b"a\r\nb\nx\nc\r\n"),
        (b"a\r\nb\nc\r\nd", b"c\nd", b"c\nx\nd", b"a\r\nb\nc\r\nx\r\nd"),
        (b"a\r\nb", b"b", b"b\nc", b"a\r\nb\r\nc"),
        (b"a", b"a", b"b\nc", b"b\nc"),
        (b"a\r\nb\r\n", b"a\nb\n", b"", b""),
        (b"a\r\nb\r\n", b"a\n", b"c\r\n", b"c\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\n", b"a\n", b"a\nb\r\n"),
        (b"x.y x-y", b"x.y", b"\\1", b"\\1 x-y"),
    ],
)
def test_a_replacement_has_the_line_ends_of_its_place(content: bytes, old: bytes, new: bytes, result: bytes) -> None:
    assert pattern(old).search(content)
    assert replaced(content, old, new) == result


LINES = st.lists(st.sampled_from([b"a", b"b", b"c", b""]), min_size=1, max_size=6)


@given(LINES, LINES, LINES, st.sampled_from([b"\n", b"\r\n"]))
def test_a_file_with_one_kind_of_line_ends_keeps_it(
    before: list[bytes], old: list[bytes], new: list[bytes], end: bytes
) -> None:
    lines = [*before, b"<", *old, b">", *before]
    result = replaced(end.join(lines), b"\n".join([b"<", *old, b">"]), b"\n".join(new))
    assert result == end.join([*before, *new, *before])


@given(LINES, LINES, st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=12, max_size=12))
def test_lines_that_are_not_replaced_keep_their_ends(old: list[bytes], new: list[bytes], ends: list[bytes]) -> None:
    content = b"".join(line + end for line, end in zip([b"first", b"<", *old, b">", b"last"], ends, strict=False))
    result = replaced(content, b"\n".join([b"<", *old, b">"]), b"\n".join([b"<", *new, b">"]))
    assert result.startswith(b"first" + ends[0] + b"<" + ends[1])
    assert result.endswith(b">" + ends[len(old) + 2] + b"last" + ends[len(old) + 3])
    assert result.replace(b"\r\n", b"\n") == b"\n".join([b"first", b"<", *new, b">", b"last", b""])


def test_the_nearest_lines_are_bounded_and_are_none_where_nothing_is_alike() -> None:
    text = b"\n".join(b"line number %d of the file" % number for number in range(100))
    assert nearest(text, b"line number 50 of the file\nline number 51 of a file").splitlines() == [
        "    51\tline number 50 of the file",
        "    52\tline number 51 of the file",
    ]
    assert len(nearest(b"x" * 5000, b"x" * 5000).splitlines()[0]) < 300
    assert nearest(text, b"\n \n") == ""
    assert nearest(b"", b"anything") == ""
    assert nearest(b"abc", b"something else") == ""
