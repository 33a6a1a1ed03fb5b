"""Where MNIST and CIFAR-10 lie, which no test downloads."""

import os
from pathlib import Path

import pytest

VARIABLE = "SYMZOO_TEST_DATA"


def image_folder(name):
    """A folder of images below $SYMZOO_TEST_DATA, or below `shared/data` here or in a parent.

    None where there is none.
    """
    places = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    if VARIABLE in os.environ:
        places.insert(0, Path(os.environ[VARIABLE]))
    return next((place / name for place in places if (place / name).is_dir()), None)


def needs_images(name):
    """Skip a test where there are no images of this name."""
    reason = f"no folder {name!r} in ${VARIABLE}, nor in shared/data of a parent of the checkout"
    return pytest.mark.skipif(image_folder(name) is None, reason=reason)
