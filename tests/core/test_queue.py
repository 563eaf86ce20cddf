"""The queue: who is served when, who is refused, and who leaves."""

from __future__ import annotations

from edgepool._core import Connect, Refusal, State, Waiter
from support.core import REFUSED, Driven, nobody_sleeps, served


def exhausted(**settings):
    """Make a pool of one connection, which is lent."""
    pool = Driven(max_size=1, **settings)
    (entry,) = pool.lend(1)
    return pool, entry


# --- who is served ----------------------------------------------------------------


def test_a_returned_connection_goes_to_the_first_waiter():
    pool, entry = exhausted()
    waiter = pool.wait()

    pool.give_back(entry)

    assert entry is served(waiter)
    assert State.IN_USE is entry.state


def test_a_waiter_is_woken_when_it_is_served():
    pool, entry = exhausted()
    woken = len(pool.woken)
    waiter = pool.wait()

    pool.give_back(entry)

    assert [waiter] == pool.woken[woken:]


def test_a_new_connection_goes_to_the_first_waiter():
    pool = Driven()
    waiter = pool.wait()

    entry = pool.connect_one()

    assert entry is served(waiter)


def test_first_come_first_served():
    pool, entry = exhausted()
    waiters = [pool.wait(), pool.wait(), pool.wait()]

    order = []
    for _ in waiters:
        pool.give_back(entry)
        order += [w for w in waiters if w.resolved and w not in order]

    assert waiters == order


def test_whichever_connection_is_free_first_serves_the_first_waiter():
    pool = Driven(max_size=2)
    (lent,) = pool.lend(1)
    first, second = pool.wait(), pool.wait()

    pool.give_back(lent)
    new = pool.connect_one()

    assert [lent, new] == [served(first), served(second)]


def test_a_newcomer_does_not_overtake_a_waiter():
    pool = Driven(max_size=2)
    one, other = pool.lend(2)
    first, second = pool.wait(), pool.wait()

    pool.give_back(one)
    newcomer = pool.borrow()
    pool.give_back(other)

    assert newcomer is None
    assert [one, other] == [served(first), served(second)]


def test_who_comes_to_the_queue_when_something_is_idle_is_served_at_once():
    pool = Driven()
    cold, warm = pool.warm_up(2)

    assert warm is served(pool.wait())
    assert [cold] == pool.idle


def test_a_connection_is_lent_as_usual_once_the_queue_is_empty():
    pool, entry = exhausted()
    pool.wait()
    pool.give_back(entry)

    pool.give_back(entry)

    assert entry is pool.borrow()


def test_a_served_waiter_is_lent_its_connection_from_then_on():
    pool, entry = exhausted()
    pool.wait()

    pool.now = 7.0
    pool.give_back(entry)

    assert 7.0 == entry.lent_at


def test_the_queue_tells_who_waits_longest_first():
    pool, _ = exhausted()
    first, second = pool.wait(), pool.wait()

    assert [first, second] == pool.core.waiters()


# --- who comes again --------------------------------------------------------------


def test_who_was_served_something_dead_waits_at_the_head_of_the_queue():
    pool, entry = exhausted()
    first = pool.wait()
    again = pool.wait(again=True)

    pool.give_back(entry)

    assert entry is served(again)
    assert not first.resolved


def test_who_comes_again_is_not_refused_for_max_waiting():
    pool, _ = exhausted(max_waiting=1)
    pool.wait()

    again = pool.wait(again=True)

    assert again in pool.core.waiters()


# --- who is refused ---------------------------------------------------------------


def test_one_more_than_max_waiting_is_refused_at_once():
    pool, _ = exhausted(max_waiting=2)
    waiting = [pool.wait(), pool.wait()]

    refused = pool.wait()

    assert Refusal.FULL is refused.refusal
    assert refused in pool.woken
    assert waiting == pool.core.waiters()


def test_max_waiting_0_is_no_limit():
    pool, _ = exhausted(max_waiting=0)

    waiters = [pool.wait() for _ in range(1000)]

    assert waiters == pool.core.waiters()


def test_max_waiting_does_not_count_who_was_served():
    pool, entry = exhausted(max_waiting=1)
    pool.wait()
    pool.give_back(entry)

    assert not pool.wait().resolved


def test_max_waiting_does_not_count_who_timed_out():
    pool, _ = exhausted(max_waiting=1)
    pool.tell(pool.core.time_out, pool.wait())

    assert not pool.wait().resolved


def test_max_waiting_does_not_count_who_was_interrupted():
    pool, _ = exhausted(max_waiting=1)
    pool.tell(pool.core.abandon, pool.wait())

    assert not pool.wait().resolved


def test_who_was_refused_for_max_waiting_is_not_served_later():
    pool, entry = exhausted(max_waiting=1)
    first = pool.wait()
    refused = pool.wait()

    pool.give_back(entry)

    assert first.entry is entry
    assert refused.entry is None
    assert [] == pool.core.waiters()


def test_a_pool_that_refused_somebody_lends_as_usual_later():
    pool, entry = exhausted(max_waiting=1)
    pool.wait()
    pool.wait()
    pool.give_back(entry)

    pool.give_back(entry)

    assert entry is pool.borrow()


def test_whose_time_is_up_in_the_midst_of_a_borrow_is_refused():
    pool = Driven(max_size=1)
    waiter = Waiter(nobody_sleeps)

    pool.tell(pool.core.overrun, waiter)

    assert (True, Refusal.TIMEOUT) == (waiter.resolved, waiter.refusal)
    assert [] == pool.woken


def test_whose_time_is_up_in_the_midst_of_a_borrow_is_told_why_connecting_fails():
    pool = Driven(max_size=1)
    pool.wait()
    pool.fail_one()
    waiter = Waiter(nobody_sleeps)

    pool.tell(pool.core.overrun, waiter)

    assert REFUSED is waiter.cause


def test_a_closed_pool_refuses_at_once():
    pool = Driven()
    pool.tell(pool.core.close)

    waiter = pool.wait()

    assert Refusal.CLOSED is waiter.refusal
    assert [waiter] == pool.woken


def test_a_pool_that_is_not_open_yet_refuses_at_once():
    pool = Driven(opened=False)

    assert Refusal.CLOSED is pool.wait().refusal


# --- who leaves -------------------------------------------------------------------


def test_who_times_out_leaves_the_queue():
    pool, _ = exhausted()
    waiter = pool.wait()

    pool.tell(pool.core.time_out, waiter)

    assert [] == pool.core.waiters()
    assert (True, Refusal.TIMEOUT) == (waiter.resolved, waiter.refusal)


def test_who_times_out_is_told_why_connecting_fails():
    pool = Driven(max_size=1)
    waiter = pool.wait()
    pool.fail_one()

    pool.tell(pool.core.time_out, waiter)

    assert REFUSED is waiter.cause


def test_a_connection_goes_to_the_next_when_the_first_has_timed_out():
    pool, entry = exhausted()
    late, following = pool.wait(), pool.wait()
    pool.tell(pool.core.time_out, late)

    pool.give_back(entry)

    assert entry is served(following)
    assert late.entry is None


def test_who_was_just_served_does_not_time_out():
    pool, entry = exhausted()
    waiter = pool.wait()
    pool.give_back(entry)

    pool.tell(pool.core.time_out, waiter)

    assert entry is served(waiter)
    assert waiter.refusal is None


def test_who_was_just_refused_keeps_that_answer():
    pool, _ = exhausted()
    waiter = pool.wait()
    pool.tell(pool.core.close)

    pool.tell(pool.core.time_out, waiter)

    assert Refusal.CLOSED is waiter.refusal


def test_a_pool_lends_as_usual_when_the_last_waiter_has_timed_out():
    pool, entry = exhausted()
    pool.tell(pool.core.time_out, pool.wait())

    assert pool.core.give_back(pool.now, entry) is None
    assert entry is pool.borrow()


def test_nobody_overtakes_the_rest_when_one_has_timed_out():
    pool, entry = exhausted()
    late, waiter = pool.wait(), pool.wait()
    pool.tell(pool.core.time_out, late)

    assert pool.core.returned == pool.core.give_back(pool.now, entry)
    assert not waiter.resolved


def test_who_is_interrupted_leaves_the_queue():
    pool, _ = exhausted()
    waiter = pool.wait()

    pool.tell(pool.core.abandon, waiter)

    assert [] == pool.core.waiters()
    assert waiter.entry is None


def test_what_an_interrupted_waiter_was_served_goes_to_the_next():
    pool, entry = exhausted()
    interrupted, following = pool.wait(), pool.wait()
    pool.give_back(entry)

    pool.tell(pool.core.abandon, interrupted)

    assert entry is served(following)
    assert interrupted.entry is None


def test_what_the_last_interrupted_waiter_was_served_is_idle():
    pool, entry = exhausted()
    interrupted = pool.wait()
    pool.give_back(entry)

    pool.tell(pool.core.abandon, interrupted)

    assert [entry] == pool.idle


def test_an_interrupted_waiter_that_was_refused_leaves_nothing_behind():
    pool, _ = exhausted()
    waiter = pool.wait()
    pool.tell(pool.core.close)
    before = pool.stats

    pool.tell(pool.core.abandon, waiter)

    assert before == pool.stats


def test_a_connect_goes_on_when_the_one_who_caused_it_has_left():
    pool = Driven()
    pool.tell(pool.core.abandon, pool.wait())

    assert 1 == len(pool.wanted(Connect))
    entry = pool.connect_one()
    assert [entry] == pool.idle
