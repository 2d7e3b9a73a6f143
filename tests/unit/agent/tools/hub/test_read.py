"""What the model gets to see of the Hub: search, cards, files, discussions, papers and rows of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.tools.hub.content import LIST_LIMIT
from agent.tools.hub.dataset import choose, type_name
from agent.tools.hub.read import without_metadata
from agent.tools.hub.text import TEXT_LIMIT
from support.agent.hub_server import Reply, refused
from support.agent.hub_session import session
from support.agent.hub_shapes import comment, discussion

pytestmark = pytest.mark.anyio

TINY = {
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n\nIt is small.\n",
    "config.json": b'{"a": 1}',
    "weights/model.safetensors": b"\x08\0\0\0\0\0\0\0{}",
    "empty.txt": b"",
}


# -- search ------------------------------------------------------------------------------------------------------------


async def test_search_goes_on_where_it_was(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        for name in "abcde":
            s.hub.add("model", f"ann/{name}")
        first = await s.text("hub_search", type="model", query="ann", limit=3, tags=["license:mit"], sort="likes")
        assert first.splitlines() == [
            *(f"ann/{name} · 3,456 downloads a month · 12 likes · created 2026-05-01 · text-generation" for name in "abc"),
            "[there is more; continue with offset 3]",
        ]
        query = s.hub.requests[0].query
        assert (query["search"], query["filter"], query["sort"], query["limit"]) == (["ann"], ["license:mit"], ["likes"], ["4"])
        rest = await s.text("hub_search", type="model", query="ann", offset=3)
        assert [line.split(" ")[0] for line in rest.splitlines()] == ["ann/d", "ann/e"]
        assert "Nothing was found" in await s.text("hub_search", type="dataset", query="zzz")


async def test_spaces_are_found_by_what_they_do_or_by_author(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("space", "ann/painter")
        assert await s.text("hub_search", type="space", query="draw a cat") == (
            "ann/space · gradio · 3 likes · RUNNING · Something about draw a cat"
        )
        assert (await s.text("hub_search", type="space", author="ann")).startswith("ann/painter · 12 likes")


async def test_papers_are_found_by_words(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        assert await s.text("hub_search", type="paper", query="llama") == (
            "2307.09288 · Llama 2 · 2026-05-01 · 250 upvotes\n    We develop and release Llama 2."
        )
        assert "give a query" in await s.problem("hub_search", type="paper")
        assert "$.type" in await s.problem("hub_search", type="person")


# -- cards and files ---------------------------------------------------------------------------------------------------


async def test_a_card(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("dataset", "ann/rows", **TINY)
        card = await s.text("hub_read", repo="ann/rows", type="dataset")
        assert card.splitlines() == [
            "dataset ann/rows · 2 downloads a month · 1 likes · gated (manual) · changed 2026-05-01",
            "commit: 1f2e3d4c5b6a79880716253443526170f0e1d2c3",
            "tags: license:mit",
            "files: README.md, config.json, weights/model.safetensors, empty.txt",
            *("", "# Tiny", "", "It is small."),
        ]
        s.hub.add("model", "ann/bare")
        assert (await s.text("hub_read", repo="ann/bare")).endswith("[no card]")


async def test_a_folder_is_listed_in_pieces(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny", **TINY)
        tiny.lfs.add("weights/model.safetensors")
        listing = ["README.md · 42 B", "config.json · 8 B", "empty.txt · 0 B", "weights/"]
        assert (await s.text("hub_read", repo="ann/tiny", path="/")).splitlines() == listing
        assert await s.text("hub_read", repo="ann/tiny", path="weights/") == "weights/model.safetensors · 10 B · LFS"
        s.hub.add("model", "ann/many", **{f"{at:04}": b"" for at in range(LIST_LIMIT + 1)})
        first = (await s.text("hub_read", repo="ann/many", path="/")).splitlines()
        assert (len(first), first[-1]) == (LIST_LIMIT + 1, f"[there is more; continue with offset {LIST_LIMIT}]")
        assert await s.text("hub_read", repo="ann/many", path="/", offset=LIST_LIMIT) == f"{LIST_LIMIT:04} · 0 B"


async def test_a_file_that_is_not_there_and_one_that_is_empty(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny", **TINY)
        assert await s.text("hub_read", repo="ann/tiny", path="config.json") == '{"a": 1}'
        assert await s.text("hub_read", repo="ann/tiny", path="empty.txt") == "[empty]"
        assert "ann/tiny has no nothing.txt" in await s.problem("hub_read", repo="ann/tiny", path="nothing.txt")
        assert "has only 8 bytes" in await s.problem("hub_read", repo="ann/tiny", path="config.json", offset=8)
        assert "view=refs" in await s.problem("hub_read", repo="ann/tiny", path="/", revision="nowhere")


async def test_a_huge_file_is_read_in_pieces(tmp_path: Path) -> None:
    text = "".join(f"line {at} é\n" for at in range(200_000))
    content = text.encode()
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny", **{"big.txt": content}).lfs.add("big.txt")
        first = await s.text("hub_read", repo="ann/tiny", path="big.txt")
        piece, note = first.rsplit("\n", 1)
        assert note == f"[read on with offset 20000; {len(content)} bytes in all]"
        assert text.startswith(piece)
        assert s.hub.requests[-1].headers["range"] == "bytes=0-19999"
        last = await s.text("hub_read", repo="ann/tiny", path="big.txt", offset=len(content) - 12)
        assert last == text[-11:]


async def test_a_server_that_knows_no_ranges(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("model", "ann/tiny", **{"a.txt": b"0123456789" * 3000})
        s.hub.replies["/ann/tiny/resolve/main/a.txt"] = Reply(b"0123456789" * 3000)
        assert await s.text("hub_read", repo="ann/tiny", path="a.txt", offset=29_995) == "56789"


async def test_a_binary_file_is_described(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.add("dataset", "ann/rows", **{"data.parquet": b"PAR1\0\0" * 1000})
        described = await s.text("hub_read", repo="ann/rows", type="dataset", path="data.parquet")
        assert described == (
            "[data.parquet (6 kB) is binary; it was not downloaded. hub_dataset shows the rows of a dataset.\n"
            f"Where no token is needed, a command can fetch it: {s.hub.url}/datasets/ann/rows/resolve/main/data.parquet]"
        )


def test_only_the_metadata_before_a_card_is_taken_off() -> None:
    assert without_metadata("---\na: b\n---\n# T\n---\nc\n---\n") == "# T\n---\nc\n---\n"
    assert without_metadata("# T\n---\nc\n---\n") == "# T\n---\nc\n---\n"
    assert without_metadata("---\nnever closed") == "---\nnever closed"


# -- branches, discussions, papers -------------------------------------------------------------------------------------


async def test_branches_and_tags(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny")
        tiny.branches.add("next")
        tiny.tags.add("v1")
        refs = await s.text("hub_read", repo="ann/tiny", view="refs")
        assert refs.splitlines() == [f"{ref} at 1f2e3d4c5b6a" for ref in ("branch main", "branch next", "tag v1")]


async def test_discussions_and_a_pull_request_with_its_diff(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        tiny = s.hub.add("model", "ann/tiny")
        assert await s.text("hub_read", repo="ann/tiny", view="discussions") == "There are no discussions."
        tiny.discussions = [discussion(at, f"Say {at}", "ann/tiny") for at in range(1, 32)]
        listed = (await s.text("hub_read", repo="ann/tiny", view="discussions")).splitlines()
        assert listed[0] == "#1 Say 1 · open · ann · 2026-05-01"
        assert listed[-1] == "[there is more; continue with offset 30]"
        assert (await s.text("hub_read", repo="ann/tiny", view="discussions", offset=30)).startswith("#31 ")
        tiny.discussions.append(discussion(32, "A change", "ann/tiny", pull_request=True))
        tiny.discussions[31]["events"].append({**comment("secret"), "data": comment("secret")["data"] | {"hidden": True}})
        change = await s.text("hub_read", repo="ann/tiny", number=32)
        page = f"{s.hub.url}/ann/tiny/discussions/32"
        assert change.splitlines() == [
            f"#32 A change · pull request into refs/heads/main · draft · ann · 2026-05-01 · {page}",
            "2026-05-01 ann: Look at this.",
            "2026-05-01 ann: [hidden]",
            *("", "--- a/x", "+++ b/x", "+new"),
        ]


async def test_a_paper_with_and_without_its_text(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        paper = await s.text("hub_read", repo="2307.09288", type="paper")
        assert paper.splitlines() == [
            "2307.09288 · Llama 2 · 2026-05-01 · 250 upvotes",
            "authors: Hugo Touvron",
            "models: meta-llama/Llama-2-7b",
            *("", "# Llama 2", "", "The whole text."),
        ]
        s.hub.replies["/papers/2307.09288.md"] = refused(404, "", "Not found")
        without = await s.text("hub_read", repo="2307.09288", type="paper")
        assert "Abstract: We develop and release Llama 2.\n[the Hub has no text" in without
        assert "no arXiv id" in await s.problem("hub_read", repo="../api/whoami-v2", type="paper")


# -- datasets ----------------------------------------------------------------------------------------------------------

SPLITS = [{"dataset": "ann/rows", "config": config, "split": split} for config in ("de", "en") for split in ("test", "train")]
FEATURES = [
    {"feature_idx": 0, "name": "text", "type": {"dtype": "string", "_type": "Value"}},
    {"feature_idx": 1, "name": "label", "type": {"names": ["bad", "good"], "_type": "ClassLabel"}},
    {"feature_idx": 2, "name": "image", "type": {"_type": "Image"}},
]


def rows(*indices: int, **more: Any) -> Reply:
    image = {"src": "https://example.org/image.jpg?Signature=abc", "height": 32, "width": 64}
    found = [
        {"row_idx": at, "row": {"text": "x" * 600, "label": 1, "image": image}, "truncated_cells": ["text"] if at == 0 else []}
        for at in indices
    ]
    return Reply({"features": FEATURES, "rows": found, **more})


INFO = Reply(
    {
        "dataset_info": {
            "features": {},
            "splits": {"train": {"num_examples": 1234}, "test": {"num_examples": 10}},
            "dataset_size": 5_000_000,
        },
        "partial": False,
    }
)


async def test_columns_counts_and_the_first_rows(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.replies |= {"/viewer/splits": Reply({"splits": SPLITS}), "/viewer/info": INFO}
        s.hub.replies["/viewer/first-rows"] = rows(*range(100))
        shown = (await s.text("hub_dataset", dataset="ann/rows", config="en", limit=2)).splitlines()
        cut = "x" * 500 + "… (+100 characters)"
        row = f'{{"text": "{cut}", "label": 1, "image": "[media 64x32]"}}'
        assert shown == [
            "dataset ann/rows, configuration en of: de, en",
            "splits: test (10 rows), train (1,234 rows); 5 MB in memory",
            *("columns:", "  text: string", "  label: label, 2 classes: bad, good", "  image: Image"),
            *("rows of train:", f"  0: {row} [cut by the viewer: text]", f"  1: {row}"),
            "[more rows with offset 2 of 1234]",
        ]
        asked = s.hub.asked("GET", "/viewer/first-rows")[0]
        assert (asked.query["config"], asked.query["split"]) == (["en"], ["train"])
        assert asked.headers["authorization"].startswith("Bearer ")


async def test_later_rows_and_those_that_fit_a_condition(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.replies |= {"/viewer/splits": Reply({"splits": SPLITS}), "/viewer/info": INFO}
        s.hub.replies["/viewer/rows"] = rows(1232, 1233, num_rows_total=1234, partial=True)
        s.hub.replies["/viewer/filter"] = rows(7, num_rows_total=1)
        later = await s.text("hub_dataset", dataset="ann/rows", offset=1232)
        assert "  1233: " in later
        assert later.endswith("[only the beginning of this dataset can be looked at here, because of its size]")
        assert "more rows" not in later
        fitting = await s.text("hub_dataset", dataset="ann/rows", where="label=1", limit=50)
        assert "rows of train, where label=1:\n  7: " in fitting
        query = s.hub.asked("GET", "/viewer/filter")[0].query
        assert (query["where"], query["offset"], query["length"]) == (["label=1"], ["0"], ["50"])


async def test_as_many_rows_as_one_call_returns(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.replies |= {"/viewer/splits": Reply({"splits": SPLITS}), "/viewer/info": INFO}
        s.hub.replies["/viewer/first-rows"] = rows(*range(100))
        shown = await s.text("hub_dataset", dataset="ann/rows", limit=100)
        last = shown.splitlines()[-2].split(":")[0].strip()
        assert TEXT_LIMIT - 1000 < len(shown) < TEXT_LIMIT + 1000
        assert shown.endswith(f"[more rows with offset {int(last) + 1} of 1234]")


async def test_rows_are_shown_though_nothing_is_counted_yet(tmp_path: Path) -> None:
    async with session(tmp_path) as s:
        s.hub.replies |= {"/viewer/splits": Reply({"splits": SPLITS}), "/viewer/first-rows": rows(0)}
        s.hub.replies["/viewer/info"] = refused(500, "ResponseNotReady", "The server is busier than usual")
        assert "train (rows not counted); size not known" in await s.text("hub_dataset", dataset="ann/rows")


async def test_what_the_viewer_refuses(tmp_path: Path) -> None:
    async with session(tmp_path, token=None) as s:
        missing = "The dataset does not exist, or is not accessible without authentication (private or gated)."
        s.hub.replies["/viewer/splits"] = refused(401, "ExternalUnauthenticatedError", missing)
        problem = await s.problem("hub_dataset", dataset="ann/rows")
        assert missing in problem
        assert "add HF_TOKEN to the session's Secret" in problem
        s.hub.replies["/viewer/splits"] = Reply(b"<html>Bad gateway</html>", 502)
        assert "try again later.\n[502] <html>Bad gateway" in await s.problem("hub_dataset", dataset="ann/rows")


def test_configuration_and_split_are_chosen_sensibly() -> None:
    assert choose(SPLITS, None, None) == ("de", "train")
    assert choose([*SPLITS, {"config": "default", "split": "all"}], None, None) == ("default", "all")
    assert choose(SPLITS, "en", "test") == ("en", "test")
    with pytest.raises(Exception, match="There is no configuration fr; there are: de, en"):
        choose(SPLITS, "fr", None)
    with pytest.raises(Exception, match="There is no split dev; there are: test, train"):
        choose(SPLITS, "en", "dev")
    with pytest.raises(Exception, match="there are: none"):
        choose([], None, None)


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        ({"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"}, "list of int64"),
        ([{"dtype": "string", "_type": "Value"}], "list of string"),
        ({"_type": {"dtype": "string", "_type": "Value"}, "b": {"_type": "Audio"}}, "{_type: string, b: Audio}"),
        ({"shape": [2, 2], "dtype": "float32", "_type": "Array2D"}, "Array2D"),
    ],
)
def test_types_of_columns(feature: Any, name: str) -> None:
    assert type_name(feature) == name
