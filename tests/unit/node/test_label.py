"""`runs-on` finds its image or says what there is."""

import pytest

from firebrick.node.errors import LabelError
from firebrick.node.label import image_of

IMAGES = ("base", "toolchain", "debian-12")


def find(*labels: str, configured: dict[str, str] | None = None) -> str:
    return image_of(labels, images=IMAGES, configured=configured or {}, default="toolchain")


@pytest.mark.parametrize("label", ["ubuntu-latest", "Ubuntu-24.04", "debian-13", "linux", "self-hosted", "x64"])
def test_general_labels_get_the_default(label):
    assert find(label) == "toolchain"


def test_an_image_by_its_name_or_with_the_prefix():
    assert find("base") == "base"
    assert find("firebrick-base") == "base"
    assert find("debian-12") == "debian-12"


def test_general_labels_beside_a_named_image():
    assert find("self-hosted", "linux", "x64", "base") == "base"


def test_what_is_configured_comes_first():
    assert find("ubuntu-latest", configured={"ubuntu-*": "base"}) == "base"
    assert find("gpu", configured={"gpu": "base"}) == "base"


def test_an_unknown_label_is_an_error_that_lists_the_known_ones():
    with pytest.raises(LabelError, match="'windows-latest' is not a label") as error:
        find("windows-latest", "linux")
    assert "firebrick-toolchain" in error.value.hint
    assert "ubuntu-*" in error.value.hint


def test_two_images_are_a_contradiction():
    with pytest.raises(LabelError, match="several images, base and toolchain"):
        find("base", "toolchain")


def test_no_label_at_all():
    with pytest.raises(LabelError, match="an empty list"):
        find()
