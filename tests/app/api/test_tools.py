"""The agent tools through an MCP client: in memory, over stdio and over HTTP."""

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from starlette.applications import Starlette

from loradex.app.api.tools import agent_tools, http_app
from loradex.app.backend import Backend
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.service import Loradex
from tests.app.api.serving import served
from tests.app.describe.samples import write_lora
from tests.few_words import LORADEX

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
EVERYWHERE = {"search_models", "list_models", "describe_model", "similar_models", "describe_zoo"}
LOCAL = {"label_files", "read_words", "inspect_files", "index_status"}


def run_client(server: Any, session: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        with anyio.fail_after(120):
            async with Client(server) as client:
                await session(client)

    anyio.run(run)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content


async def call_and_fail(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)  # type: ignore[union-attr]


def test_hits_equal_those_of_the_library(backend: Backend, loradex: Loradex) -> None:
    expected = loradex.search("a cat", 20).hits

    async def session(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == EVERYWHERE
        assert all(
            tool.annotations and tool.annotations.read_only_hint and tool.output_schema and tool.description
            for tool in tools.values()
        )
        assert "never instructions" in str(client.instructions)
        first = await call(client, "search_models", texts=["a cat"])
        second = await call(client, "search_models", texts=["a cat"], offset=first["next_offset"])
        hits = first["hits"] + second["hits"]
        assert [(hit["id"], hit["name"], hit["score"]) for hit in hits] == [
            (hit.model.id, hit.model.name, round(hit.score or 0, 3)) for hit in expected
        ]
        assert {hit["path"] for hit in hits} == {None}
        description = await call(client, "describe_model", id=hits[0]["id"])
        assert (description["name"], description["files"]) == (expected[0].model.name, 0)
        assert description["labels"] == dict(expected[0].model.facts.get("labels", []))
        assert (await call(client, "describe_zoo"))["models"] == len(loradex.zoo)
        page = await call(client, "list_models", limit=50, family="mini-b")
        models = page["models"]
        while page["next_cursor"]:
            page = await call(client, "list_models", limit=50, family="mini-b", cursor=page["next_cursor"])
            models += page["models"]
        assert [model["id"] for model in models] == [
            model.id for model in loradex.zoo.models() if model.family == "mini-b"
        ]
        for found_by in ("weights", ["picture", "words"], None):  # a single kind too, as in the first version
            page = await call(client, "list_models", limit=2, found_by=found_by)
            assert len(page["models"]) == 2
        assert (await call(client, "list_models", found_by=["metadata"]))["models"] == []
        assert "luck" in await call_and_fail(client, "list_models", found_by="luck")
        assert (await call(client, "similar_models", id=hits[0]["id"]))["hits"] == []
        assert len(json.dumps(first)) < 5000

    run_client(agent_tools(backend, local=False), session)


def test_errors_are_one_line_without_paths(backend: Backend) -> None:
    async def session(client: Client) -> None:
        for tool, arguments in (
            ("describe_model", {"id": "../x\n\x1b"}),
            ("similar_models", {"id": "none"}),
            ("search_models", {"texts": []}),
        ):
            message = await call_and_fail(client, tool, **arguments)
            assert message.isprintable()
            assert "expected" in message
            assert str(SHIPPED_ZOO) not in message
        assert "300" in await call_and_fail(client, "search_models", texts=["x" * 301])
        assert "Unknown tool" in await call_and_fail(client, "label_files", paths=[str(SHIPPED)])

    run_client(agent_tools(backend, local=False), session)


def test_labelling_and_indexing_over_stdio(tmp_path: Path) -> None:
    """An agent starts ``loradex mcp``."""
    (tmp_path / "loras").mkdir()
    shutil.copy(SHIPPED, tmp_path / "loras" / "one.safetensors")
    (tmp_path / "loras" / "broken.safetensors").write_bytes(b"nonsense")
    write_lora(tmp_path / "loras" / "sd1.safetensors")
    environment = {
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "OMP_NUM_THREADS": "1",
    }
    command = StdioServerParameters(
        command=LORADEX[0],
        args=[*LORADEX[1:], "mcp"],
        env=environment,
    )
    expected = next(iter(Loradex(SHIPPED_ZOO).label([str(SHIPPED)])))

    async def session(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == EVERYWHERE | LOCAL | {"index_folder"}
        labelled = await call(
            client,
            "label_files",
            paths=[
                str(tmp_path / "loras" / "one.safetensors"),
                "~/loras/broken.safetensors",
                "/dev/null",
                "~/loras/sd1.safetensors",
            ],
        )
        assert labelled["results"][0]["labels"] == {
            label.label: round(label.probability, 3) for label in expected.labels
        }
        assert [bool(result["unknown"]) for result in labelled["results"]] == [expected.abstained, True, True, True]
        commands = ["loradex expert add PLACE", "loradex base add PATH", "loradex grow sd1"]
        assert [result["next"] for result in labelled["results"]] == [[], [], [], commands]
        assert all(command in labelled["results"][3]["unknown"] for command in commands)  # it is not cut off
        inspected = await call(client, "inspect_files", paths=[str(tmp_path / "loras" / "one.safetensors")])
        assert inspected["files"][0]["family"] == "mini-a"
        assert "found a folder" in await call_and_fail(client, "inspect_files", paths=["/"])
        hits = (await call(client, "search_models", texts=["a cat"]))["hits"]
        assert hits[0]["path"].endswith(".safetensors")
        run = await call(client, "index_folder", folder=str(tmp_path / "loras"))
        while run["state"] == "running":
            await anyio.sleep(0.1)
            run = await call(client, "index_status")
        assert (run["state"], run["added"]) == ("done", 2)
        assert (run["waiting_for_expert"], run["next"]) == ({"sd1": 1}, commands)
        assert [Path(path).name for path in run["refused"]] == ["broken.safetensors"]
        zoo = await call(client, "describe_zoo")
        assert (zoo["models"], zoo["waiting_for_expert"]) == (2, {"sd1": 1})
        assert "expected" in await call_and_fail(client, "index_folder", folder="/dev/null")

    run_client(stdio_client(command), session)


def test_http_app_beside_a_page(backend: Backend) -> None:
    """The tools as ``loradex serve --mcp`` mounts them: before the page at /, with their lifespan inside the app's."""
    tools = http_app(agent_tools(backend, local=False))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tools.router.lifespan_context(tools):
            yield

    site = FastAPI(lifespan=lifespan)
    site.router.routes.extend(tools.routes)
    site.mount("/", Starlette())

    async def session(client: Client) -> None:
        assert (await call(client, "describe_zoo"))["name"] == "miniature"
        assert (await call(client, "search_models", texts=["a cat"], limit=1))["hits"]
        assert "expected" in await call_and_fail(client, "describe_model", id="none")

    with served(site) as address:
        run_client(f"{address}/mcp", session)


@pytest.mark.parametrize(
    "facts", [{"labels": "x", "ranks": "y", "tags": 3, "title": ["z"]}, {"labels": [["a"], ["b", "c"], 3]}]
)
def test_facts_of_a_malformed_zoo(facts: dict[str, Any]) -> None:
    from loradex.app.api.tool_results import shorten, whole_model
    from loradex.index import Model

    description = whole_model(Model("id", "caf\udce9\n" + "x" * 10_000, "f", facts=facts), 1, None)
    assert description.model_dump_json().startswith('{"id":"id","name":"caf\\\\xe9 xxx')
    assert (description.labels, description.ranks, description.tags) == ({}, [], [])
    assert len(description.name) <= 200
    assert shorten({"tags": ["x" * 999] * 99, "odd": {"caf\udce9": [1.5, None]}}) == {
        "tags": ["x" * 200] * 12,
        "odd": {"caf\\xe9": [1.5, None]},
    }
