"""Test what storage makes of the answers of a db that does not know the question."""

import pytest

from safelight.errors import Error
from safelight.storage.files import TextFile
from safelight.storage.identity import Identity, Marks


@pytest.mark.parametrize(
    ("status", "accepted"),
    [(404, True), (405, True), (501, True), (400, True), (500, False), (503, False), (403, False)],
)
async def test_a_db_that_does_not_know_stores_need_not_confirm_them(tmp_path, status, accepted):
    """It is one of the classic protocol, which says nothing about what else a db answers, or an older one of ours."""

    async def claim(_):
        raise Error.from_problem("What?", status)

    def restart():
        pytest.fail("nothing asked for a restart")

    identity = Identity(Marks(TextFile(tmp_path / "store"), TextFile(tmp_path / "db")), claim, restart)
    if accepted:
        await identity.look()
    else:
        with pytest.raises(Error):
            await identity.look()
    assert identity.is_accepted is accepted
