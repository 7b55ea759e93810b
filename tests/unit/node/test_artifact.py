"""What of artifacts is bounded."""

import pytest

from firebrick.node.artifact import ArtifactShelf
from firebrick.node.errors import StepError
from firebrick.node.glob import Found


async def test_the_number_of_files_of_a_run_is_bounded(tmp_path):
    shelf = ArtifactShelf(tmp_path, lambda _: None, limit=1 << 20, most_files=3)
    stored = []

    async def fetch(job, name, files, source, relative):
        stored.append(relative)
        return 0

    shelf._fetch = fetch
    found = [Found(f"/w/{name}", 0) for name in "ab"]
    await shelf.store("job", "one", None, found, root="/w")
    with pytest.raises(StepError, match="more than 3 files"):
        await shelf.store("job", "two", None, found, root="/w")
    await shelf.store("job", "three", None, found[:1], root="/w")
    assert stored == ["one/a", "one/b", "three/a"]
