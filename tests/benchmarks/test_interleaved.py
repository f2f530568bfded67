import pytest
from interleaved import Method, Spread, Timing, interleave


class FakeClock:
    """Time passes only while a method works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, *seconds: float):
        turns = iter(seconds)

        def run(*_: object) -> None:
            self.now += next(turns)

        return run


def test_methods_take_turns_and_the_warm_up_is_not_timed() -> None:
    clock, order = FakeClock(), []
    first, second = clock.work(9.0, 1.0, 3.0, 2.0), clock.work(9.0, 4.0, 6.0, 4.0)
    timings = interleave(
        [
            Method("one", lambda: (order.append("one"), first())),
            Method("two", lambda: (order.append("two"), second()), items=2),
        ],
        repeats=3,
        clock=clock,
    )
    assert order == ["one", "two"] * 4
    assert list(timings) == ["one", "two"]
    assert timings["one"].seconds == (1.0, 3.0, 2.0)
    assert timings["two"].seconds == (2.0, 3.0, 2.0)
    assert timings["one"].spread() == Spread(2.0, 1.0, 3.0)


def test_what_is_prepared_is_handed_over_and_takes_no_time() -> None:
    clock, seen = FakeClock(), []
    prepare, run = clock.work(100.0, 100.0), clock.work(1.0, 1.0)
    method = Method("one", lambda value: (seen.append(value), run()), prepare=lambda: (prepare(), "ready")[1])
    timings = interleave([method], repeats=1, clock=clock)
    assert seen == ["ready", "ready"]
    assert timings["one"].seconds == (1.0,)


def test_ratios_are_taken_within_a_round() -> None:
    calm, stressed = Timing("one", (1.0, 10.0, 1.0)), Timing("two", (2.0, 20.0, 3.0))
    assert stressed.over(calm) == Spread(2.0, 2.0, 3.0)
    assert calm.over(stressed).median == 0.5


def test_names_must_differ_and_a_round_must_be_timed() -> None:
    with pytest.raises(ValueError, match=r"different names, got \['one', 'one'\]"):
        interleave([Method("one", print), Method("one", print)])
    with pytest.raises(ValueError, match="At least one round must be timed, got repeats = 0"):
        interleave([Method("one", print)], repeats=0)
