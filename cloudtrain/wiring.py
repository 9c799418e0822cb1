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


def provider_of(config: Config, reporter: Reporter | None = None) -> Callable[[], Provider]:
    """Return a maker of the configured provider; it is made once, when first asked for.

    `reporter` is told of what takes long before there is a provider.
    """

    @cache
    def make() -> Provider:
        if config.provider == "sandbox":
            return _sandbox(reporter or Silent())
        if config.provider == "ssh":
            raise UsageError(
                "provider ssh (machines of your own) is not built yet",
                hint="use `provider: aws`, or rehearse with `provider: sandbox`",
            )
        return _aws(config)

    return make


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
