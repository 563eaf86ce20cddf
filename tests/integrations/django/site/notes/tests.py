"""Tests that a user could have; `manage.py test` runs them, in parallel."""

import threading
import urllib.request

from django.db import connection
from django.test import LiveServerTestCase, TestCase, TransactionTestCase

from .models import Note
from .views import backend


class InATransaction(TestCase):
    def test_add(self):
        Note.objects.create(text="hello")

        assert 1 == Note.objects.count()

    async def test_add_async(self):
        await Note.objects.acreate(text="hello")

        assert 1 == await Note.objects.acount()


class ByThreads(TransactionTestCase):
    def test_threads_that_close_nothing(self):
        for _ in range(10):
            thread = threading.Thread(target=backend)
            thread.start()
            thread.join()

        assert connection.pool.statistics().size <= 2

    def test_one_that_goes_on(self):
        holds = threading.Event()

        def hold():
            backend()
            holds.set()
            ends.wait(60)

        ends = threading.Event()
        threading.Thread(target=hold, daemon=True).start()
        holds.wait(60)  # and is still there when the database is dropped


class ByHttp(LiveServerTestCase):
    def test_add(self):
        with urllib.request.urlopen(f"{self.live_server_url}/add") as answer:
            assert 200 == answer.status

        assert 1 == Note.objects.count()
