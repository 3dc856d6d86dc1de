"""Send our own bombs through the whole system with corpora.py."""

import pytest

from hostile.corpora import report, run
from support.bombs import bombs


@pytest.mark.slow
async def test_a_bomb_only_fails_itself(tmp_path):
    outcomes = await run(bombs(), ["web"])
    assert [outcome for outcome in outcomes if outcome.fault] == [], report(outcomes)
    assert {"finished", "damaged_image", "too_many_pixels"} <= {outcome.code for outcome in outcomes}
    assert len(outcomes) > 140
