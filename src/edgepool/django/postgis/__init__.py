"""A database backend for GeoDjango: `ENGINE = "edgepool.django.postgis"`."""
