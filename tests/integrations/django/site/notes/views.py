"""The pages: JSON, all of them."""

import asyncio
import os
import threading

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import JsonResponse

from .models import Note


def backend():
    """Give the process of the server that answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@transaction.atomic
def add(request):
    """Add a note."""
    note = Note.objects.create(text="hello")
    return JsonResponse({"id": note.id, "backend": backend()})


async def count(request):
    """Count the notes, in all the ways that a coroutine has."""
    counted = await Note.objects.acount()
    again = await sync_to_async(Note.objects.count)()
    return JsonResponse({"count": counted, "again": again})


async def slow(request):
    """Take some time, with a connection."""
    await sync_to_async(backend)()
    await asyncio.sleep(0.2)
    await sync_to_async(backend)()
    return JsonResponse({})


def threads(request):
    """Have ten threads ask, one after the other; none closes anything."""
    for _ in range(10):
        thread = threading.Thread(target=backend)
        thread.start()
        thread.join()
    return JsonResponse({})


def status(request):
    """Tell how the pool is; there need be none yet."""
    pool = connection.pool
    statistics = pool.statistics()
    return JsonResponse(
        {
            "process": os.getpid(),
            "in_use": statistics.in_use,
            "size": statistics.size,
            "leaked": statistics.leaked,
            "errors": statistics.requests_errors,
        }
    )


def preloaded(request):
    """Tell which session the parent had, and which there is now."""
    from . import wsgi

    answer = {"worker": os.getpid(), "backend": backend(), "preloaded": wsgi.PRELOADED}
    return JsonResponse(answer)
