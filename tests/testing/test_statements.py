"""SQL is split where PostgreSQL splits it, and what speaks of transactions is seen."""

from __future__ import annotations

import pytest

from edgepool.testing._statements import Kind, kind_of, split


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("", []),
        (" ; -- nothing\n;/* at all; */", []),
        ("select 1", ["select 1"]),
        ("select 1; select 2;", ["select 1", " select 2"]),
        ("select ';', \";\"", ["select ';', \";\""]),
        ("select 'it''s; one'; two", ["select 'it''s; one'", " two"]),
        (r"select e'it\'s; one'; two", [r"select e'it\'s; one'", " two"]),
        (r"select '\'; two", [r"select '\'", " two"]),
        (r"select type'\'; two", [r"select type'\'", " two"]),
        ("do $$ a; b $$; two", ["do $$ a; b $$", " two"]),
        ("do $x$ a; $$; $x$; two", ["do $x$ a; $$; $x$", " two"]),
        ("select a$b; two$b", ["select a$b", " two$b"]),
        ("one -- a; b\n; two", ["one -- a; b\n", " two"]),
        ("one /* a; /* b; */ c; */; two", ["one /* a; /* b; */ c; */", " two"]),
        (
            "create function f() begin atomic select 1; end; commit",
            ["create function f() begin atomic select 1; end; commit"],
        ),
    ],
)
def test_a_semicolon_ends_a_statement_but_not_everywhere(text, statements):
    assert statements == [statement.text for statement in split(text)]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (Kind.BEGIN, ["begin", "BEGIN WORK", "start  transaction read only"]),
        (Kind.COMMIT, ["commit", "end", "Commit Work", "/* done */ -- so\n COMMIT"]),
        (Kind.ROLLBACK, ["rollback", "abort", "rollback transaction and chain"]),
        (Kind.PREPARE, ["prepare transaction 'x'"]),
        (Kind.SAVEPOINT, ["savepoint x"]),
        (Kind.DEALLOCATE, ["deallocate all", "DEALLOCATE PREPARE x"]),
        (
            Kind.OTHER,
            [
                *("rollback to x", "rollback work to savepoint x", "release x"),
                *(
                    "commit prepared 'x'",
                    "rollback prepared 'x'",
                    "prepare x as select",
                ),
                *("select 'commit'", "ending", "beginning", "endless", ""),
            ],
        ),
    ],
)
def test_the_first_words_tell_what_a_statement_is(kind, texts):
    assert {kind} == {kind_of(text) for text in texts}
