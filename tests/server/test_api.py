"""The API: it finds what `Retriever` finds, says what is wrong, and lets nobody write without the key."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from api import AUTHORIZED, COUNT, client_of, encoded, indexed_shop
from fastapi import FastAPI
from starlette.testclient import TestClient

from mlcl_cli import Hit, Retriever
from mlcl_cli.workflows import catalog_editing
from mlcl_cli.workflows.hits import as_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_shop(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Retriever:
    return Retriever.load(folder / "mlcl.yaml")


def post(client: TestClient, **request: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/search", json=request)
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["hits"]
    return hits


def wait_for(holds: Callable[[], bool]) -> None:
    """Searches see a change once a copy of the catalog has been made in the background."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def as_answered(hits: list[Hit]) -> list[dict[str, Any]]:
    return [{**as_json(hit), "image": f"/v1/items/{hit.id}/image"} for hit in hits]


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "red"},
        {"item": "sku3"},
        {"item": "sku3", "text": "red", "k": 30},
        {"text": "red", "where": "price < 5 and color = 'red'"},
        {"text": "red", "where": [["price", "<", 5], ["color", "in", ["red", "blue"]]]},
        {"text": "a", "group_by": "product"},
        {"text": "a", "exclude": ["sku1", "sku2"]},
        {"item": "sku5", "text": "a", "explain": True},
    ],
    ids=str,
)
def test_finds_what_the_retriever_finds(client: TestClient, retriever: Retriever, asked: dict[str, Any]) -> None:
    assert post(client, **asked) == as_answered(retriever.search(**asked))


def test_an_image_is_taken_in_all_forms(client: TestClient, retriever: Retriever, folder: Path) -> None:
    path = folder / "query.jpg"
    expected = as_answered(retriever.search("in red", image=path, k=5, where="price < 9", exclude=["sku1"]))
    for image in (encoded(path), f"data:image/jpeg;base64,{encoded(path)}"):
        found = post(client, image=image, text="in red", k=5, where="price < 9", exclude=["sku1"])
        assert found == expected
    form = {"text": "in red", "k": "5", "where": "price < 9", "exclude": "sku1"}
    for exclude in ("sku1", '["sku1"]', ['["sku1"]', "nope"], ["nope", '["sku1"]']):
        response = client.post("/v1/search", data={**form, "exclude": exclude}, files={"image": path.read_bytes()})
        assert response.json()["hits"] == expected


def test_the_answer_says_how_long_it_took_and_which_model_queried(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"text": "a"}).json()
    assert answer["took_ms"] > 0
    assert answer["model"]["combining_function"] == "sum"


WRONG = [
    ({}, 422, "has neither an image nor words"),
    ({"text": " "}, 422, "has neither an image nor words"),
    ({"text": "a", "k": 0}, 422, "must be at least 1, not 0"),
    ({"text": "a", "k": 10**9}, 422, "must be at most 200, not 1000000000"),
    ({"text": "a" * 2_000}, 422, "must have at most 1,000 characters"),
    ({"text": "a", "wheer": "b"}, 422, "there is no parameter 'wheer'; did you mean 'where'?"),
    ({"text": "a", "number": 5}, 422, "there is no parameter 'number'; the parameters are text, image, item"),
    ({"text": "a", "k": "many"}, 422, "must be a whole number, not 'many'"),
    ({"text": "a", "where": 5}, 422, "must be text or a list, not 5"),
    ({"text": "a", "where": [["price", "<", {}]]}, 422, "must be text, true or false, a whole number, a number or a"),
    ({"text": "a", "where": "nope = 1"}, 422, "there is no field"),
    ({"text": "a", "where": "price < 1; drop table"}, 422, "where"),
    (
        {"text": "a", "where": [["price", "like", 1]]},
        422,
        "must be '=', '!=', '<', '<=', '>', '>=' or 'in', not 'like'",
    ),
    ({"text": "a", "where": [["price", "in", []]]}, 422, "where"),
    ({"text": "a", "group_by": "nope"}, 422, "there is no such field"),
    ({"item": "nope"}, 404, "the catalog has no item 'nope'"),
    ({"item": "sku1", "image": "aGk="}, 422, "cannot be used: not an image"),
    ({"image": "!"}, 422, "is not valid base64"),
    ({"image": "data:text/plain,hi"}, 422, "expected a data: URI in base64"),
    ({"image": "http://example.org/a.jpg"}, 422, "this server fetches no addresses"),
    ({"text": "a", "exclude": ["b"] * 2_000}, 422, "must have at most 1,000 entries"),
    ({"text": "a\udcff"}, 400, "not valid JSON in UTF-8"),
    ({"text": "a", "k": float("nan")}, 400, "not valid JSON in UTF-8"),
]


@pytest.mark.parametrize(("request_", "status", "detail"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_request_is_a_problem(client: TestClient, request_: dict[str, Any], status: int, detail: str) -> None:
    response = client.post("/v1/search", content=json.dumps(request_), headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in response.text
    assert response.json()["status"] == status


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"[1]", "application/json", 422),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 5_000, "application/json", 400),
        (b"[" * 100_000, "application/json", 422),
        (b"text=a", "application/x-www-form-urlencoded", 415),
        (b"", "", 415),
        (b"nonsense", "multipart/form-data", 400),
        (b"nonsense", "multipart/form-data; boundary=x", 400),
    ],
)
def test_another_body_is_a_problem(client: TestClient, content: bytes, kind: str, status: int) -> None:
    response = client.post("/v1/search", content=content, headers={"content-type": kind})
    assert (response.status_code, response.json()["status"]) == (status, status)


def test_unknown_addresses_and_methods_are_problems(client: TestClient) -> None:
    for path, status, what in (
        ("/nope", 404, "there is nothing at this address"),
        ("/v1/search", 405, "this address does not take GET"),
        ("/../etc/passwd", 404, "there is nothing at this address"),
        ("/v1/items?count=0", 422, "must be at least 1, not '0'"),
        ("/v1/items?group_by=color", 422, "must be 'product', not 'color'"),
    ):
        response = client.get(path)
        assert (response.status_code, response.json()["detail"]) == (status, what)
        assert response.headers["content-type"] == "application/problem+json"


def test_items_are_read_and_browsed(client: TestClient) -> None:
    item = client.get("/v1/items/sku4").json()
    expected = {"price": 2.0, "color": "blue", "kept": True, "since": "2026-01-05"}
    assert item == {"id": "sku4", "product": "p2", "image": "/v1/items/sku4/image", "fields": expected}
    picture = client.get(item["image"])
    assert picture.content.startswith(b"\xff\xd8")
    assert picture.headers["content-type"] == "image/jpeg"
    first = client.get("/v1/items", params={"count": 5}).json()
    second = client.get("/v1/items", params={"start": 5, "count": 200}).json()
    assert first["total"] == second["total"] == COUNT
    assert [one["id"] for one in first["items"] + second["items"]] == [f"sku{number}" for number in range(COUNT)]
    some = client.get("/v1/items", params={"where": "color = 'red' and price >= 6"}).json()
    assert [one["id"] for one in some["items"]] == ["sku12", "sku15", "sku18", "sku21"]
    grouped = client.get("/v1/items", params={"where": "price >= 0.5", "group_by": "product", "count": 3}).json()
    assert [one["id"] for one in grouped["items"]] == ["sku1", "sku2", "sku4"]
    assert grouped["total"] == COUNT // 2
    assert client.get("/v1/items/nope").status_code == 404
    assert client.get("/v1/items/nope/image").status_code == 404


def test_fields_tell_what_filters_can_use(client: TestClient) -> None:
    answer = client.get("/v1/fields").json()
    assert answer["has_groups"] is True
    fields = {one["name"]: one for one in answer["fields"]}
    assert list(fields) == ["price", "color", "kept", "since"]
    assert (fields["price"]["kind"], fields["price"]["min"], fields["price"]["max"]) == ("number", 0, 11.5)
    assert sorted(fields["color"]["values"]) == ["blue", "red"]
    assert (fields["kept"]["kind"], sorted(fields["kept"]["values"])) == ("boolean", [False, True])
    assert (fields["since"]["kind"], fields["since"]["max"]) == ("date", "2026-01-24")


CHANGES = [
    ("PUT", "/v1/items/x", {"json": {"fields": {}}}),
    ("DELETE", "/v1/items/sku1", {}),
    ("POST", "/v1/items", {"content": b"{}", "headers": {"content-type": "application/x-ndjson"}}),
]


@pytest.mark.parametrize(("method", "path", "rest"), CHANGES)
@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer é"])
def test_nobody_writes_without_the_key(
    client: TestClient, method: str, path: str, rest: dict[str, Any], key: str | None
) -> None:
    headers = rest.get("headers", {}) | ({} if key is None else {"Authorization": key.encode()})
    response = client.request(method, path, **{**rest, "headers": headers})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/items").json()["total"] == COUNT


def test_nobody_writes_to_a_server_without_a_key(folder: Path) -> None:
    with client_of(folder, key=None) as client:
        for method, path, rest in CHANGES:
            headers = rest.get("headers", {}) | {"Authorization": "Bearer None"}  # type: ignore[operator]
            response = client.request(method, path, **{**rest, "headers": headers})  # type: ignore[arg-type]
            assert (response.status_code, response.json()["detail"]) == (403, "this server accepts no changes")


def test_every_answer_has_security_headers_and_no_path_of_this_machine(client: TestClient, folder: Path) -> None:
    answers = [client.get(path) for path in ("/", "/v1/items", "/v1/fields", "/nope", "/metrics", "/docs")]
    answers.append(client.post("/v1/search", json={"text": "a", "explain": True}))
    for answer in answers:
        assert "script-src 'self';" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert str(folder) not in answer.text


def test_the_documentation_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "http" not in page
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{name}" in page
        assert client.get(f"/docs/{name}").status_code == 200
    assert client.get("/docs/nope").status_code == 404
    described = client.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/items", "/v1/items/{id}", "/v1/items/{id}/image", "/v1/fields", "/healthz"} <= set(
        described
    )


def test_counters_tell_what_was_asked(client: TestClient) -> None:
    client.post("/v1/search", json={"text": "a"})
    text = client.get("/metrics").text
    assert 'mlcl_requests_total{method="POST",route="/v1/search",status="200"}' in text
    assert "mlcl_batch_queries_bucket" in text
    assert f"mlcl_catalog_rows {COUNT}.0" in text
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}


def test_items_are_added_changed_and_removed(tmp_path: Path) -> None:
    folder = indexed_shop(tmp_path)
    picture = folder / "query.jpg"
    with client_of(folder) as client:
        files = {"image": picture.read_bytes()}
        added = client.put("/v1/items/new/ one", data={"fields": '{"price": 3}'}, files=files, headers=AUTHORIZED)
        assert added.status_code == 200, added.text
        assert added.json()["fields"] == {"price": 3.0, "color": None, "kept": None, "since": None}
        wait_for(lambda: post(client, image=encoded(picture), k=1)[0]["id"] == "new/ one")
        changed = client.put("/v1/items/new/ one", json={"fields": {"color": "pink"}}, headers=AUTHORIZED)
        assert changed.json()["fields"] == {"price": 3.0, "color": "pink", "kept": None, "since": None}
        wait_for(lambda: [hit["id"] for hit in post(client, text="a", where="color = 'pink'")] == ["new/ one"])
        new = client.put("/v1/items/y", json={"fields": {}}, headers=AUTHORIZED)
        assert (new.status_code, new.json()["where"]) == (422, "image")
        assert "a new item needs an image" in new.json()["detail"]
        bad = client.put("/v1/items/y", json={"image": "aGk="}, headers=AUTHORIZED)
        assert (bad.status_code, bad.json()["where"]) == (422, "image")
        assert client.delete("/v1/items/new/ one", headers=AUTHORIZED).status_code == 204
        assert client.delete("/v1/items/new/ one", headers=AUTHORIZED).status_code == 404
        assert client.get("/v1/items/new/ one").status_code == 404
        assert client.get("/v1/items").json()["total"] == COUNT


def test_what_is_not_sent_stays_as_it_is(tmp_path: Path) -> None:
    folder = indexed_shop(tmp_path)
    with client_of(folder) as client:
        expected = {"price": 2.0, "color": "blue", "kept": True, "since": "2026-01-05"}
        picture = client.get("/v1/items/sku4/image").content
        new = {"image": encoded(folder / "query.jpg")}
        steps: list[dict[str, Any]] = [
            {"fields": {"price": 9.5}},
            {"fields": {"color": None}},
            new,
            new | {"fields": {"since": "2026-02-01", "color": "red"}},
            {"product": "other"},
            {},
        ]
        for sent in steps:
            expected |= sent.get("fields", {})
            answer = client.put("/v1/items/sku4", json=sent, headers=AUTHORIZED)
            assert (answer.status_code, answer.json()["fields"]) == (200, expected)
            assert answer.json()["product"] == ("p2" if sent in steps[:4] else "other")
            assert (client.get("/v1/items/sku4/image").content == picture) == (sent in steps[:2])


WRONG_FIELDS = [
    ({"price": "cheap"}, 'must be a number, got "cheap"'),
    ({"price": True}, "must be a number, got true"),
    ({"price": ["1"]}, 'must be a number, got ["1"]'),
    ({"price": 10**400}, f"1{'0' * 56}... is too large"),
    ({"kept": 3}, "must be true or false, got 3"),
    ({"since": "soon"}, 'must be a date such as 2026-01-31, got "soon"'),
    ({"pricee": 3}, "the catalog has no field 'pricee'; did you mean 'price'?"),
    ({"zzz": None}, "the catalog has no field 'zzz'"),
    ({"price": {}}, "must be text, true or false, a whole number, a number or a list, not an object"),
]


@pytest.mark.parametrize("image", [False, True])
def test_a_field_that_the_catalog_cannot_take_is_refused(client: TestClient, folder: Path, image: bool) -> None:
    before = client.get("/v1/items/sku1").json()
    for fields, what in WRONG_FIELDS:
        body = {"fields": fields} | ({"image": encoded(folder / "query.jpg")} if image else {})
        answer = client.put("/v1/items/sku1", json=body, headers=AUTHORIZED)
        assert (answer.status_code, answer.json()["where"]) == (422, f"fields.{next(iter(fields))}")
        assert what in answer.json()["detail"]
        assert ("mlcl index" in answer.json().get("remedy", "")) == ("has no field" in what)
    assert client.get("/v1/items/sku1").json() == before


def test_an_empty_catalog_takes_any_fields(tmp_path: Path) -> None:
    folder = indexed_shop(tmp_path)
    with client_of(folder) as client:
        editor = cast("FastAPI", client.app).state.service.loaded.editor
        editor.engine.store.delete([f"sku{number}" for number in range(COUNT)])
        body = {"image": encoded(folder / "query.jpg"), "fields": {"size": "L", "stock": 3}}
        answer = client.put("/v1/items/new", json=body, headers=AUTHORIZED)
        assert (answer.status_code, answer.json()["fields"]["size"]) == (200, "L")
        fraction = client.put("/v1/items/new", json={"fields": {"stock": 1.5}}, headers=AUTHORIZED).json()
        assert fraction["detail"] == "must be a whole number, got 1.5"
        assert fraction["remedy"].startswith("The catalog's first rows had no fractions")


def test_many_items_are_stored_line_by_line(tmp_path: Path) -> None:
    folder = indexed_shop(tmp_path)
    image = encoded(folder / "query.jpg")
    lines: list[Any] = [{"id": f"n{number}", "image": image, "fields": {"price": number}} for number in range(100)]
    lines[3] = {"id": "n3"}
    lines[7] = {"id": "n7", "image": "!"}
    lines[70] = {"id": "n1", "fields": {"price": 1000}}
    lines[80] = {"id": "n80", "image": image, "fields": {"price": "cheap"}}
    content = "\n".join([*map(json.dumps, lines), "", "{"])
    with client_of(folder) as client:
        headers = AUTHORIZED | {"content-type": "application/x-ndjson"}
        answer = client.post("/v1/items", content=content, headers=headers).json()
        assert (answer["stored"], answer["failed"]) == (97, 4)
        assert sorted(error["line"] for error in answer["errors"]) == [4, 8, 81, 102]
        assert client.get("/v1/items").json()["total"] == COUNT + 96
        assert client.get("/v1/items/n1").json()["fields"]["price"] == 1000


def test_images_that_no_item_has_are_removed_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = indexed_shop(tmp_path)
    monkeypatch.setattr(catalog_editing, "CHANGES_AT_ONCE", 1)
    with client_of(folder) as client:
        editor = cast("FastAPI", client.app).state.service.loaded.editor
        for name in ("a", "b"):
            picture = {"image": (folder / "photos" / f"{ord(name) % 9}.jpg").read_bytes()}
            assert client.put(f"/v1/items/{name}", files=picture, headers=AUTHORIZED).status_code == 200
        files = [path for path in editor._images.glob("*/*") if path.is_file()]
        assert len(files) == 2
        assert client.delete("/v1/items/a", headers=AUTHORIZED).status_code == 204
        editor.tidy()
        assert all(path.exists() for path in files)  # another worker may be about to use one
        for path in files:
            os.utime(path, (0, 0))
        assert client.put("/v1/items/b", json={"fields": {}}, headers=AUTHORIZED).status_code == 200
        editor.tidy()
        assert sum(path.exists() for path in files) == 1
        assert client.get("/v1/items/b/image").status_code == 200


def test_nothing_is_changed_while_another_clip_takes_over(tmp_path: Path) -> None:
    folder = indexed_shop(tmp_path)
    with client_of(folder) as client:
        engine = cast("FastAPI", client.app).state.service.loaded.engine
        other = replace(engine.store.info, encoder="another")
        engine.catalog.create(other)
        engine.catalog.finish("another", 0, 1)
        picture = {"image": (folder / "query.jpg").read_bytes()}
        for response in (
            client.put("/v1/items/a", files=picture, headers=AUTHORIZED),
            client.delete("/v1/items/sku1", headers=AUTHORIZED),
        ):
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert str(folder) not in response.text
        assert engine.catalog.current().info.encoder == "another"
