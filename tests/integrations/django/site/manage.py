"""A site of Django's, for tests: notes, in one database."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "notes.settings"
    execute_from_command_line(sys.argv)
