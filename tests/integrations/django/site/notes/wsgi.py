"""For gunicorn. A query before the fork: with `--preload` it is the parent's."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from .views import backend  # noqa: E402

PRELOADED = backend()
