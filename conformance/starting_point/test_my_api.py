"""The connector my_api: the promises of every connector, and what is special about this one."""

import pytest

import my_api
from conformance import check


def test_it_keeps_every_promise() -> None:
    """As `make check-connector CONNECTOR=my_api` lists them."""
    check("my_api")


def test_a_message_without_words_is_refused() -> None:
    """With the place of the message that is to blame."""
    with pytest.raises(TypeError, match=r"messages\[0\]\.content"):
        my_api.validate_data({"messages": [{"role": "user"}], "generate_parameters": {}})
