"""How long the pool waits before it tries to connect again."""

from __future__ import annotations

import pytest

from edgepool._core.backoff import retry_delay


@pytest.mark.parametrize("age", [0.0, 0.1, 0.2])
def test_the_first_retries_come_every_10_ms(age):
    assert 0.010 == pytest.approx(retry_delay(age, waited=True, jitter=0.0))


def test_from_then_on_the_delay_is_a_twentieth_of_the_outage():
    assert 0.05 == pytest.approx(retry_delay(1.0, waited=True, jitter=0.0))
    assert 0.50 == pytest.approx(retry_delay(10.0, waited=True, jitter=0.0))


def test_it_is_a_second_at_most_while_somebody_waits():
    assert 1.0 == retry_delay(21.0, waited=True, jitter=0.0)
    assert 1.0 == retry_delay(86400.0, waited=True, jitter=0.0)


def test_it_is_half_a_minute_at_most_while_nobody_waits():
    assert 5.0 == pytest.approx(retry_delay(100.0, waited=False, jitter=0.0))
    assert 30.0 == retry_delay(601.0, waited=False, jitter=0.0)
    assert 30.0 == retry_delay(86400.0, waited=False, jitter=0.0)


def test_jitter_takes_off_a_fifth_at_most():
    assert 0.9 == pytest.approx(retry_delay(60.0, waited=True, jitter=0.5))
    assert 0.8 == pytest.approx(retry_delay(60.0, waited=True, jitter=1.0))


def test_jitter_shortens_the_first_retries_too():
    assert 0.008 == pytest.approx(retry_delay(0.0, waited=True, jitter=1.0))
