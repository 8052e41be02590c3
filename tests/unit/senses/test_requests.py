"""Requests per second out of balancers' counters."""

from __future__ import annotations

from dataclasses import replace

from luban.core.model import BalancerReport, MemberReport
from luban.senses.requests import LONGEST_SECONDS, SPAN_SECONDS, Rate, RequestRates


def report(name: str = "b0", *, reachable: bool = True, disabled: str = "", **served: int) -> BalancerReport:
    members = tuple(
        MemberReport(vm, "Disabled" if vm == disabled else "Enabled", served=count) for vm, count in served.items()
    )
    return BalancerReport(name, reachable, members=members)


def test_the_first_look_gives_no_figure() -> None:
    assert RequestRates().look([report(a=500)], 0.0) == {}


def test_two_looks_make_a_rate() -> None:
    rates = RequestRates()
    rates.look([report(a=500, b=0)], 0.0)
    assert rates.look([report(a=600, b=0)], 10.0) == {"a": Rate(10.0, 0.0), "b": Rate(0.0, 0.0)}


def test_looks_that_are_close_are_put_together() -> None:
    rates = RequestRates()
    rates.look([report(a=0)], 0.0)
    assert rates.look([report(a=90)], SPAN_SECONDS - 1) == {}
    assert rates.look([report(a=100)], SPAN_SECONDS) == {"a": Rate(20.0, 0.0)}


def test_a_report_that_was_there_before_says_nothing_new() -> None:
    rates, last = RequestRates(), report(a=100)
    rates.look([report(a=0)], 0.0)
    rates.look([last], 10.0)
    assert rates.look([last], 20.0) == {"a": Rate(10.0, 0.0)}
    assert rates.look([report(a=300)], 30.0) == {"a": Rate(10.0, 10.0)}


def test_an_old_one_says_nothing() -> None:
    rates, last = RequestRates(), report(a=100)
    rates.look([report(a=0)], 0.0)
    rates.look([last], 10.0)
    assert rates.look([last], 10.0 + LONGEST_SECONDS) != {}
    assert rates.look([last], 10.1 + LONGEST_SECONDS) == {}
    assert rates.look([report(a=999)], 11.0 + LONGEST_SECONDS) == {}


def test_a_counter_that_went_back_began_anew() -> None:
    rates = RequestRates()
    rates.look([report(a=500, b=5)], 0.0)
    assert rates.look([report(a=3, b=15)], 10.0) == {"b": Rate(1.0, 0.0)}
    assert rates.look([report(a=13, b=15)], 20.0)["a"] == Rate(1.0, 10.0)


def test_a_vm_that_was_not_there_has_no_figure_yet() -> None:
    rates = RequestRates()
    rates.look([report(a=0)], 0.0)
    assert rates.look([report(a=10, b=99)], 10.0) == {"a": Rate(1.0, 0.0)}


def test_balancers_are_added_up() -> None:
    rates = RequestRates()
    rates.look([report("b0", a=0, b=0), report("b1", a=0)], 0.0)
    found = rates.look([report("b0", a=10, b=40), report("b1", a=20)], 10.0)
    assert found == {"a": Rate(3.0, 0.0), "b": Rate(4.0, 0.0)}


def test_unknown_while_one_of_its_balancers_does_not_tell() -> None:
    rates = RequestRates()
    rates.look([report("b0", a=0, b=0)], 0.0)
    both = [report("b0", a=10, b=10), report("b1", a=5)]
    assert rates.look(both, 10.0) == {"b": Rate(1.0, 0.0)}
    assert rates.look([both[0], report("b1", reachable=False)], 11.0) == {}


def test_one_that_takes_nothing_new_does_not_count() -> None:
    rates = RequestRates()
    rates.look([report("b0", a=0), report("b1", a=0, disabled="a")], 0.0)
    found = rates.look([report("b0", a=10), report("b1", a=5, disabled="a")], 10.0)
    assert found == {"a": Rate(1.0, 0.0)}


def test_a_balancer_that_was_away_begins_anew() -> None:
    rates = RequestRates()
    rates.look([report(a=0)], 0.0)
    rates.look([report(reachable=False)], 5.0)
    assert rates.look([report(a=100)], 10.0) == {}


def answering(**told: tuple[int, float]) -> BalancerReport:
    members = tuple(
        MemberReport(vm, "Enabled", served=count, answers=count, answer_seconds=seconds)
        for vm, (count, seconds) in told.items()
    )
    return BalancerReport("b0", True, members=members)


def test_mean_response_time_of_the_requests_between_two_looks() -> None:
    rates = RequestRates()
    rates.look([answering(a=(100, 50.0), b=(5, 1.0))], 0.0)
    found = rates.look([answering(a=(110, 51.0), b=(5, 1.0))], 10.0)
    assert found["a"].response == 0.1
    assert found["b"].response is None, "nothing was answered"


def test_response_times_of_several_balancers_weigh_by_their_requests() -> None:
    rates = RequestRates()
    both = [answering(a=(0, 0.0)), replace(answering(a=(0, 0.0)), name="b1")]
    rates.look(both, 0.0)
    found = rates.look([answering(a=(30, 3.0)), replace(answering(a=(10, 5.0)), name="b1")], 10.0)
    assert (found["a"].requests, found["a"].response) == (4.0, 0.2)


def test_an_agent_that_was_started_anew_tells_no_response_time_at_first() -> None:
    rates = RequestRates()
    rates.look([answering(a=(100, 50.0))], 0.0)
    fresh = BalancerReport(
        "b0", True, members=(MemberReport("a", "Enabled", served=150, answers=3, answer_seconds=9.0),)
    )
    found = rates.look([fresh], 10.0)
    assert (found["a"].requests, found["a"].response) == (5.0, None)
