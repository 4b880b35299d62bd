"""Settings: what is wrong in them is named before anything is done."""

import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.serve.command import said_to_search
from anomalib_medical.edge.serve.settings import Secret, Settings, Web, address, is_loopback, read_settings

ALL = """
dicomweb:
  url: https://archive.example/dicom-web
  user: edge
  password: {file: /run/secrets/pacs}
  tls: {ca: /etc/ssl/hospital.pem}
  poll: 10
receiver: {title: ANOMED, callers: [CT1, CT2], quiet: 20}
peer: {host: pacs, port: 11112}
series:
  - {Modality: CT, SeriesDescription: ["*chest*", "*thorax*"]}
  - Modality: MR
objects: [report]
keep_originals: true
limits: {spool: 1.5}
token:
  env: ANOMED_TOKEN
"""


def read(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return read_settings(path)


def test_all_of_them(tmp_path):
    settings = read(tmp_path, ALL)
    assert settings.dicomweb.password == Secret(file=settings.dicomweb.password.file)
    assert (settings.dicomweb.poll, settings.dicomweb.quiet) == (10, 30)
    assert settings.receiver.callers == ["CT1", "CT2"]
    assert settings.token == Secret(env="ANOMED_TOKEN")
    assert settings.keywords == ["Modality", "SeriesDescription"]
    assert (settings.objects, settings.limits.spool, settings.limits.free) == (["report"], 1.5, 2)


def test_without_any(tmp_path):
    assert read_settings(None) == read(tmp_path, "") == Settings()


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        ({"Modality": "CT", "SeriesDescription": "Thorax 1.0"}, True),
        ({"Modality": "ct", "SeriesDescription": "CHEST"}, True),
        ({"Modality": "CT", "SeriesDescription": "Head"}, False),
        ({"Modality": "CT"}, True),  # the archive did not say: the file will
        ({"Modality": "MR", "SeriesDescription": "Head"}, True),
        ({"Modality": "PT"}, False),
    ],
)
def test_which_series_fit(tmp_path, header, fits):
    assert read(tmp_path, ALL).fits(header) == fits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "are no YAML (line 1)"),
        ("- dicomweb", "settings.yaml: got list, expected some of dicomweb, receiver"),
        ("dicom: {}", "settings.yaml: 'dicom' is not known; expected some of dicomweb"),
        ("dicomweb: {polls: 3}", "settings.yaml: dicomweb: 'polls' is not known"),
        ("dicomweb: {poll: often}", "dicomweb: poll: got 'often', expected a number, 0 or more"),
        ("dicomweb: {poll: -1}", "dicomweb: poll: got -1, expected a number, 0 or more"),
        ("dicomweb: {poll: .nan}", "dicomweb: poll: got nan"),
        ("dicomweb: {days: 1.5}", "dicomweb: days: got 1.5, expected a whole number"),
        ("dicomweb: {password: hunter2}", "dicomweb: password: expected `file: PATH` or `env: NAME`"),
        ("receiver: {callers: CT1}", "receiver: callers: got 'CT1', expected a list"),
        ("keep_originals: 1", "keep_originals: got 1, expected true or false"),
        ("series: [{Modalty: CT}]", "series: 'Modalty' is no keyword of a DICOM attribute"),
        ("series: [{Modality: {a: b}}]", "series: Modality: got {'a': 'b'}, expected a pattern"),
        ("series: [{Modality: []}]", "series: Modality: got [], expected a pattern"),
        ("objects: [captures]", "objects: got 'captures', expected some of capture, segmentation, map, report"),
        ("peer: {host: 5}", "peer: host: got 5, expected text"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    with pytest.raises(EdgeError, match=re.escape(said)) as caught:
        read(tmp_path, text)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(EdgeError, match="There is no file"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(EdgeError, match="cannot be read"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("104", ("127.0.0.1", 104)), ("0.0.0.0:104", ("0.0.0.0", 104)), ("[::1]:8077", ("::1", 8077))],  # noqa: S104
)
def test_addresses(text, expected):
    assert address(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "70000", "1.5"])
def test_addresses_that_are_none(text):
    with pytest.raises(ValueError, match="expected"):
        address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_what_only_this_machine_reaches(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "pacs", "10.0.0.1"])  # noqa: S104
def test_what_others_reach_too(host):
    assert not is_loopback(host)


def test_the_example_in_the_manual_is_one(tmp_path):
    page = (Path(__file__).parents[4] / "docs" / "how_to" / "serve.md").read_text()
    settings = read(tmp_path, page.partition("```yaml\n")[2].partition("```")[0])
    assert settings.peer.own_title == Settings().peer.own_title
    assert settings.dicomweb == replace(
        Settings().dicomweb, url=ANY, user="anomed", password=Secret(file=Path("/run/secrets/pacs")), tls=ANY
    )  # the figures are the defaults
    assert (settings.limits, settings.objects) == (Settings().limits, Settings().objects)


@pytest.mark.parametrize(
    ("web", "said"),
    [
        (Web(), "Searching studies dated in the last 7 days every 30 s."),
        (Web(days=0, poll=5), "Searching all studies every 5 s."),
        (Web(poll=0), "Not searching (poll: 0): what is told of is fetched."),
    ],
)
def test_what_is_searched_is_said(web, said):
    assert said_to_search(web) == said
