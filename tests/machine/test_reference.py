"""The program of the reference runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workshop import Workshop

pytestmark = pytest.mark.machine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "machine.md"


async def test_the_library_alone_in_a_few_lines(workshop: Workshop, tmp_path):
    program = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    spec = await workshop.spec()
    for name, path in (("vmlinuz", spec.kernel), ("initramfs.cpio", spec.initrd), ("root.squashfs", spec.root)):
        (tmp_path / name).symlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"FIREBRICK_HOME": str(workshop.home)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("hello from Linux\n", "")
