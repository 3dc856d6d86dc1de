"""``drumhead remote …``: where packages are searched, pulled from and pushed to."""

from __future__ import annotations

from drumhead.cli.flags import Json
from drumhead.cli.output import print_json, print_table
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.package.remote.remotes import Remote, changing_remotes, check_url, find_remote, read_remotes
from drumhead.package.signing import check_key


def add_command(name: str, url: str, /, *, key: str = "") -> None:
    """Add a remote.

    Parameters
    ----------
    name:
        The name of the new remote.
    url:
        Its URL: https://HOST/PATH for a directory, oci://HOST/PATH for a registry; without TLS, http:// and
        oci+http://.
    key:
        The sender's public key, which `drumhead key show` prints. Packages and images without its signature are
        refused.
    """
    added = Remote(name=name, url=url, key=key)
    check_url(added)
    if key:
        check_key(key)
    with changing_remotes(find_home()) as remotes:
        if any(remote.name == name for remote in remotes):
            raise DrumheadError(ErrorCode.CONFLICT, f"the remote {name} already exists; remove it first")
        remotes.append(added)


def list_command(*, json: Json = False) -> None:
    """List the remotes, in the order in which they are searched."""
    remotes = read_remotes(find_home())
    if json:
        print_json(remotes)
    else:
        rows = [(remote.name, remote.url, remote.key or "none") for remote in remotes]
        print_table(("Name", "URL", "Key"), rows)


def remove_command(name: str, /) -> None:
    """Remove a remote.

    Parameters
    ----------
    name:
        The remote.
    """
    home = find_home()
    gone = find_remote(home, name)
    with changing_remotes(home) as remotes:
        remotes[:] = [remote for remote in remotes if remote != gone]
