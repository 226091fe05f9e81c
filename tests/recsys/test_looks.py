"""The register of looks at test users."""

from datetime import UTC, datetime

import pytest

from recsys.errors import CorruptFileError, InputError
from recsys.looks import LooksRegister

WHEN = datetime(2026, 3, 1, tzinfo=UTC)


def look(register, claim="claim.a", digest="d1"):
    return register.open(claim, digest=digest, arms=["a × b"], n=10, n_effective=7.5, mde=0.1, revision="r1", when=WHEN)


def test_a_second_look_shows_and_a_resumption_does_not(tmp_path):
    register = LooksRegister(tmp_path / "looks.json")
    assert register.looks("claim.a") == 0
    assert look(register) == 1
    written = register.path.read_bytes()
    assert look(LooksRegister(register.path)) == 1  # same digest: resumed
    assert register.path.read_bytes() == written
    assert look(register, digest="d2") == 2
    assert look(register, claim="claim.b", digest="d2") == 1
    assert (register.looks("claim.a"), register.looks("claim.b")) == (2, 1)
    assert look(register) == 1  # the first look, resumed after the second
    first = register.entries()[0]
    assert first["when"] == "2026-03-01T00:00:00+00:00" and first["arms"] == ["a × b"] and first["n_effective"] == 7.5


@pytest.mark.parametrize(("claim", "digest"), [("", "d"), ("  ", "d"), ("claim", "")])
def test_test_is_not_opened_without_a_claim(tmp_path, claim, digest):
    register = LooksRegister(tmp_path / "looks.json")
    with pytest.raises(InputError, match="only under a claim id"):
        look(register, claim, digest)
    assert not register.path.exists()


@pytest.mark.parametrize("content", ["[{", '{"a": 1}', '[{"look": 1}]'])
def test_a_damaged_register_is_not_forgotten(tmp_path, content):
    path = tmp_path / "looks.json"
    path.write_text(content)
    with pytest.raises(CorruptFileError):
        look(LooksRegister(path))
    assert path.read_text() == content
