"""gunicorn's configuration for an application that it loads before it forks.

By itself gunicorn patches after the fork, when psycopg has been imported already.
"""

from gevent import monkey

monkey.patch_all()
