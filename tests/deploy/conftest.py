import os
import pathlib

import pytest

from trees import ROOT, checked

BUILD = ROOT / "build"


@pytest.fixture(scope="session", autouse=True)
def needs_root():
    if os.geteuid() != 0:
        pytest.exit("found no root, expected it for chroot and mounts: sudo make package-test", 1)


@pytest.fixture(scope="session")
def bases() -> pathlib.Path:
    """Folder with minbase.tar and slim.tar, made once and kept."""
    checked(ROOT / "tests/deploy/make-base.sh", BUILD / "trees")
    return BUILD / "trees"


@pytest.fixture(scope="session")
def packages() -> dict[str, pathlib.Path]:
    """The newest build's packages by name."""
    found = sorted((BUILD / "package/packages").glob("*.deb"))
    by_name = {path.name.split("_")[0]: path for path in found}
    assert len(found) == len(by_name) == 3, f"{found}: expected three; run `make package`"
    return by_name
