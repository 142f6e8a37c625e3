"""What the server's operator asks a SuperLink: of its refusals, only "it is over already" is none."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.error.catalog import API_ERROR_MAP

from fedbrats.engines.superlink.control import stop_run


class Refusing:
    """A SuperLink that refuses to stop a run, as Flower words it."""

    def __init__(self, status: int, content: Any) -> None:
        request = httpx.Request("POST", "https://server/stop-run")
        self.error = httpx.HTTPStatusError(
            "no", request=request, response=httpx.Response(status, json=content)
        )

    def StopRun(self, request: Any) -> None:
        raise self.error


def refusing(code: ApiErrorCode) -> Refusing:
    about = API_ERROR_MAP[code]
    return Refusing(about.http_status_code, {"code": int(code), "detail": about.public_message})


def test_a_run_that_is_over_stays_so() -> None:
    stop_run(refusing(ApiErrorCode.RUN_ALREADY_FINISHED), 7)


@pytest.mark.parametrize(
    "client",
    [
        refusing(ApiErrorCode.NO_ACCOUNT_AUTH),  # with the same status
        refusing(ApiErrorCode.RUN_ID_NOT_FOUND),
        refusing(ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE),
        Refusing(412, "no error of Flower's"),
    ],
)
def test_every_other_refusal_is_told(client: Refusing) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        stop_run(client, 7)
