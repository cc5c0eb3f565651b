"""How much of a GPU's busy time a call had, when calls run side by side."""


class GpuShare:
    """Processor sharing: at any moment each of the n calls in flight has 1/n of the server.

    A call's share is the integral of dt/n(t) over its life, so the shares of all calls add up to the time in which any
    ran: dollars by share are the GPU's price over its measured throughput. Both events take constant time, because
    the integral over [a, b) is its value at b less that at a. Times are seconds that never go back.
    """

    def __init__(self) -> None:
        self.running = 0
        self._integral = 0.0
        self._at = 0.0

    def begin(self, at: float) -> float:
        """A call begins; `end` wants the mark that is returned."""
        self._advance(at)
        self.running += 1
        return self._integral

    def end(self, mark: float, at: float) -> float:
        """The seconds that the call had to itself, so to speak."""
        self._advance(at)
        self.running -= 1
        return max(0.0, self._integral - mark)

    def _advance(self, at: float) -> None:
        if self.running:
            self._integral += max(0.0, at - self._at) / self.running
        self._at = max(self._at, at)
