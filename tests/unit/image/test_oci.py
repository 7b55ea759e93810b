from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from firebrick.image.errors import BuildError
from firebrick.image.oci import choose_reference, is_docker_archive
from firebrick.image.oci_config import read_config


def layout(directory: Path, *names: str | None) -> Path:
    key = "org.opencontainers.image.ref.name"
    manifests = [{"digest": "sha256:0", "annotations": {key: name} if name else {}} for name in names]
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return directory


def test_the_wanted_reference_or_the_only_one(tmp_path: Path):
    assert choose_reference(layout(tmp_path, "v1", "latest"), "latest") == "latest"
    assert choose_reference(layout(tmp_path, "v1", "v2"), "v2") == "v2"
    assert choose_reference(layout(tmp_path, "v1", None), "latest") == "v1"


def test_a_choice_is_not_guessed(tmp_path: Path):
    with pytest.raises(BuildError, match="has no image `latest`") as error:
        choose_reference(layout(tmp_path, "v1", "v2"), "latest")
    assert "v1, v2" in error.value.hint
    with pytest.raises(BuildError, match="has no image `v3`"):
        choose_reference(layout(tmp_path, "v1"), "v3")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"manifests": 1}'])
def test_what_is_no_layout_says_so(tmp_path: Path, content: str):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(BuildError, match="is no OCI layout"):
        choose_reference(tmp_path, "latest")


@pytest.mark.parametrize("time", ["1" + "0" * 400, "-1", str(1 << 63)])
async def test_a_health_check_whose_times_cannot_be_is_refused(tmp_path: Path, time: str):
    blobs = layout(tmp_path, "latest") / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / ("c" * 64)).write_text(f'{{"config": {{"Healthcheck": {{"Test": ["CMD", "x"], "Interval": {time}}}}}}}')
    (blobs / ("a" * 64)).write_text(json.dumps({"config": {"digest": f"sha256:{'c' * 64}"}}))
    index = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(index.replace("sha256:0", f"sha256:{'a' * 64}"))
    with pytest.raises(BuildError, match="how the image"):
        await read_config(tmp_path, "latest")


def test_archives_of_both_kinds_are_told_apart(tmp_path: Path):
    for name, inside in (("docker.tar", "manifest.json"), ("oci.tar", "index.json")):
        (tmp_path / inside).write_text("{}")
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tmp_path / inside, inside)
    assert is_docker_archive(tmp_path / "docker.tar")
    assert not is_docker_archive(tmp_path / "oci.tar")
    with pytest.raises(BuildError, match="cannot read the archive"):
        is_docker_archive(tmp_path / "index.json")
