"""Flask-SQLAlchemy with edgepool's pool, by its configuration alone."""

from __future__ import annotations

import pytest
from flask import Flask, abort, jsonify
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select, text

from edgepool.sqlalchemy import EdgePool
from support.parity import eventually, run_blocking, spawn

URL = "postgresql+psycopg"


@pytest.fixture
def app(server, conninfo, sessions):
    app = Flask(__name__)
    url = server.url.replace("postgresql", URL, 1)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"{url}?application_name={sessions.name}"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "poolclass": EdgePool,
        "edge": {"max_size": 2},
    }
    db = SQLAlchemy(app)

    class Order(db.Model):
        __tablename__ = "orders_of_flask"
        id = db.Column(db.Integer, primary_key=True)
        item = db.Column(db.String, nullable=False)

    @app.post("/orders/<item>")
    def add(item):
        db.session.add(Order(item=item))
        if item == "bad":
            db.session.flush()
            abort(400)
        db.session.commit()
        return {"item": item}

    @app.get("/orders")
    def orders():
        return jsonify(db.session.scalars(select(Order.item)).all())

    @app.get("/broken")
    def broken():
        db.session.execute(text("select pg_terminate_backend(pg_backend_pid())"))
        return "never"

    with app.app_context():
        app.extensions["pool"] = db.engine.pool
        db.create_all()
    yield app
    with app.app_context():
        db.drop_all()
        db.engine.dispose()


def test_requests_share_the_pool(app, sessions):
    def shop():
        client = app.test_client()
        for number in range(5):
            assert 200 == client.post(f"/orders/{number}").status_code
            assert 400 == client.post("/orders/bad").status_code
            assert 200 == client.get("/orders").status_code

    for thread in [spawn(shop) for _ in range(6)]:
        run_blocking(ended(thread))

    found = app.test_client().get("/orders").json

    assert sorted("01234" * 6) == sorted(found)
    assert sessions.count <= 2
    assert 0 == app.extensions["pool"].checkedout()


def test_a_request_that_loses_its_connection_costs_no_place(app):
    client = app.test_client()
    for _ in range(3):
        assert 500 == client.get("/broken").status_code
    run_blocking(eventually(lambda: app.extensions["pool"].checkedout() == 0))

    assert [] == client.get("/orders").json


async def ended(thread):
    return await thread
