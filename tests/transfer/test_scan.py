"""Which files travel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudtrain.transfer.scan import left_at_home, scan_data, scan_project


def write(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def names(root: Path, *exclude: str) -> set[str]:
    return {entry.path for entry in scan_project(root, exclude).entries}


def test_built_in(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        ".git/config",
        "a/__pycache__/x.pyc",
        ".venv/pyvenv.cfg",
        "node_modules/a.js",
        "runs/train/best.pt",
        "src/runs/ok.py",
        "x.pyc",
    )
    assert names(tmp_path) == {"train.py", "src/runs/ok.py"}


def test_gitignore_with_negation_and_nesting(tmp_path: Path) -> None:
    write(tmp_path, "a.log", "keep.log", "sub/b.log", "sub/c.log", "build/x", "sub/build/y", "untracked.py")
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n/build/\n")
    (tmp_path / "sub" / ".gitignore").write_text("!b.log\n")
    assert names(tmp_path) == {
        ".gitignore",
        "keep.log",
        "sub/.gitignore",
        "sub/b.log",
        "sub/build/y",
        "untracked.py",
    }


def test_own_rules_win(tmp_path: Path) -> None:
    write(tmp_path, "a.pt", "b.pt", "runs/keep.txt", "c.zip")
    (tmp_path / ".gitignore").write_text("*.pt\n")
    (tmp_path / ".cloudtrainignore").write_text("!a.pt\n!/runs/\n")
    assert names(tmp_path, "*.zip") == {".gitignore", ".cloudtrainignore", "a.pt", "runs/keep.txt"}


def test_gitignore_above_the_project(tmp_path: Path) -> None:
    write(tmp_path, ".git/HEAD", "code/a.py", "code/out/b", "code/deep/out/c")
    (tmp_path / ".gitignore").write_text("/code/out/\n")
    assert names(tmp_path / "code") == {"a.py", "deep/out/c"}


@pytest.mark.parametrize(
    "name",
    [
        "key.pem",
        "id_rsa",
        "id_ed25519.bak",
        ".env",
        ".env.local",
        "d/.aws/credentials",
        ".ssh/config",
        ".netrc",
    ],
)
def test_secrets_stay(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "a.py")
    tree = scan_project(tmp_path)
    assert {entry.path for entry in tree.entries} == {"a.py"}
    assert any("secret" in line for line in tree.left_out)


def test_secret_by_content_and_on_request(tmp_path: Path) -> None:
    write(tmp_path, "id_work", "tls.key", text="-----BEGIN OPENSSH PRIVATE KEY-----\n")
    write(tmp_path, "id_map.json", ".env.example", "id_rsa.pub", ".env")
    (tmp_path / ".cloudtrainignore").write_text("!.env\n")
    assert names(tmp_path) == {"id_map.json", ".env.example", "id_rsa.pub", ".env", ".cloudtrainignore"}


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "p"
    write(root, "a/x")
    (root / "inside").symlink_to("a/x")
    (root / "absolute").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path)
    (root / "a" / "up").symlink_to("../../elsewhere")
    tree = scan_project(root)
    assert {e.path: e.link for e in tree.entries if e.kind == "link"} == {"inside": "a/x", "absolute": "a"}
    assert len([line for line in tree.left_out if "leaves the project" in line]) == 2


def test_digest_sees_size_time_name_and_mode(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    seen = {scan_project(tmp_path).digest}
    (tmp_path / "a").write_text("xx")
    seen.add(scan_project(tmp_path).digest)
    (tmp_path / "a").chmod(0o755)
    seen.add(scan_project(tmp_path).digest)
    (tmp_path / "b").rename(tmp_path / "c")
    seen.add(scan_project(tmp_path).digest)
    (tmp_path / "empty").mkdir()
    seen.add(scan_project(tmp_path).digest)
    assert len(seen) == 5
    assert scan_project(tmp_path).digest in seen


AROUND = ("vendor/key.pem", "vendor/.env", "vendor/.aws/credentials", "vendor/.git/config", "vendor/a.pyc")


@pytest.mark.parametrize(
    ("git", "own", "exclude"),
    [
        ("vendor/\n", "!vendor/\n", ()),
        ("", "", ("/*", "!/vendor/")),
        ("", "/*\n!/vendor/**\n", ()),
        ("", "!*\n", ()),
        ("", "!*.*\n", ()),
        ("", "![a-z]*\n![.]*\n", ()),
        ("/*\n!/vendor/\n", "", ()),
    ],
)
def test_a_folder_that_is_wanted_brings_no_secrets(
    tmp_path: Path, git: str, own: str, exclude: tuple[str, ...]
) -> None:
    write(tmp_path, *AROUND, "vendor/lib.py")
    (tmp_path / ".gitignore").write_text(git)
    (tmp_path / ".cloudtrainignore").write_text(own)
    assert {name for name in names(tmp_path, *exclude) if "/" in name} == {"vendor/lib.py"}


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ("!*.pem", {"vendor/key.pem"}),
        ("!/vendor/.env", {"vendor/.env"}),
        ("!.env*", {"vendor/.env"}),
        ("!.aws/", {"vendor/.aws/credentials", "vendor/.aws/sso.pem"}),
        ("!vendor/.git/**", {"vendor/.git/config"}),
        ("!*.pyc", {"vendor/a.pyc"}),
        ("!/vendor/key\\.pem", {"vendor/key.pem"}),
    ],
)
def test_a_rule_that_names_them_sends_them(tmp_path: Path, rule: str, sent: set[str]) -> None:
    write(tmp_path, *AROUND, "vendor/.aws/sso.pem")
    assert names(tmp_path, rule) == sent


def test_secrets_in_capitals_and_rules_behind_a_mark(tmp_path: Path) -> None:
    """As Windows writes both."""
    write(tmp_path, "KEY.PEM", "Id_Rsa", ".ENV", ".AWS/credentials", "secret.txt", "a.py")
    (tmp_path / ".cloudtrainignore").write_bytes(b"\xef\xbb\xbfsecret.txt\r\n")
    assert names(tmp_path) == {"a.py", ".cloudtrainignore"}


@pytest.mark.timeout(20)
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    for name in ("id_work", "x.key", ".gitignore"):
        os.mkfifo(tmp_path / name)
    assert names(tmp_path) == {"a.py"}


def test_folders_of_images_whatever_they_are_called(tmp_path: Path) -> None:
    """In a dataset only secrets, .git and what macOS adds stay."""
    kept = {f"{name}/a.jpg" for name in ("runs", "venv", ".venv", ".cache", "node_modules", "x.egg-info")}
    write(tmp_path, *kept, ".git/config", "__MACOSX/._a.jpg", "sub/.DS_Store", ".env", "b/.git/HEAD")
    assert {entry.path for entry in scan_data(tmp_path, "images/").files} == {f"images/{one}" for one in kept}


def test_what_stayed_in_a_phrase() -> None:
    lines = (
        "runs/ (left out by default)",
        ".git/ (left out by default)",
        "a/.cache/ (left out by default)",
        "out (a link that leaves the project: /tmp)",
        "b (x).log (ignored)",
        "new\nline.log (ignored)",
        "key.pem (looks like a secret; `!key.pem` in .cloudtrainignore sends it)",
        "c (cannot be read: Permission denied)",
    )
    phrase = "1 run folder, 2 of .git and caches, 1 link out of the folder, 2 ignored"
    assert left_at_home(lines) == phrase
    assert left_at_home(()) == ""


def test_lines_that_git_passes_over(tmp_path: Path) -> None:
    write(tmp_path, "a.log", "b", "z", "build/x", "own.txt", "excluded.txt")
    odd = "!\nb\\\n[z-a]\nx[z-a]/\nfoo/\\\n!z\\\n"
    (tmp_path / ".gitignore").write_text(f"{odd}*.log\n")
    (tmp_path / ".cloudtrainignore").write_text(f"own.txt\n{odd}")
    (tmp_path / "build" / ".gitignore").write_text("!")
    kept = names(tmp_path, *odd.splitlines(), "excluded.txt")
    assert kept == {".cloudtrainignore", ".gitignore", "b", "build/.gitignore", "build/x", "z"}
