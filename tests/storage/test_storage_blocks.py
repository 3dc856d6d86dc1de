"""Test how bytes are collected for the disk: large chunks are not copied, and small chunks are joined."""

from safelight.storage.files import BLOCK, blocks


async def arriving(*chunks):
    for chunk in chunks:
        yield chunk


async def gathered(*chunks):
    return [block async for block in blocks(arriving(*chunks), None)]


async def test_large_chunks_are_not_copied():
    large = [bytes([number]) * 200_000 for number in range(12)]
    found = await gathered(*large)
    assert [chunk for block in found for chunk in block] == large
    assert all(chunk is large[number] for number, chunk in enumerate(chunk for block in found for chunk in block))
    assert [sum(map(len, block)) >= BLOCK for block in found] == [True, True]


async def test_small_chunks_are_joined_in_order():
    small = [bytes([number % 251]) * (1 + number % 7) for number in range(5000)]
    mixed = [*small, b"x" * 100_000, *small]
    (block,) = await gathered(*mixed)
    assert b"".join(block) == b"".join(mixed)
    assert len(block) == 3
    assert await gathered() == await gathered(b"") == []
