"""Settings for Django's own tests, and the runner that notes how each test ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import django
from django.test.runner import DiscoverRunner

NAME = os.environ["SUITE_NAME"]


def database(suffix):
    """Give one of the two databases that the tests want."""
    return {
        "ENGINE": os.environ["SUITE_ENGINE"],
        "NAME": "postgres",
        "USER": os.environ["SUITE_USER"],
        "HOST": os.environ["SUITE_HOST"],
        "PORT": os.environ["SUITE_PORT"],
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 5}},
        "TEST": {"NAME": f"test_{NAME}{suffix}"},
    }


DATABASES = {"default": database(""), "other": database("_other")}
SECRET_KEY = "suite"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if django.VERSION < (6,):  # as Django's own settings for its tests have it
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "suite_settings.NotingRunner"


class NotingRunner(DiscoverRunner):
    """Writes down how each test ended."""

    def run_suite(self, suite, **kwargs):
        # Before they run: unittest forgets a test once it has run.
        self._ids = list(_ids(suite))
        return super().run_suite(suite, **kwargs)

    def suite_result(self, suite, result, **kwargs):
        found = dict.fromkeys(self._ids, "passed")
        kinds = {
            "failed": result.failures,
            "error": result.errors,
            "skipped": result.skipped,
            "expected failure": result.expectedFailures,
        }
        for kind, pairs in kinds.items():
            found.update({_id(test): kind for test, _ in pairs})
        found.update(
            {_id(test): "unexpected success" for test in result.unexpectedSuccesses}
        )
        Path(os.environ["SUITE_RESULTS"]).write_text(json.dumps(found))
        return super().suite_result(suite, result, **kwargs)


def _ids(suite):
    # Tests in parallel come in sub-suites.
    for test in getattr(suite, "subsuites", None) or suite:
        if hasattr(test, "__iter__"):
            yield from _ids(test)
        else:
            yield test.id()


def _id(test):
    # Of a subtest, the test.
    return getattr(test, "test_case", test).id()
