"""Read bits as video codecs write them, the most significant bit of each byte first."""

from __future__ import annotations


class Bits:
    """A cursor over bytes. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int = 1) -> int:
        """Read the next bits as one number."""
        if count > self._left:
            raise IndexError
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """Read an Exp-Golomb code (ITU-T H.265, 9.2; `uvlc` of AV1, 4.10.3). A signed one takes the same bits."""
        zeros = 0
        while not self.take():
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.take(zeros)
