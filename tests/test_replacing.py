"""A report's folder changes from the old report to the new one: killed at any step, beside whatever lies there."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zoo import report, reporting
from zoo.errors import RequestError, StoreError
from zoo.reporting import replacing
from zoo.reporting.replacing import replace, restore


def parts(content: str) -> dict[str, bytes]:
    """The files of a small report."""
    names = ("index.html", "report.md", "report.json", "figures/pairs.svg", "tables/models.csv")
    return {name: json.dumps(f"{content} {name}").encode() for name in names}


def lying_at(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


KILLED = """
    import os, shutil, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from test_replacing import parts
    from zoo.reporting.replacing import replace

    left = [int(sys.argv[1])]

    def dying(function):
        def called(*words, **named):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*words, **named)
        return called

    for name in ("rename", "mkdir", "unlink", "rmdir", "fsync", "replace", "open"):
        setattr(os, name, dying(getattr(os, name)))
    replace(parts("new"), Path(sys.argv[2]))
"""


def killed_at(step: int, target: Path) -> bool:
    """Replace a report in a process that is killed before its so-manieth call of the system. Whether it was."""
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(step), str(target), str(Path(__file__).parent)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
def test_killed_at_any_moment_the_old_or_the_new_report_is_there(tmp_path: Path) -> None:
    """Before every call of the system that changes something: the next command finds one of the two, whole."""
    seen, gone, step = set(), 0, 0
    while True:
        target = tmp_path / str(step) / "reports" / "name"
        replace(parts("old"), target)
        (target / ".DS_Store").write_text("litter", encoding="utf-8")
        killed = killed_at(step, target)
        gone += not target.exists()
        restore(target)
        found = lying_at(target)
        assert found.pop(".DS_Store") == b"litter"
        assert found in (parts("old"), parts("new")), step
        seen.add("new" if found == parts("new") else "old")
        assert [path.name for path in target.parent.iterdir()] == ["name"], "nothing is left beside it"
        replace(parts("newer"), target)
        assert lying_at(target) == {**parts("newer"), ".DS_Store": b"litter"}
        if not killed:
            break
        step += 1
    assert step > 20
    assert seen == {"old", "new"}
    assert gone, "the moment between the two renames was met"


def between_the_renames(tmp_path: Path) -> Path:
    """A report whose process died between the two renames."""
    target = tmp_path / "reports" / "name"
    replace(parts("old"), target)
    target.rename(replacing._beside(target, "former"))
    replace(parts("new"), tmp_path / "new")
    (tmp_path / "new").rename(replacing._beside(target, "new"))
    return target


def put_aside(target: Path, number: int, *names: str, content: str = "old", written: int = 1) -> Path:
    """An old report, or some of its files, as the process with that number put it aside."""
    folder = target.with_name(f".{target.name}.former-{number}-0123abcd")
    for name in names or parts(content):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(parts(content)[name])
        os.utime(folder / name, (written, written))
    return folder


@pytest.mark.parametrize("remnant", [999, 1000, 99999])
@pytest.mark.parametrize("there", [(), ("report.md",), ("figures/pairs.svg", "index.html")])
def test_a_whole_report_never_gives_way_to_a_part_of_one(tmp_path: Path, remnant: int, there: tuple[str, ...]) -> None:
    target = tmp_path / "name"
    put_aside(target, 1234)
    put_aside(target, remnant, "report.md", "figures/pairs.svg", content="older", written=2)
    for name in there:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"part")
    if there:
        (target / "figures").mkdir(exist_ok=True)
        (target / "figures" / "mine.svg").write_bytes(b"mine")
    restore(target)
    assert lying_at(target) == {**parts("old"), **({"figures/mine.svg": b"mine"} if there else {})}
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_of_whole_reports_the_newest_is_put_back_and_of_parts_the_newest(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for number, content, written in ((9, "old", 5), (10, "newer", 7), (11, "older", 3)):
        put_aside(whole, number, content=content, written=written)
    put_aside(part, 9, "report.md")
    restore(whole)
    restore(part)
    assert lying_at(whole) == parts("newer")
    assert lying_at(part).keys() == {"report.md"}


def test_what_a_deletion_leaves_is_no_whole_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "name"
    replace(parts("old"), target)
    monkeypatch.setattr(replacing.shutil, "rmtree", lambda folder: None)
    replace(parts("new"), target)
    (left,) = tmp_path.glob(".name.former-*")
    assert not (left / "report.json").exists()
    assert lying_at(target) == parts("new")


def test_a_report_that_an_earlier_version_put_aside_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "name"
    replace(parts("old"), tmp_path / ".name.former")
    restore(target)
    assert not target.exists(), "alone it may be a copy of the user's"
    replace(parts("new"), tmp_path / ".name.new")
    restore(target)
    assert lying_at(target) == parts("old")
    assert lying_at(tmp_path / ".name.new") == parts("new")
    replace(parts("newer"), target)
    assert lying_at(target) == parts("newer")


def test_reading_a_report_restores_it(tmp_path: Path) -> None:
    target = between_the_renames(tmp_path)
    with pytest.raises(RequestError, match="no report"):  # it is there, and is not one of ours
        report.read(target)
    assert lying_at(target) == parts("old")


def test_a_sweep_extends_the_report_that_was_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = between_the_renames(tmp_path)

    class Reached(Exception):
        pass

    def looked(_paths: object, folder: Path) -> None:
        assert folder == target
        assert lying_at(target) == parts("old")
        raise Reached

    monkeypatch.setattr("zoo.analysis.earlier.kind_of", lambda _folder: ("t", "d"))
    monkeypatch.setattr("zoo.analysis.earlier.joined", looked)
    with pytest.raises(Reached):
        report.write(["x"], report.Request(out=str(tmp_path / "reports"), name="name"), [], extend=True)


def test_two_at_once_take_turns(tmp_path: Path) -> None:
    """What the one that holds the lock has beside the report is not tidied up by another."""
    target = between_the_renames(tmp_path)
    lock = replacing.disk.Lock.acquire(target.with_name(".name.lock"))
    restore(target)
    assert not target.exists()
    lock.release()
    restore(target)
    assert lying_at(target) == parts("old")


def test_names_that_begin_alike_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("a", "a.new", "a.former", "a-b"):
        replace(parts(name), tmp_path / name)
    target = between_the_renames(tmp_path)
    for name in ("a", "a.new", "a.former", "a-b"):
        restore(tmp_path / name)
        assert lying_at(tmp_path / name) == parts(name)
    assert not target.exists()


@pytest.mark.parametrize(
    "name", [".DS_Store", "._index.html", "Thumbs.db", "desktop.ini", ".gitkeep", "report.md~", "figures/.DS_Store",
             "tables/.~lock.models.csv#", "tables/#models.csv#", ".ipynb_checkpoints/x.md", "figures/mine.svg",
             "tables/mine.csv"],
)  # fmt: skip
def test_litter_and_charts_of_the_users_are_no_reason_to_refuse_and_stay(name: str, tmp_path: Path) -> None:
    target = tmp_path / "name"
    replace(parts("old"), target)
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("litter", encoding="utf-8")
    replace(parts("new"), target)
    assert lying_at(target) == {**parts("new"), name: b"litter"}


@pytest.mark.parametrize(
    "name", ["notes.txt", ".hidden", "figures/mine.png", "tables/mine.svg", "tables/x/y", "figures.md"]
)
def test_the_users_own_files_are_a_reason_to_refuse(name: str, tmp_path: Path) -> None:
    target = tmp_path / "name"
    replace(parts("old"), target)
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("mine", encoding="utf-8")
    with pytest.raises(RequestError, match="holds something that is no part of a report: "):
        replace(parts("new"), target)
    assert lying_at(target) == {**parts("old"), name: b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_file_that_comes_while_the_report_is_replaced_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "name"
    replace(parts("old"), target)
    rename = os.rename

    def late(old: Path, new: Path) -> None:
        if old == target:
            (target / "notes.txt").write_text("mine", encoding="utf-8")
            (target / "tables" / "mine.csv").write_text("mine", encoding="utf-8")
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    replace(parts("new"), target)
    assert lying_at(target) == {**parts("new"), "notes.txt": b"mine", "tables/mine.csv": b"mine"}


@pytest.mark.parametrize("name", ["figures", "tables"])
def test_a_link_to_a_folder_of_the_users_is_not_followed(name: str, tmp_path: Path) -> None:
    target, mine = tmp_path / "reports" / "name", tmp_path / "mine"
    replace(parts("old"), target)
    mine.mkdir()
    for file in list((target / name).iterdir()):
        file.rename(mine / file.name)
    for file in ("mine.svg", "mine.csv"):
        (mine / file).write_text("mine", encoding="utf-8")
    (target / name).rmdir()
    (target / name).symlink_to(mine)
    before = lying_at(mine)
    with pytest.raises(RequestError, match=f"no part of a report: {name}\n"):
        replace(parts("new"), target)
    assert lying_at(mine) == before
    assert (target / name).is_symlink()
    assert (target / "index.html").read_bytes() == parts("old")["index.html"]


def test_what_lies_on_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "name"
    replace(parts("old"), target)
    (target / "figures" / "mine.svg").write_text("mine", encoding="utf-8")
    (target / ".ipynb_checkpoints").mkdir()
    (target / ".ipynb_checkpoints" / "x.md").write_text("litter", encoding="utf-8")
    rename = os.rename

    def across(old: Path, new: Path) -> None:
        if Path(old).name in ("mine.svg", ".ipynb_checkpoints"):
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(old))
        rename(old, new)

    monkeypatch.setattr(os, "rename", across)
    replace(parts("new"), target)
    assert lying_at(target) == {**parts("new"), "figures/mine.svg": b"mine", ".ipynb_checkpoints/x.md": b"litter"}
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


@pytest.mark.parametrize("there", [True, False])
def test_what_the_user_has_beside_a_report_stays(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "name"
    if there:
        replace(parts("old"), target)
    for what in (".name.new", ".name.former", ".name.new-1", ".name.new-1-zz", ".name.former-x-00000000"):
        (tmp_path / what).mkdir()
        (tmp_path / what / "index.html").write_text("mine", encoding="utf-8")
    (tmp_path / ".name.lock").write_text("mine", encoding="utf-8")
    mine = {name: content for name, content in lying_at(tmp_path).items() if not name.startswith("name/")}
    restore(target)
    assert target.exists() == there
    replace(parts("new"), target)
    restore(target)
    assert lying_at(target) == parts("new")
    assert lying_at(tmp_path) == {**mine, **{f"name/{name}": content for name, content in parts("new").items()}}


@pytest.mark.parametrize("length", [245, 250, 255, 300])
def test_a_name_that_no_disk_takes_is_a_wrong_request(length: int, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is too long: a disk takes 255 bytes"):
        replace(parts("new"), tmp_path / ("n" * length))
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_report_is_to_go_stays(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("mine", encoding="utf-8")
    with pytest.raises(RequestError, match="is a file, and a report is a folder"):
        replace(parts("new"), tmp_path / "name")
    assert (tmp_path / "name").read_text(encoding="utf-8") == "mine"


def test_a_link_to_a_report_stays_a_link(tmp_path: Path) -> None:
    replace(parts("old"), tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    replace(parts("new"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert lying_at(tmp_path / "real") == parts("new")


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "name"
    replace(parts("old"), target)
    write_file = replacing.disk.write_file

    def full(path: Path, chunks: list[bytes]) -> object:
        if path.name == "models.csv":
            raise StoreError("No space left on the disk")
        return write_file(path, chunks)

    monkeypatch.setattr(replacing.disk, "write_file", full)
    with pytest.raises(StoreError):
        replace(parts("new"), target)
    assert lying_at(target) == parts("old")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_the_files_of_a_report_are_known_as_its_own() -> None:
    """What is not listed would be taken for the user's once it is no longer written."""
    from reporting_documents import benched, document, related

    assert set(reporting.render(related(benched(document())))) <= replacing.PARTS
