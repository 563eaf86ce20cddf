"""For gunicorn. A query before the fork: with `--preload` it is the parent's."""

import os

from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "notes.settings"
application = get_wsgi_application()

from .views import backend  # noqa: E402

PRELOADED = backend()
