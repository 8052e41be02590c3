"""Cross scheduling: who is attached to whom, whatever comes and goes (docs/algorithms.md, section 6)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luban.core.attach import AttachmentRule, Front, attach, balancers_needed, violations

HOSTS = [f"host-{number}" for number in range(10)]
MOST_VMS, MOST_BALANCERS = 200, 20
SEEDS = st.integers(0, 2**32)
"""Of stories. A story of hypothesis' own choices would take minutes to make shorter."""
ROUNDS = 40
"""So many looks without an event, and all is as it should be."""


def fronts(**attached: str) -> list[Front]:
    """Balancers that send requests to all that they were told of: names to VMs, each a letter."""
    return [Front(name, "", frozenset(vms), frozenset(vms)) for name, vms in attached.items()]


def attached(vms: str, found: list[Front], p: int = 2, d_max: int = 50) -> dict[str, str]:
    """The answer, VMs as letters."""
    answer = attach(dict.fromkeys(vms, "host-x"), found, AttachmentRule(p, d_max))
    return {name: "".join(sorted(it)) for name, it in answer.items()}


class TestFirst:
    """Where nothing is attached yet."""

    def test_p_different_balancers_each(self) -> None:
        assert attached("abc", fronts(b0="", b1="", b2="")) == {"b0": "bc", "b1": "ab", "b2": "ac"}

    def test_as_many_as_there_are(self) -> None:
        assert attached("ab", fronts(b0="")) == {"b0": "ab"}

    def test_no_balancer(self) -> None:
        assert attached("ab", []) == {}

    def test_another_host_first(self) -> None:
        found = [Front("b0", "host-x"), Front("b1", "host-y")]
        assert attached("a", found, p=1) == {"b0": "", "b1": "a"}

    def test_its_own_host_if_that_is_emptier(self) -> None:
        found = [Front("b0", "host-x"), Front("b1", "host-y", frozenset("b"), frozenset("b"))]
        assert attached("ab", found, p=1) == {"b0": "a", "b1": "b"}


class TestRoom:
    """Where d_max bounds it."""

    def test_one_each_before_a_second(self) -> None:
        found = attached("abc", fronts(b0="", b1=""), d_max=2)
        assert sorted(len(it) for it in found.values()) == [2, 2]
        assert set("".join(found.values())) == set("abc")

    def test_one_that_has_two_gives_one_away(self) -> None:
        assert attached("abc", fronts(b0="ab", b1="ab"), d_max=2) == {"b0": "bc", "b1": "ab"}

    def test_somebody_moves_where_the_only_room_is(self) -> None:
        found = attached("abc", fronts(b0="ab", b1="ab", b2=""), d_max=2)
        assert sorted("".join(found.values())) == list("aabbcc")

    def test_lowered(self) -> None:
        """Nobody is let go before another balancer sends requests to it."""
        assert attached("abc", fronts(b0="abc", b1=""), p=1, d_max=2) == {"b0": "abc", "b1": "c"}
        assert attached("abc", fronts(b0="abc", b1="c"), p=1, d_max=2) == {"b0": "ab", "b1": "c"}

    def test_none_left(self) -> None:
        assert attached("abc", fronts(b0="ab"), p=1, d_max=2) == {"b0": "ab"}


class TestMoves:
    """As few as can be, and the new one first."""

    def test_nothing_moves_that_need_not(self) -> None:
        before = {"b0": "ab", "b1": "ac", "b2": "bc"}
        assert attached("abc", fronts(**before)) == before

    def test_lost_balancers_vms_go_to_the_others(self) -> None:
        assert attached("abc", fronts(b0="ab", b1="ac")) == {"b0": "abc", "b1": "abc"}

    def test_one_that_is_new_gets_some(self) -> None:
        found = attached("abcd", fronts(b0="ab", b1="cd", b2=""), p=1)
        assert found == {"b0": "ab", "b1": "cd", "b2": "c"}, "c stays at b1 until b2 sends it requests"
        assert attached("abcd", fronts(b0="ab", b1="cd", b2="c"), p=1) == {"b0": "ab", "b1": "d", "b2": "c"}

    def test_what_serves_nobody_yet_moves_at_once(self) -> None:
        found = [Front("b0", "", frozenset("abcd"), frozenset()), Front("b1")]
        assert [len(it) for it in attached("abcd", found, p=1).values()] == [2, 2]


@dataclass
class Tier:
    """Balancers, VMs and what was published. Each balancer does what it is told after a while."""

    dice: random.Random
    rule: AttachmentRule
    vms: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    """By balancer."""
    published: dict[str, frozenset[str]] = field(default_factory=dict)
    sending: dict[str, frozenset[str]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    made: int = 0

    def event(self) -> None:
        """Something happens."""
        self.dice.choice((self.vms_come, self.vm_goes, self.balancer_comes, self.balancer_falls, self.returns))()

    def vms_come(self) -> None:
        for _ in range(self.dice.choice((1, 1, 1, 5, 40))):
            if len(self.vms) < MOST_VMS:
                self.made += 1
                self.vms[f"vm-{self.made}"] = self.dice.choice(HOSTS)

    def vm_goes(self) -> None:
        for name in self.dice.sample(sorted(self.vms), min(len(self.vms), self.dice.choice((1, 1, 3)))):
            del self.vms[name]

    def balancer_comes(self) -> None:
        if len(self.hosts) < MOST_BALANCERS:
            name = f"lb-{len(self.hosts)}"
            self.hosts[name] = self.dice.choice([*HOSTS, ""])
            self.published[name] = self.sending[name] = frozenset()

    def balancer_falls(self) -> None:
        if self.usable:
            name = self.dice.choice(self.usable)
            self.down.add(name)
            self.sending[name] = frozenset()

    def returns(self) -> None:
        if self.down:
            self.down.remove(self.dice.choice(sorted(self.down)))

    @property
    def usable(self) -> list[str]:
        return [name for name in self.hosts if name not in self.down]

    def served(self) -> set[str]:
        return {vm for name in self.usable for vm in self.sending[name]} & self.vms.keys()

    def look(self, obedient: float = 2.0) -> bool:
        """One plan, carried out by some. An operator that has just started knows as much. Whether anything changed."""
        known, served = self.vms.keys(), self.served()
        seen = [
            Front(it, self.hosts[it], self.published[it] & known, self.sending[it] & known & self.published[it])
            for it in self.usable
        ]
        answer = attach(self.vms, seen, self.rule)
        assert answer.keys() == set(self.usable)
        for front in seen:
            assert len(answer[front.name]) <= max(self.rule.d_max, len(front.attached)), "above d_max"
            assert answer[front.name] <= known
        changed = any(answer[it] != self.published[it] for it in answer)
        self.published |= answer
        before = dict(self.sending)
        for name in self.usable:
            told = self.published[name]
            # What it shall not send any more it stops sending at once, as the drain does.
            self.sending[name] = told if self.dice.random() < obedient else self.sending[name] & told
        assert served <= self.served(), "an own action took away one that served"
        return changed or self.sending != before

    def settled(self) -> None:
        """All invariants."""
        found, number = {it: self.published[it] for it in self.usable}, len(self.vms)
        has = {vm: frozenset(it for it in found if vm in found[it]) for vm in self.vms}
        counts = [len(it) for it in found.values()]
        if not found:
            return
        most, rule = min(self.rule.p, len(found)), self.rule
        fair = min(most, len(found) * rule.d_max // max(1, number))
        assert all(fair <= len(it) <= most for it in has.values()), "each VM has p, or its share of the room"
        # Where d_max was lowered so far that somebody would serve nobody, nobody is let go.
        assert max(counts) <= rule.d_max or number > len(found) * rule.d_max
        if max(counts) <= rule.d_max:
            assert max(counts) - min(counts) <= 1
            assert not any(violations(has, dict(zip(found, counts, strict=True)), rule).values())


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 4), st.sampled_from((1, 2, 5, 20, 200)))
def test_invariants_whatever_happens(seed: int, p: int, d_max: int) -> None:
    dice = random.Random(seed)
    tier = Tier(dice, AttachmentRule(p, d_max))
    for _ in range(dice.randint(1, 60)):
        tier.event()
        for _ in range(dice.randint(0, 3)):
            tier.look(obedient=dice.choice((0.0, 0.3, 0.8, 2.0)))
        if dice.random() < 0.05:
            tier.rule = AttachmentRule(dice.randint(1, 4), dice.choice((1, 3, 10, 200)))
        if dice.random() < 0.2:
            rounds = next(count for count in range(ROUNDS) if not tier.look())
            assert rounds < ROUNDS
            tier.settled()


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 3))
def test_few_moves(seed: int, p: int) -> None:
    """One VM less moves no more than it must."""
    dice = random.Random(seed)
    tier = Tier(dice, AttachmentRule(p, 200))
    for _ in range(dice.randint(p, 8)):
        tier.balancer_comes()
    for _ in range(5):
        tier.vms_come()
    while tier.look():
        pass
    before, count = dict(tier.published), len(tier.usable)
    del tier.vms[dice.choice(sorted(tier.vms))]
    while tier.look():
        pass
    moved = sum(len(tier.published[it] - before[it]) for it in before)
    assert moved <= min(p, count), "each of its balancers takes one over at most"


class TestNeed:
    """How many balancers there should be."""

    @pytest.mark.parametrize(
        ("vms", "lost", "p", "d_max", "minimum", "maximum", "count", "reason"),
        [
            (0, 0, 2, 50, 1, 3, 1, "Minimum"),
            (1, 0, 2, 50, 1, 3, 2, "BalancersPerVM"),
            (50, 0, 2, 50, 2, 3, 2, "Minimum"),
            (51, 0, 2, 50, 2, 3, 3, "AttachmentRoom"),
            (90, 0, 2, 50, 2, 3, 3, "TierAtMaximum"),
            (10, 1, 2, 50, 2, 3, 3, "BalancerLost"),
            (10, 1, 1, 50, 2, 3, 2, "Minimum"),
            (3, 0, 1, 2, 1, 3, 2, "AttachmentRoom"),
        ],
    )
    def test_count_and_reason(
        self, vms: int, lost: int, p: int, d_max: int, minimum: int, maximum: int, count: int, reason: str
    ) -> None:
        found = balancers_needed(vms, lost, AttachmentRule(p, d_max), minimum, maximum)
        assert (found.count, found.reason) == (count, reason)


class TestViolations:
    """What is counted as one."""

    RULE = AttachmentRule(2, 2)

    def test_none(self) -> None:
        assert not any(violations({"a": frozenset({"b0", "b1"})}, {"b0": 1, "b1": 1}, self.RULE).values())

    def test_each(self) -> None:
        has = {"a": frozenset({"b0"}), "b": frozenset({"b0"}), "c": frozenset({"b0"})}
        found = violations(has, {"b0": 3, "b1": 0, "b2": 1}, self.RULE)
        assert found == {"TooFewBalancers": 3, "AboveMaximum": 1, "Idle": 1}

    def test_no_room_for_two_each(self) -> None:
        has = {"a": frozenset({"b0"}), "b": frozenset({"b0"})}
        assert violations(has, {"b0": 2}, self.RULE)["TooFewBalancers"] == 0
