"""Settings; those of the databases are in the environment, as JSON."""

import json
import os

DATABASES = json.loads(os.environ["SITE_DATABASES"])
INSTALLED_APPS = ["edgepool.django", "notes"]
ROOT_URLCONF = "notes.urls"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "static/"
SECRET_KEY = "notes"
DEBUG = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
