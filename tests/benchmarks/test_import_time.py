import import_time
from interleaved import Timing


def test_the_cost_of_an_import_is_what_it_takes_beyond_the_interpreter() -> None:
    timings = {
        import_time.LIMIT: Timing(import_time.LIMIT, (0.1, 0.2, 0.1)),
        import_time.PACKAGE: Timing(import_time.PACKAGE, (0.2, 0.25, 0.2)),
        import_time.FIND: Timing(import_time.FIND, (0.6, 0.7, 0.6)),
    }
    assert import_time.verdicts(timings) == {
        import_time.PACKAGE: "100 ms (at most 300 ms: met)",
        import_time.FIND: "500 ms",
    }
    slow = {**timings, import_time.PACKAGE: Timing(import_time.PACKAGE, (0.5, 0.6, 0.5))}
    assert import_time.verdicts(slow)[import_time.PACKAGE] == "400 ms (at most 300 ms: missed)"


def test_the_package_is_light() -> None:
    assert 10 < import_time.loads_nothing_heavy() < 200
