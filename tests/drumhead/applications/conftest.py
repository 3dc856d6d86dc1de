"""Applications that are composed and started as machines, one at a time."""

import pytest

from support.guests.applications import Application


@pytest.fixture
def application(drumhead, tmp_path, request):
    """Return an application with the name of the test."""
    made = Application(drumhead, tmp_path / request.node.name.removeprefix("test_").replace("_", "-"))
    yield made
    drumhead.run("delete", "--force", *(f"{made.name}-{config_set}" for config_set in made.ran))
    (drumhead.home.volumes / f"{made.name}.raw").unlink(missing_ok=True)
