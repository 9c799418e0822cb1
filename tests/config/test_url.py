"""What of an address is secret."""

from __future__ import annotations

import pytest

from cloudtrain.models.url import secrets_in


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("tqdm>=4", ()),
        ("https://example.org/simple", ()),
        ("https://me:s3cret@example.org/simple", ("s3cret",)),
        ("https://tok3n@example.org/simple", ("tok3n",)),
        ("tiny @ git+https://tok3n@example.org/x/y@v1", ("tok3n",)),
        ("tiny @ git+https://example.org/x/y@v1", ()),
        ("https://conda.example.org/t/TO-KEN/channel", ("TO-KEN",)),
        ("https://example.org/conda/t/TO-KEN/channel", ("TO-KEN",)),
    ],
)
def test_secrets(text: str, secret: tuple[str, ...]) -> None:
    assert secrets_in(text) == secret
