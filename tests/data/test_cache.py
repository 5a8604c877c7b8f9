"""What is made once is there whole or not at all."""

from pathlib import Path

import pytest

from circlet.data.cache import cache_folder, made_whole


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CIRCLET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "circlet"


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with made_whole(folder) as temporary:
        (temporary / "a").write_text("a")
        assert not folder.exists()
    assert (folder / "a").read_text() == "a"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    def interrupted() -> None:
        with made_whole(tmp_path / "data") as temporary:
            (temporary / "a").write_text("a")
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_another_process_was_first(tmp_path: Path) -> None:
    with made_whole(tmp_path / "data") as slow:
        (slow / "a").write_text("slow")
        with made_whole(tmp_path / "data") as quick:
            (quick / "a").write_text("quick")
    assert (tmp_path / "data" / "a").read_text() == "quick"
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]
