"""The protocols, request by request: what clients send, and what others might."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from firebrick.results.blob_api import read_block_list
from firebrick.results.errors import InvalidError
from firebrick.results.parts import Parts
from firebrick.results.token import sign_grant
from tests.unit.results.conftest import MAIN, PULL, VERSION, Client, grant

ARTIFACTS = "/twirp/github.actions.results.api.v1.ArtifactService"
CACHE = "/twirp/github.actions.results.api.v1.CacheService"
IDS = {"workflow_run_backend_id": "1", "workflow_job_run_backend_id": "build"}
LIST = "<?xml version='1.0' encoding='utf-8'?><BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>"
BLOB = {"x-ms-blob-type": "BlockBlob"}


async def call(http: httpx.AsyncClient, method: str, status: int = 200, **fields: Any) -> Any:
    answer = await http.post(f"{CACHE if 'Cache' in method else ARTIFACTS}/{method}", json=fields)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_an_artifact_by_hand(client: Client):
    async with client() as http:
        url = (await call(http, "CreateArtifact", **IDS, name="n", version=4))["signed_upload_url"]
        assert "sig=" in url
        assert url.startswith("http://forge.localhost:8080/blob/uploads/")
        for block, data in (("Yg==", b"world"), ("YQ==", b"hello ")):
            answer = await http.put(
                url,
                params=httpx.QueryParams(httpx.URL(url).params).merge({"comp": "block", "blockid": block}),
                content=data,
            )
            assert answer.status_code == 201
            assert answer.headers["x-ms-request-id"]
        answer = await http.put(f"{url}&comp=blocklist", content=LIST)
        digest = hashlib.sha256(b"hello world").hexdigest()
        assert (answer.status_code, answer.headers["etag"]) == (201, f'"{digest}"')
        assert "last-modified" in answer.headers
        done = await call(http, "FinalizeArtifact", **IDS, name="n", size="11", hash=f"sha256:{digest}")
        listed = (await call(http, "ListArtifacts", **IDS, name_filter="n", id_filter=done["artifact_id"]))["artifacts"]
        assert [(each["name"], each["size"], each["digest"]) for each in listed] == [("n", "11", f"sha256:{digest}")]
        assert datetime.fromisoformat(listed[0]["created_at"])
        link = (await call(http, "GetSignedArtifactURL", **IDS, name="n"))["signed_url"]
        got = await http.get(link, headers={"Authorization": ""})
        assert (got.content, got.headers["content-type"]) == (b"hello world", "application/zip")
        assert await call(http, "DeleteArtifact", **IDS, name="n") == {"ok": True, "artifact_id": done["artifact_id"]}
        assert (await http.get(link)).status_code == 404


async def kept(http: httpx.AsyncClient, data: bytes = b"0123456789") -> str:
    url = (await call(http, "CreateArtifact", **IDS, name="n", mime_type="text/html"))["signed_upload_url"]
    assert (await http.put(url, content=data, headers=BLOB)).status_code == 201
    await call(http, "FinalizeArtifact", **IDS, name="n", size=len(data))
    link: str = (await call(http, "GetSignedArtifactURL", **IDS, name="n"))["signed_url"]
    return link


@pytest.mark.parametrize(
    ("wanted", "status", "content", "where"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=3-99", 206, b"3456789", "bytes 3-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
    ],
)
async def test_any_part_of_a_content_can_be_had(
    client: Client, wanted: str | None, status: int, content: bytes | None, where: str | None
):
    async with client() as http:
        link = await kept(http)
        answer = await http.get(link, headers={"Range": wanted} if wanted else {})
        assert (answer.status_code, answer.headers.get("content-range")) == (status, where)
        if content is not None:
            assert answer.content == content
            assert answer.headers["etag"] == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'


async def test_a_head_says_how_much_there_is(client: Client):
    async with client() as http:
        answer = await http.head(await kept(http))
        assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "10", b"")
        assert answer.headers["accept-ranges"] == "bytes"


async def test_what_a_job_made_is_no_page_of_ours(client: Client):
    async with client() as http:
        headers = (await http.get(await kept(http))).headers
        assert headers["content-type"].startswith("text/html")
        assert headers["content-security-policy"] == "sandbox"
        assert headers["content-disposition"] == "attachment; filename*=UTF-8''n"


@pytest.mark.parametrize(
    ("headers", "data", "words"),
    [
        ({"Content-MD5": base64.b64encode(hashlib.md5(b"other").digest()).decode()}, b"data", "MD5"),
        ({"Content-MD5": "?"}, b"data", "base64"),
        ({"Content-MD5": "YQ=="}, b"data", "16 bytes"),
        ({"x-ms-content-crc64": "AAAA"}, b"data", "CRC-64"),
        ({"x-ms-blob-type": "PageBlob"}, b"data", "BlockBlob"),
    ],
)
async def test_a_body_that_is_not_what_it_should_be_is_refused(
    client: Client, headers: dict[str, str], data: bytes, words: str
):
    async with client() as http:
        url = (await call(http, "CreateArtifact", **IDS, name="n"))["signed_upload_url"]
        answer = await http.put(url, content=data, headers=BLOB | headers)
        assert (answer.status_code, words in answer.json()["msg"]) == (400, True)
        good = {"Content-MD5": base64.b64encode(hashlib.md5(b"data").digest()).decode()}
        assert (await http.put(url, content=b"data", headers=BLOB | good)).status_code == 201


async def test_a_link_is_no_better_than_its_signature(client: Client):
    async with client() as http:
        url = (await call(http, "CreateArtifact", **IDS, name="n"))["signed_upload_url"]
        other = url.replace("/blob/uploads/", "/blob/uploads/1")
        for bad in (other, url.replace("sig=", "sig=A"), url.split("?")[0], url.replace("/uploads/", "/artifacts/")):
            assert (await http.put(bad, content=b"x", headers=BLOB)).status_code in (403, 405)
        assert (await http.get(url.replace("/uploads/", "/artifacts/"))).status_code == 403


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({**IDS, "name": "a/b"}, 400, "invalid_argument"),
        ({**IDS, "name": 7}, 400, "invalid_argument"),
        ({**IDS, "name": "n", "expires_at": "yesterday"}, 400, "invalid_argument"),
        ({**IDS, "name": "n", "mime_type": "text/html\r\nX: y"}, 400, "invalid_argument"),
        (
            {"workflow_run_backend_id": "2", "workflow_job_run_backend_id": "build", "name": "n"},
            403,
            "permission_denied",
        ),
        (
            {"workflow_run_backend_id": "1", "workflow_job_run_backend_id": "other", "name": "n"},
            403,
            "permission_denied",
        ),
        ({"name": "n"}, 403, "permission_denied"),
    ],
)
async def test_what_is_wrong_is_said_as_the_clients_read_it(
    client: Client, fields: dict[str, Any], status: int, code: str
):
    async with client() as http:
        answer = await call(http, "CreateArtifact", status, **fields)
        assert answer["code"] == code
        assert answer["msg"]


async def test_every_answer_is_json_also_where_there_is_nothing(client: Client):
    async with client() as http:
        for method, path, status in (
            ("POST", f"{ARTIFACTS}/Nothing", 404),
            ("GET", f"{ARTIFACTS}/CreateArtifact", 405),
            ("GET", "/nothing", 404),
            ("POST", f"{ARTIFACTS}/CreateArtifact", 400),
        ):
            answer = await http.request(method, path)
            assert (answer.status_code, bool(answer.json()["msg"])) == (status, True)
        large = await http.post(f"{ARTIFACTS}/CreateArtifact", content=b"{" + b" " * (65 << 10))
        assert (large.status_code, "larger" in large.json()["msg"]) == (400, True)
        deep = await http.post(f"{ARTIFACTS}/CreateArtifact", content=b'{"x":' + b"[" * 60_000)
        assert deep.status_code == 400


async def test_nobody_without_a_token_of_ours_is_served(client: Client, parts: Parts):
    async with client() as http:
        for value in (
            "",
            "Bearer",
            "Bearer x",
            f"Bearer {sign_grant(b'x' * 32, grant(), lifetime_s=60)}",
            "Basic eDp5",
        ):
            for path in (f"{ARTIFACTS}/ListArtifacts", f"{CACHE}/CreateCacheEntry", "/_apis/artifactcache/caches"):
                answer = await http.post(path, json=IDS, headers={"Authorization": value})
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_retention_is_what_the_client_asks_for(client: Client):
    soon = datetime.now(UTC) + timedelta(days=3000)
    async with client() as http:
        answer = await call(http, "CreateArtifact", **IDS, name="n", expires_at=soon.isoformat())
        assert answer["ok"]


async def test_the_rest_api_pages_and_redirects(client: Client):
    async with client() as http:
        link = await kept(http)
        base = "/api/v3/repos/acme/rocket/actions"
        listed = (await http.get(f"{base}/runs/1/artifacts", params={"per_page": "1", "page": "1"})).json()
        assert (listed["total_count"], [each["name"] for each in listed["artifacts"]]) == (1, ["n"])
        assert (await http.get(f"{base}/runs/1/artifacts", params={"page": "2"})).json()["artifacts"] == []
        assert (await http.get(f"{base}/runs/1/artifacts", params={"name": "m"})).json()["total_count"] == 0
        number = listed["artifacts"][0]["id"]
        answer = await http.get(f"/repos/Acme/Rocket/actions/artifacts/{number}/zip")
        assert (answer.status_code, answer.headers["location"].split("?")[0]) == (302, link.split("?")[0])
        assert (await http.get(f"/repos/acme/other/actions/artifacts/{number}/zip")).status_code == 403
        assert (await http.get(f"{base}/artifacts/{number + 1}/zip")).status_code == 404
        assert (await http.get(f"{base}/artifacts/{'9' * 30}/zip")).status_code == 400


async def test_cache_version_1_by_hand(client: Client):
    v1 = "/_apis/artifactcache"
    async with client() as http, client(grant(job="other")) as other:
        where = {"keys": "a,b", "version": VERSION}
        assert (await http.get(f"{v1}/cache", params=where)).status_code == 204
        made = await http.post(f"{v1}/caches", json={"key": "A-1", "version": VERSION, "cacheSize": 6})
        number = made.json()["cacheId"]
        assert made.status_code == 201
        again = await other.post(f"{v1}/caches", json={"key": "a-1", "version": VERSION})
        assert (again.status_code, "another job" in again.json()["message"]) == (409, True)
        for headers in ({}, {"Content-Range": "bytes 3-1/*"}, {"Content-Range": "bytes 0-9/*"}):
            assert (await http.patch(f"{v1}/caches/{number}", content=b"abc", headers=headers)).status_code == 400
        assert (
            await other.patch(f"{v1}/caches/{number}", content=b"abc", headers={"Content-Range": "bytes 0-2/*"})
        ).status_code == 404
        for start, data in ((3, b"def"), (0, b"abc")):
            headers = {"Content-Range": f"bytes {start}-{start + 2}/*"}
            assert (await http.patch(f"{v1}/caches/{number}", content=data, headers=headers)).status_code == 204
        assert (await http.post(f"{v1}/caches/{number}", json={"size": 7})).status_code == 400
        assert (await http.post(f"{v1}/caches/{number}", json={"size": 6})).status_code == 204
        hit = (await http.get(f"{v1}/cache", params=where)).json()
        assert (hit["cacheKey"], hit["scope"]) == ("A-1", MAIN)
        assert (await http.get(hit["archiveLocation"], headers={"Authorization": ""})).content == b"abcdef"
        assert (await http.get(f"{v1}/caches", params={"key": "a"})).json()["totalCount"] == 1


async def test_cache_version_2_by_hand(client: Client):
    entry = {"key": "k", "version": VERSION}
    async with client() as http, client(grant(ref=PULL, write=None)) as reader:
        assert (await call(http, "GetCacheEntryDownloadURL", **entry, restore_keys=["k-"]))["ok"] is False
        url = (await call(http, "CreateCacheEntry", **entry))["signed_upload_url"]
        assert (await http.put(url, content=b"data", headers=BLOB)).status_code == 201
        assert (await call(http, "FinalizeCacheEntryUpload", **entry, size_bytes="4"))["ok"] is True
        assert (await call(http, "CreateCacheEntry", 409, **entry))["code"] == "already_exists"
        denied = await call(reader, "CreateCacheEntry", **entry)
        assert (denied["ok"], denied["message"].startswith("cache write denied:")) == (False, True)
        found = await call(reader, "GetCacheEntryDownloadURL", key="x", version=VERSION, restore_keys=["K"])
        assert (found["matched_key"], (await http.get(found["signed_download_url"])).content) == ("k", b"data")


async def test_links_are_given_for_a_host_and_nothing_else(client: Client):
    async with client() as http:
        for host in ("a b", "evil.example/x", "x@y", "[::1]", ""):
            answer = await http.post(f"{ARTIFACTS}/CreateArtifact", json={**IDS, "name": "n"}, headers={"Host": host})
            assert answer.status_code == 400


def test_a_block_list_is_read_in_its_order():
    assert read_block_list(LIST.encode()) == ["YQ==", "Yg=="]
    assert read_block_list(b"<BlockList><Committed>a</Committed>\n<Uncommitted>b</Uncommitted></BlockList>") == [
        "a",
        "b",
    ]
    assert read_block_list(b"<BlockList/>") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"<BlockList>",
        b"<Latest>a</Latest>",
        b"<BlockList><Other>a</Other></BlockList>",
        b"<BlockList><Latest><Latest>a</Latest></Latest></BlockList>",
        b"<BlockList><BlockList/></BlockList>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><BlockList><Latest>&a;</Latest></BlockList>',
        b"<BlockList>" + b"<Latest>a</Latest>" * 50_001 + b"</BlockList>",
        b"<a>" * 100_000,
    ],
)
def test_anything_else_is_no_block_list(body: bytes):
    with pytest.raises(InvalidError):
        read_block_list(body)


@pytest.mark.parametrize("number", [-1, 1 << 63, "9" * 40])
async def test_a_number_no_artifact_can_have_is_refused(client: Client, number: object):
    async with client() as http:
        await call(http, "ListArtifacts", 400, **IDS, id_filter=number)
