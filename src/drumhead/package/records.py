"""Records of packages and their recipes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from drumhead.records import Command, Filesystem, Signature

PackageName = Annotated[str, msgspec.Meta(pattern=r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._+/-]*$")]
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
    """A package's files as a file system, packed once. `source` is the digest of their tree, `size` is in bytes."""

    filesystem: Filesystem
    source: Digest
    digest: Digest
    size: Size


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a package, as stored and transferred: this record and its blobs.

    `archive` is the digest of a zstd-compressed tar in the canonical form of ``drumhead.tree``. `layers` are made from
    it in advance, so composing does not have to pack them. `config_sets` are commands that an
    application inherits with ``base: NAME:SET``.
    """

    name: PackageName
    version: Version
    kind: PackageKind
    description: str
    created: str
    """ISO 8601, UTC: the newest date among the package's origins; for a package of a project, the time of the build."""
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
        """Digest and size of every blob that belongs to the package."""
        return {self.archive: self.archive_size, **{layer.digest: layer.size for layer in self.layers}}

    def layer(self, filesystem: Filesystem) -> PackedLayer | None:
        """Return the package's layer in a file system, or None when it was not packed."""
        return next((layer for layer in self.layers if layer.filesystem == filesystem), None)


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's test: `command`, in a guest with only this package (and `require`), prints `output` and ends with 0.

    ``{version}`` in `output` stands for the package's version.
    """

    command: tuple[str, ...]
    output: str
    require: tuple[str, ...] = ()
    files: dict[str, str] = {}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """package/recipes/NAME.yaml: how to build a package from Debian packages.

    `version_of` names the Debian package that gives the version. `include` and `exclude` are globs over the paths of
    the `debian` packages (``**`` crosses directories); libraries that the selected files need are added from those
    packages' dependencies, found by reading ELF. `links` maps a new symbolic link to its target, `names` a file to
    further names for it (separated by blanks; links beside it), `files` a new file to its text, `concatenate` a new
    file to a glob over its parts.
    """

    name: str
    kind: PackageKind
    description: str
    version_of: str
    debian: tuple[str, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    links: dict[str, str] = {}
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    concatenate: dict[str, str] = {}
    requires: tuple[str, ...] = ()
    config_sets: dict[str, Command] = {}
    aliases: tuple[str, ...] = ()
    """Regular expressions for old names of this package (``eu.mikelangelo-project.app.node-…``)."""
    bytecode: int = -1
    """0 to 2: ship only Python bytecode compiled at this level of optimisation; -1: ship sources."""
    modules: tuple[str, ...] = ()
    """For kernels: the names of modules in the initramfs; their dependencies are added."""
    demo: Demo | None = None
