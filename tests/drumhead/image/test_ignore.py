"""Test the files that say what does not go into an image."""

import pytest

from drumhead.errors import DrumheadError
from drumhead.manifest.ignore import read_ignore
from drumhead.patterns import match_any
from support.guests.composing import write_files


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("/myfile.txt", "myfile.txt", True),
        ("/myfile.txt", "myfolder/myfile.txt", False),
        ("/myfolder/myfile.txt", "myfolder/myfile.txt", True),
        ("/*.txt", "myfile.txt", True),
        ("/*.txt", "myfolder/myfile.txt", False),
        ("/myfolder/*.txt", "myfolder/myfile.txt", True),
        ("/myfolder/*.txt", "myfolder/sub/myfile.txt", False),
        ("/**/myfile.txt", "myfile.txt", True),
        ("/**/myfile.txt", "myfolder/sub/myfile.txt", True),
        ("/myfolder/*", "myfolder/myfile.txt", True),
        ("/myfolder/*", "myfolder", False),
        ("/myfolder/*", "myfolder/sub/myfile.txt", True),
        ("/myfolder/*/*", "myfolder/sub", False),
        ("/myfolder/*/*", "myfolder/sub/myfile.txt", True),
        ("/**/*.txt", "myfile.txt", True),
        ("/**/*.txt", "a/b/myfile.txt", True),
        ("/sub/*", "myfolder/sub/myfile.txt", False),
        ("/myfolder/*.txt", "myfolder/myfileXtxt", False),
        ("/myfolder", "myfolder2", False),
        ("/[ab].txt", "b.txt", True),
        ("/[!ab].txt", "b.txt", False),
        ("/[^ab].txt", "b.txt", False),
        ("/x[!a]y", "x/y", False),
        ("/[z-a]b", "zb", False),
        ("/[[-]b", "-b", True),
        ("/[a&&b]", "&", True),
        ("/[!z-a]", "z", True),
    ],
)
def test_ignore_patterns_as_capstan_documents_them(pattern, path, ignored):
    assert match_any([pattern])(path) is ignored


def test_the_ignore_file(tmp_path):
    write_files(tmp_path, {".capstanignore": "# comment\n\n/doc/*\n", ".drumheadignore": "/**/*.log\n"})
    ignored, _ = read_ignore(tmp_path)
    for path in (
        "doc/a.png",
        "x/y.log",
        "meta/package.yaml",
        ".git/HEAD",
        "mpm-pkg/x",
        ".venv/bin/python",
        "volumes/v",
        ".gitignore",
        ".npmrc",
        "packages/web/.npmrc",
    ):
        assert ignored(path)
    assert not ignored("src/doc")


@pytest.mark.parametrize(("text", "reason"), [("!/a\n", "negation"), ("\na.txt\n", "must start with a slash")])
def test_a_wrong_ignore_file_is_refused_by_line(tmp_path, text, reason):
    write_files(tmp_path, {".capstanignore": text})
    with pytest.raises(DrumheadError, match=rf"\.capstanignore:{text.count(chr(10))}: .*{reason}"):
        read_ignore(tmp_path)
