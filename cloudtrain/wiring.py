"""The composition root: from a `Config` to the objects that do the work.

The only place that knows every provider by name. Imports are late, so that a verb
which needs no cloud pays for none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from cloudtrain.errors import UsageError
from cloudtrain.events import Note, Reporter, Silent
from cloudtrain.models.config import Config

if TYPE_CHECKING:
    from cloudtrain.providers.base import Provider


def provider_of(
    config: Config,
    reporter: Reporter | None = None,
    *,
    confirm: Callable[[str], bool] | None = None,
    remove: bool = False,
    give_up: bool = False,
) -> Callable[[], Provider]:
    """Return a maker of the configured provider; it is made once, when first asked for.

    `reporter` is told of what takes long before there is a provider.
    For hosts of the user's own: `confirm` asks whether a host key is the right one, None
    where nobody can be asked; `remove` and `give_up` say how such a host is left.
    """

    @cache
    def make() -> Provider:
        if config.provider == "ssh":
            return _own_hosts(config, confirm, remove=remove, give_up=give_up)
        if remove:
            raise UsageError(
                "`--remove` is for machines of your own", hint="a rented one ends with everything on it"
            )
        return _sandbox(reporter or Silent()) if config.provider == "sandbox" else _aws(config)

    return make


def _own_hosts(
    config: Config, confirm: Callable[[str], bool] | None, *, remove: bool, give_up: bool
) -> Provider:
    from cloudtrain.providers.ssh.provider import Leaving, SshProvider

    return SshProvider(config.hosts, confirm=confirm, leaving=Leaving(remove=remove, give_up=give_up))


def _aws(config: Config) -> Provider:
    from cloudtrain.providers.aws.client import Settings
    from cloudtrain.providers.aws.provider import AwsProvider

    return AwsProvider(Settings(region=config.region, profile=config.profile))


def _sandbox(reporter: Reporter) -> Provider:
    """Return the very same EC2 provider, against the emulated cloud of this machine."""
    from cloudtrain.providers import sandbox
    from cloudtrain.providers.aws.client import Settings
    from cloudtrain.providers.aws.provider import AwsProvider

    endpoint = sandbox.ensure(tell=lambda text: reporter.emit(Note(text)))
    return AwsProvider(
        Settings(
            name="sandbox",
            region=endpoint.region,
            endpoint=endpoint.url,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            ssh_port=endpoint.ssh_port,
            ssh_user=endpoint.login_user,
            ingress="127.0.0.1",
        )
    )
