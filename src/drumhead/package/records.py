"""Records of packages and their recipes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from drumhead.records import Command, Filesystem, Signature

PACKAGE_NAME = r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._+/-]*$"
PackageName = Annotated[str, msgspec.Meta(pattern=PACKAGE_NAME)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{0,128}$")]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
PackageKind = Literal["runtime", "tool", "libraries", "kernel", "application"]


class PackageRef(msgspec.Struct, frozen=True, kw_only=True):
    """A reference to a package: ``python`` or ``python@3.11.2-6+deb12u9``. An empty version means the newest."""

    name: str
    version: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A Debian package that a package was made from. `sha256` is the digest of the .deb that the archive signs."""

    name: str
    version: str
    sha256: str


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A package's files, packed as a file system. `source` is the digest of their tree, `size` is in bytes."""

    filesystem: Filesystem
    source: Digest
    digest: Digest
    size: Size


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a package, as stored and transferred: this record and its blobs.

    `archive` is the digest of a zstd-compressed tar in the canonical form of ``drumhead.tree``. `layers` are made from
    it in advance, so that composing does not have to pack them. `config_sets` are commands that other projects
    inherit with ``base: NAME:SET``.
    """

    name: PackageName
    version: Version
    kind: PackageKind
    description: str
    created: str
    """An ISO 8601 time in UTC: the newest date among the origins, or for a package of a project the time of the
    build."""
    archive: Digest
    archive_size: Size
    unpacked_size: Size
    requires: tuple[str, ...] = ()
    config_sets: dict[str, Command] = {}
    origins: tuple[Origin, ...] = ()
    layers: tuple[PackedLayer, ...] = ()
    signature: Signature = ""

    @property
    def blobs(self) -> dict[str, int]:
        """The digest and size of every blob of the package."""
        return {self.archive: self.archive_size, **{layer.digest: layer.size for layer in self.layers}}

    def layer(self, filesystem: Filesystem) -> PackedLayer | None:
        """Return the package's layer in a file system, or None if it was not packed."""
        return next((layer for layer in self.layers if layer.filesystem == filesystem), None)


TreePath = Annotated[str, msgspec.Meta(pattern=r"^(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\x00-\x1f\x7f]{1,4095}$")]
"""A path in an image without its leading slash."""
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Owner = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,30})?$")]
DebianName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]{0,127}$")]
PinnedWheel = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+-]+( --hash=sha256:[0-9a-f]{64})+$")]

PinnedNpm = Annotated[
    str,
    msgspec.Meta(pattern=r"^(@[a-z0-9._~-]+/)?[a-z0-9._~-]+@[A-Za-z0-9._+-]+ sha512-[A-Za-z0-9+/]{86}==$"),
]


class RecipeCommand(Command, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A config set of a recipe, in which a misspelt key is an error."""


class Demo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The test of a recipe: in a guest with only this package and `require`, `command` prints `output` and ends with 0.

    ``{version}`` in `output` stands for the package's version. `memory` is in MiB.
    """

    command: Annotated[tuple[Word, ...], msgspec.Meta(min_length=1)]
    output: str
    require: tuple[PackageName, ...] = ()
    files: dict[TreePath, str] = {}
    memory: Annotated[int, msgspec.Meta(ge=32, le=4096)] = 256


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package recipe (package/recipes/NAME.yaml): how to build a package from those of Debian, PyPI and npm.

    The version is that of the Debian package `version_of`, or else `version`. `include` and `exclude` are globs over
    the paths of the packages (``**`` crosses directories); None includes everything but documentation. Libraries that
    the selected files need are found by reading ELF and added from the dependencies of the packages. `move` maps a file
    or directory to its path in the image, `links` a new symbolic link to its target, `names` a file to further names
    (separated by blanks, made as links beside it), `files` a new file to its text, `concatenate` a new file to a glob
    of the files to join. `directories` are new directories. `owners` maps a file or directory, with everything in it,
    to ``USER``, ``USER:GROUP`` or numbers; the accounts are Debian's, and those of sysusers.d(5) files of the package.
    """

    name: PackageName
    kind: PackageKind
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Version = ""
    version_of: DebianName | Literal[""] = ""
    debian: Annotated[tuple[DebianName, ...], msgspec.Meta(max_length=64)] = ()
    wheels: Annotated[tuple[PinnedWheel, ...], msgspec.Meta(max_length=16)] = ()
    npm: Annotated[tuple[PinnedNpm, ...], msgspec.Meta(max_length=16)] = ()
    include: tuple[Pattern, ...] | None = None
    exclude: tuple[Pattern, ...] = ()
    move: dict[TreePath, TreePath] = {}
    links: dict[TreePath, Word] = {}
    names: dict[TreePath, Word] = {}
    files: dict[TreePath, str] = {}
    directories: tuple[TreePath, ...] = ()
    owners: dict[TreePath, Owner] = {}
    concatenate: dict[TreePath, Pattern] = {}
    requires: tuple[PackageName, ...] = ()
    config_sets: dict[Word, RecipeCommand] = {}
    aliases: tuple[Pattern, ...] = ()
    """Regular expressions for old names of this package (``eu.mikelangelo-project.app.node-…``)."""
    bytecode: Annotated[int, msgspec.Meta(ge=-1, le=2)] = -1
    """The optimisation level (0 to 2) at which Python is compiled to bytecode without sources; -1 ships sources."""
    modules: tuple[Word, ...] = ()
    """For kernels: the names of modules in the initramfs; their dependencies are added."""
    demo: Demo | None = None
