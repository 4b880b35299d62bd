"""Being told of studies."""

import json
import urllib.error
import urllib.request
from contextlib import ExitStack
from http import HTTPStatus

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.serve.settings import Secret
from anomalib_medical.edge.serve.web import WebServer
from tests.helpers.file_server import answering


@pytest.fixture
def serve():
    told = []

    def make(token=None, tell=told.append, ask=lambda _: None):
        server = held.enter_context(answering(WebServer(("127.0.0.1", 0), tell, token, ask)))
        return f"http://127.0.0.1:{server.server_port}", told

    with ExitStack() as held:
        yield make


def post(url, body, **headers):
    headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - of http alone
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - of http alone
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def study(uid):
    return json.dumps({"StudyInstanceUID": uid}).encode()


def test_a_study_is_taken(serve):
    url, told = serve()
    assert post(f"{url}/studies", study("1.2.3")) == 202
    assert told == ["1.2.3"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", study("../1"), study("1" * 65), study(5)])
def test_what_is_no_study_is_not_taken(serve, body):
    url, told = serve()
    assert post(f"{url}/studies", body) == 400
    assert not told


def test_other_requests(serve):
    url, told = serve()
    assert post(f"{url}/other", study("1.2")) == 404
    assert post(f"{url}/studies", study("1.2"), Content_Type="text/plain") == 415
    assert post(f"{url}/studies", b" " * 5000) == 413
    assert not told


def test_who_does_not_know_the_token_is_not_heard(serve, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    url, told = serve(Secret(env="TOKEN"))
    assert post(f"{url}/studies", study("1.2")) == 401
    assert post(f"{url}/studies", study("1.2"), Authorization="Bearer other") == 401
    assert post(f"{url}/studies", study("1.2"), Authorization="Bearer secret") == 202
    assert told == ["1.2"]


def test_a_study_that_cannot_be_kept_is_told_so(serve):
    def full(_):
        msg = "full"
        raise EdgeError(msg)

    url, _ = serve(tell=full)
    assert post(f"{url}/studies", study("1.2")) == 507


def test_beyond_this_machine_only_with_a_token():
    with pytest.raises(EdgeError, match="give `token` in the settings"):
        WebServer(("0.0.0.0", 0), print, None)  # noqa: S104


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - of http alone
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - of http alone
            return answer.status, answer.headers.get_content_type(), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read().decode()


def answer_of_a_monitor(path):
    if path == "/broken":
        raise OSError
    return (HTTPStatus.OK, "text/html", f"asked for {path}") if path in {"/healthz", "/metrics"} else None


def test_a_monitor_answers(serve):
    url, _ = serve(ask=answer_of_a_monitor)
    assert get(f"{url}/healthz?x=1") == (200, "text/html", "asked for /healthz")
    assert get(f"{url}/other")[0] == 404
    assert get(f"{url}/broken")[0] == 503


def test_metrics_are_for_who_has_the_token_and_health_for_all(serve, monkeypatch):
    monkeypatch.setenv("TOLD", "secret")
    url, _ = serve(Secret(env="TOLD"), ask=answer_of_a_monitor)
    assert get(f"{url}/healthz")[0] == 200
    assert get(f"{url}/metrics")[0] == 401
    assert get(f"{url}/metrics", Authorization="Bearer secret")[0] == 200
