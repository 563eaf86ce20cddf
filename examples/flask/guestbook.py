"""A guestbook: who was here, the newest first, and a form to write into it.

    flask --app guestbook create-tables
    gunicorn --preload --workers 2 --threads 8 'guestbook:create_app()'

DATABASE_URL says where the database is, and DIRECT_URL the way past a pooler.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    redirect,
    render_template,
    request,
    stream_with_context,
    url_for,
)
from psycopg import Connection
from psycopg.rows import DictRow, dict_row
from werkzeug.wrappers import Response as AnyResponse

from edgepool.flask import EdgePool

db = EdgePool(
    connection_class=Connection[DictRow], kwargs={"row_factory": dict_row}, min_size=1
)
guestbook = Blueprint("guestbook", __name__, cli_group=None)

NEWEST = 10
LONGEST = 500


def create_app() -> Flask:
    """Make the application; it connects at its first request."""
    app = Flask(__name__)
    app.config.update(
        DATABASE_URL=os.environ["DATABASE_URL"],
        DIRECT_URL=os.environ.get("DIRECT_URL"),
        EDGEPOOL_MAX_SIZE=4,
    )
    app.config.from_prefixed_env()  # FLASK_EDGEPOOL_MAX_SIZE, and so on
    db.init_app(app)
    app.register_blueprint(guestbook)
    return app


@guestbook.get("/")
def read() -> str:
    """Show the newest entries, and the form."""
    query = "SELECT name, text, written_at FROM entries ORDER BY id DESC LIMIT %s"
    entries = db.connection.execute(query, [NEWEST]).fetchall()
    return render_template("guestbook.html", entries=entries, longest=LONGEST)


@guestbook.post("/")
def write() -> AnyResponse:
    """Add an entry. It is committed when this has returned."""
    name, text = (request.form.get(key, "").strip() for key in ("name", "text"))
    if not name or not 0 < len(text) <= LONGEST:
        abort(422, f"Your name, please, and a text of at most {LONGEST} characters.")
    query = "INSERT INTO entries (name, text) VALUES (%s, %s)"
    db.connection.execute(query, [name, text])
    return redirect(url_for("guestbook.read"), 303)


@guestbook.get("/entries.csv")
def export() -> Response:
    """Send all entries, however many, while they come from the database.

    The stream borrows a connection of its own, and returns it at its end.
    """

    def lines() -> Iterator[str]:
        with db.connection.cursor("entries") as cursor:
            cursor.execute("SELECT id, written_at, name, text FROM entries ORDER BY id")
            for entry in cursor:
                line = io.StringIO()
                csv.writer(line).writerow(entry.values())
                yield line.getvalue()

    return Response(stream_with_context(lines()), mimetype="text/csv")


@guestbook.cli.command("create-tables")
def create_tables() -> None:
    """Make what the guestbook needs, past a pooler if there is one."""
    with db.pool.direct() as conn:
        conn.execute(
            "CREATE TABLE IF NOT EXISTS entries ("
            " id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " name text NOT NULL,"
            " text text NOT NULL,"
            " written_at timestamptz NOT NULL DEFAULT now())"
        )
