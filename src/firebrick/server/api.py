"""The build service over HTTP. A translation: requests into calls of `Builds`, and what comes back into JSON; no state, no logic of its own.

The paths, fields and states of `/build`, `/builds` and `/health` are those of the Firecracker build pipeline in Rust; what it did not have comes
after, in fields and paths of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from firebrick.server import problem, stream
from firebrick.server.artifact import encode_manifest
from firebrick.server.builds import Builds
from firebrick.server.errors import ArtifactNotFoundError
from firebrick.server.followup import DecisionBody, HeldView, RerunBody, ScheduleView
from firebrick.server.guard import Guard
from firebrick.server.manual import manual_page
from firebrick.server.occasion import check_payload
from firebrick.server.record import Build, State
from firebrick.server.shape import Accepted, ArtifactView, BuildBody, BuildDetail, BuildView, Health, ProblemView

_PAGE: Final = 50
_LARGEST_PAGE: Final = 200
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": ProblemView, "content": {problem.MEDIA_TYPE: {}}, "description": "The request is not possible."},
    "5XX": {"model": ProblemView, "content": {problem.MEDIA_TYPE: {}}, "description": "The server is not able to."},
}

BuildId = Annotated[str, Path(max_length=64, description="`build_<uuid>`, as POST /build answered.")]


def create_app(builds: Builds, *, hosts: Collection[str] | None = None) -> FastAPI:
    """The app on these builds. `hosts` are the names under which requests may come; None: any."""
    app = FastAPI(
        title="Firebrick build service",
        version=version("firebrick"),
        description="Clones a repository and runs its workflow, or a command, in a microVM of its own.",
        docs_url=None,
        redoc_url=None,
        responses=_PROBLEMS,
    )
    app.state.builds = builds
    app.add_middleware(Guard, hosts=hosts)
    app.include_router(router)
    problem.install_problems(app)
    return app


def _builds(request: Request) -> Builds:
    builds: Builds = request.app.state.builds
    return builds


async def _find(build_id: BuildId, builds: Annotated[Builds, Depends(_builds)]) -> Build:
    return await builds.find(build_id)


def _json_only(request: Request) -> None:
    """Other types a page of another site could send without being asked for permission first."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(415, "the body must be application/json")


TheBuilds = Annotated[Builds, Depends(_builds)]
TheBuild = Annotated[Build, Depends(_find)]
router: Final = APIRouter()


@router.post("/build", dependencies=[Depends(_json_only)], tags=["builds"])
async def submit(
    body: BuildBody,
    builds: TheBuilds,
    idempotency_key: Annotated[
        str, Header(max_length=255, description="Whatever comes with one key is one build, however often it comes.")
    ] = "",
) -> Accepted:
    """Queue a build."""
    if body.payload is not None:
        check_payload(body.payload)
    build = await builds.submit(body.request(), payload=body.payload, key=idempotency_key)
    return Accepted(build_id=build.id, status=build.state)


@router.post("/build/{build_id}/rerun", dependencies=[Depends(_json_only)], tags=["builds"])
async def rerun(build_id: BuildId, body: RerunBody, builds: TheBuilds) -> Accepted:
    """Another attempt at a build that has ended, on the same commit: a build of its own, of the same `origin`."""
    build = await builds.rerun(build_id, body.repeat())
    return Accepted(build_id=build.id, status=build.state)


@router.get("/build/{build_id}/attempts", tags=["builds"])
async def attempts(build: TheBuild, builds: TheBuilds) -> list[BuildView]:
    """All attempts at what this build is an attempt at, the first one first."""
    return [BuildView.of(each) for each in await builds.attempts(build)]


@router.get("/build/{build_id}/environments", tags=["environments"])
async def environments(build: TheBuild, builds: TheBuilds) -> list[HeldView]:
    """The environments that jobs of the build have come to."""
    return [HeldView.of(each) for each in await builds.held(build)]


@router.post("/build/{build_id}/environments", dependencies=[Depends(_json_only)], tags=["environments"])
async def decide(build_id: BuildId, body: DecisionBody, builds: TheBuilds) -> BuildView:
    """Approve or reject that a build goes on in an environment. The first decision stands."""
    approved = body.state == "approved"
    return BuildView.of(await builds.decide(build_id, body.environment, approved=approved, comment=body.comment))


@router.get("/schedules", tags=["server"])
async def schedules(builds: TheBuilds) -> list[ScheduleView]:
    """The schedules of the repositories the settings name, the next one first."""
    return [ScheduleView.of(due) for due in await builds.schedules()]


@router.get("/build/{build_id}", tags=["builds"])
async def show(build: TheBuild, builds: TheBuilds) -> BuildDetail:
    """A build as it is now, with the end of its log."""
    return BuildDetail.with_log(build, await builds.tail(build))


@router.get("/builds", tags=["builds"])
async def index(
    request: Request,
    response: Response,
    builds: TheBuilds,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = _PAGE,
    before: Annotated[str | None, Query(max_length=64, description="Only builds older than this one.")] = None,
    status: Annotated[State | None, Query(description="Only builds in this state.")] = None,
) -> list[BuildView]:
    """Builds, the newest first. Where there are more, the `Link` header says where the next page is."""
    page = await builds.page(limit + 1, before=before, state=status)
    if len(page) > limit:
        page = page[:limit]
        following = request.url.include_query_params(limit=limit, before=page[-1].id)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return [BuildView.of(build) for build in page]


@router.post("/build/{build_id}/cancel", status_code=202, tags=["builds"])
async def cancel(build_id: BuildId, builds: TheBuilds) -> BuildView:
    """Ask a build to end. It ends as `failed` with the message `cancelled`."""
    return BuildView.of(await builds.cancel(build_id))


@router.get(
    "/build/{build_id}/log",
    tags=["log"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, stream.MEDIA_TYPE: {}}, "description": "The log."}},
)
async def log(
    build: TheBuild,
    builds: TheBuilds,
    follow: Annotated[bool, Query(description="Server-sent events until the build has ended.")] = False,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int, Header(ge=0, description="Go on behind this line.")] = 0,
) -> Response:
    """The whole log so far as text; or, with `follow=1` or `Accept: text/event-stream`, line by line as it comes."""
    if follow or stream.MEDIA_TYPE in accept:
        return stream.EventStream(builds.follow(build, last_event_id))
    return stream.TextStream(builds.text(build))


@router.get("/build/{build_id}/artifacts", tags=["artifacts"])
async def artifacts(build: TheBuild, builds: TheBuilds) -> list[ArtifactView]:
    """What the build left; empty as long as it runs."""
    manifest = await builds.manifest(build)
    return [
        ArtifactView.of(artifact, f"/build/{build.id}/artifacts/{quote(artifact.path)}")
        for artifact in (manifest.artifacts if manifest else ())
    ]


@router.get("/build/{build_id}/manifest.json", tags=["artifacts"], response_class=Response)
async def manifest(build: TheBuild, builds: TheBuilds) -> Response:
    """The same, and what was built, as one file."""
    found = await builds.manifest(build)
    if found is None:
        raise ArtifactNotFoundError(f"build {build.id} has no manifest yet")
    return Response(encode_manifest(found), media_type="application/json")


@router.get("/build/{build_id}/artifacts/{path:path}", tags=["artifacts"], response_class=FileResponse)
async def artifact(build: TheBuild, path: str, builds: TheBuilds) -> Response:
    """One file. Ranges are honoured. A browser is told to store it, not to show it."""
    found, directory = await builds.artifact(build, path)
    headers = {
        "ETag": f'"{found.sha256}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    name = found.path.rpartition("/")[2]
    return FileResponse(directory / found.path, media_type="application/octet-stream", filename=name, headers=headers)


@router.get("/health", tags=["server"])
async def health(builds: TheBuilds) -> Health:
    """Whether the server and its store answer, and how much there is to do."""
    counts = await builds.counts()
    return Health(version=version("firebrick"), queued=counts.queued, running=counts.under_way)


@router.get("/", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    return HTMLResponse(
        manual_page(request.app.openapi()),
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )
