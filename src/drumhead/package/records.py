"""What a package is, and the recipe that it is built from."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from drumhead.records import Command, Filesystem

PackageName = Annotated[str, msgspec.Meta(pattern=r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._+/-]*$")]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
PackageKind = Literal["runtime", "tool", "libraries", "kernel", "application"]


class PackageRef(msgspec.Struct, frozen=True, kw_only=True):
    """How a package is asked for: ``python``, ``python@3.11.2-6+deb12u9``. An empty version means the newest."""

    name: str
    version: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A Debian package that a package was made from. `sha256` is the digest of the .deb, as the archive signs it."""

    name: str
    version: str
    sha256: str


class PackedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A package's files as a file system, packed once. `source` is the digest of their tree, `size` is in bytes."""

    filesystem: Filesystem
    source: Digest
    digest: Digest
    size: int


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a package, as stored and as sent: this record plus its blobs.

    `archive` is the digest of a zstd-compressed tar in the canonical form of ``drumhead.tree``; everything about the
    package follows from it, `layers` too, which spare whoever composes the packing. `config_sets` are commands that an
    application inherits with ``base: NAME:SET``.
    """

    name: PackageName
    version: str
    kind: PackageKind
    description: str
    created: str
    """ISO 8601, UTC: the newest date among what the package was made from, never the time of the build."""
    archive: Digest
    archive_size: int
    unpacked_size: int
    requires: tuple[str, ...] = ()
    config_sets: dict[str, Command] = {}
    origins: tuple[Origin, ...] = ()
    layers: tuple[PackedLayer, ...] = ()

    @property
    def blobs(self) -> dict[str, int]:
        """Digest and size of every blob that belongs to the package."""
        return {self.archive: self.archive_size, **{layer.digest: layer.size for layer in self.layers}}

    def layer(self, filesystem: Filesystem) -> PackedLayer | None:
        """Return the package's layer in a kind of file system, when it was packed."""
        return next((layer for layer in self.layers if layer.filesystem == filesystem), None)


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's proof: `command` runs in a guest with only this package (and `require`), ends with 0, prints `output`.

    ``{version}`` in `output` stands for the package's version.
    """

    command: tuple[str, ...]
    output: str
    require: tuple[str, ...] = ()
    files: dict[str, str] = {}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """package/recipes/NAME.yaml: how a package is made of Debian packages.

    `version_of` names the Debian package that gives the version. `include` and `exclude` are globs over the paths of
    the `debian` packages (``**`` crosses directories); libraries that the taken files need are added from those
    packages' dependencies, found by reading ELF. `links` maps a new symlink to its target, `names` a file to
    further names for it (words; links beside it), `files` a new file to its text, `concatenate` a new file to a glob
    over the files that it is put together from.
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
    """Regular expressions over old names that mean this package (``eu.mikelangelo-project.app.node-…``)."""
    bytecode: int = -1
    """0 to 2: compile Python sources at this level of optimisation and ship only the result; -1: leave them."""
    modules: tuple[str, ...] = ()
    """Kernels only: modules that the initramfs carries, by name; what they depend on is added."""
    demo: Demo | None = None
