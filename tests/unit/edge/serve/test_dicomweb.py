"""An archive that answers well, badly, slowly or not at all: nothing is lost, and no message names anybody."""

import logging

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.serve import RefusedError, UnavailableError
from anomalib_medical.edge.serve import collect as collect_module
from anomalib_medical.edge.serve.book import DONE, tell
from anomalib_medical.edge.serve.collect import Collector
from anomalib_medical.edge.serve.dicomweb import Archive
from anomalib_medical.edge.serve.settings import Secret, Settings, Tls, Web
from anomalib_medical.edge.serve.spool import name_of
from tests.helpers.certificates import make_certificate
from tests.helpers.fake_archive import fake_archive
from tests.helpers.orthanc import free_port
from tests.helpers.serving import UID, WHO, serving, slice_of, work


@pytest.fixture
def archive():
    with fake_archive() as made:
        yield made


def web(archive, **given):
    return Web(**({"url": archive.url, "poll": 1, "quiet": 0, "days": 0, "timeout": 5} | given))


def collecting(output, archive, *, destination=None, series=(), limits=(1e12, 0.0), **given):
    settings = Settings(dicomweb=web(archive, **given), series=list(series))

    def source(book, spool):
        return Collector(Archive(settings.dicomweb), book, spool, settings)

    return serving(output, settings, destination, source, limits)


def names_nobody(text):
    return not any(each in text for each in (*WHO.values(), UID, "JANE"))


def test_all_series_of_an_archive_are_fetched_once(archive, tmp_path, clock):
    archive.hold(*(slice_of(study, index) for study in range(5) for index in range(2)))
    for _ in range(2):
        with collecting(tmp_path / "out", archive) as (service, _, book, _):
            work(service)
            clock[0] += 2
            work(service)
            assert book.counts() == {DONE: 5}
    fetched = [path for method, path, _ in archive.requests if method == "GET" and path.count("/") == 5]
    assert len(fetched) == len(set(fetched)) == 5


def test_results_go_back_and_are_not_fetched(archive, tmp_path, clock):
    archive.hold(slice_of(1, 0), slice_of(1, 1))
    destination = Archive(web(archive))
    with collecting(tmp_path / "out", archive, destination=destination) as (service, _, book, processor):
        for _ in range(3):
            work(service)
            clock[0] += 2
        assert len(processor.scored) == 2
        assert book.counts() == {DONE: 1}
    assert len(archive.held) == 4
    assert not list((tmp_path / "out" / "dicom").iterdir())
    assert len([path for method, path, _ in archive.requests if method == "GET" and path.count("/") == 5]) == 1


def test_a_series_that_grows_is_waited_for_and_what_comes_late_is_one_more(archive, tmp_path, clock):
    archive.hold(slice_of(1, 0))
    with collecting(tmp_path / "out", archive, quiet=10) as (service, _, _, processor):
        for _ in range(5):
            work(service)
            clock[0] += 5
            if len(archive.held) < 3:
                archive.hold(slice_of(1, len(archive.held)))
        assert len(processor.scored) == 3
        archive.hold(slice_of(1, 3))
        for _ in range(4):
            work(service)
            clock[0] += 5
        assert len(processor.scored) == 4
    assert len((tmp_path / "out" / "series.jsonl").read_text().splitlines()) == 2


def test_a_study_that_is_told_of_is_not_waited_for(archive, tmp_path, clock):
    archive.hold(slice_of(1, 0), slice_of(2, 0))
    with collecting(tmp_path / "out", archive, poll=0, quiet=60) as (service, _, book, processor):
        work(service)
        assert not processor.scored
        archive.statuses = [503]
        tell(tmp_path / "out", f"{UID}.2")
        work(service)
        clock[0] += 2
        work(service)
        assert len(processor.scored) == 1
        assert book.told()  # is it all?
        clock[0] += 2
        work(service)
        assert book.told() == []
        tell(tmp_path / "out", "1.2.3")  # which the archive does not have
        work(service)
        assert book.told() == []


# To searches, fetching and storing.
@pytest.mark.parametrize(
    ("good_answers", "status"), [(0, 401), (1, 500), (2, 404), (2, 500), (3, 401), (3, 409), (3, 500)]
)
def test_a_bad_answer_at_any_time_only_delays(archive, tmp_path, clock, caplog, good_answers, status):
    # What libraries say is silenced by the command.
    caplog.set_level(logging.INFO, logger="edge")
    archive.hold(slice_of(1, 0))
    with collecting(tmp_path / "out", archive, destination=Archive(web(archive))) as (service, _, book, processor):
        archive.after = good_answers
        archive.statuses = [status]
        for _ in range(4):
            work(service)
            clock[0] += 5
        assert (len(processor.scored), book.counts()) == (1, {DONE: 1})
    assert not archive.statuses
    assert len(archive.held) == 2
    assert names_nobody(caplog.text)
    assert "again in" in caplog.text


def test_the_messages_say_what_to_do(archive):
    for status, said in [(401, "see user, password and token"), (404, "see its url"), (500, "HTTP status 500")]:
        archive.statuses = [status]
        with pytest.raises(UnavailableError, match=said):
            list(Archive(web(archive)).find())


def test_a_page_to_log_in_is_no_answer(archive, tmp_path, clock, caplog):
    archive.statuses = [200]
    archive.hold(slice_of(1, 0))
    with collecting(tmp_path / "out", archive) as (service, _, book, _):
        work(service)
        assert "answer was cut off or is none (JSONDecodeError)" in caplog.text
        clock[0] += 5
        work(service)
        assert book.counts() == {DONE: 1}
    assert names_nobody(caplog.text)


def test_nobody_there_and_nobody_who_answers(archive):
    there = Web(url=f"http://127.0.0.1:{free_port()}/dicom-web", timeout=5)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        list(Archive(there).find())
    archive.delay = 0.5
    with pytest.raises(UnavailableError, match=r"did not answer for 0\.1 s"):
        list(Archive(web(archive, timeout=0.1)).find())


@pytest.mark.parametrize("length", [0, 60, 400, -30])
def test_a_transfer_that_is_cut_off_is_repeated_whole(archive, tmp_path, clock, length, caplog):
    archive.hold(slice_of(1, 0), slice_of(1, 1))
    with collecting(tmp_path / "out", archive) as (service, _, book, processor):
        archive.after = 2
        archive.break_after = [length]
        work(service)
        assert not processor.scored
        assert not list((tmp_path / "out" / "queue").iterdir())
        clock[0] += 5
        work(service)
        assert (len(processor.scored), book.counts()) == (2, {DONE: 1})
    assert names_nobody(caplog.text)


def test_fewer_instances_than_the_archive_counts_are_taken_at_last(archive, tmp_path, clock, caplog):
    archive.hold(slice_of(1, 0), slice_of(2, 0))
    archive.more = 1
    with collecting(tmp_path / "out", archive) as (service, _, book, processor):
        for _ in range(12):
            work(service)
            clock[0] += 20
        assert (len(processor.scored), book.counts()) == (2, {DONE: 2})
    assert "1 of 2 instances came; fetched again in" in caplog.text
    assert len([path for _, path, _ in archive.requests if path.count("/") == 5]) == 2 * collect_module._TRANSFERS


def test_an_archive_that_does_not_count(archive, tmp_path, clock):
    archive.hold(slice_of(1, 0), slice_of(1, 1))
    archive.counts = False
    with collecting(tmp_path / "out", archive, quiet=1) as (service, _, _, processor):
        for _ in range(4):
            work(service)
            clock[0] += 5
        assert len(processor.scored) == 2


def test_what_does_not_fit_is_not_fetched(archive, tmp_path):
    archive.hold(slice_of(1, 0), slice_of(2, 0, SeriesDescription="Head"), slice_of(3, 0, Modality="SR"))
    series = [{"SeriesDescription": "chest*"}]
    with collecting(tmp_path / "out", archive, series=series) as (service, _, _, processor):
        work(service)
        assert len(processor.scored) == 1
    assert len([path for _, path, _ in archive.requests if path.count("/") == 5]) == 1


def test_where_there_is_no_room_nothing_is_fetched(archive, tmp_path, clock, caplog):
    archive.hold(slice_of(1, 0))
    with collecting(tmp_path / "out", archive, limits=(0.0, 0.0)) as (service, _, _, processor):
        for _ in range(3):
            work(service)
            clock[0] += 5
        assert not archive.requests
        assert not processor.scored
    assert caplog.text.count("no room for more series") == 1


@pytest.mark.parametrize("duplicates", ["ok", "409", "409 without a word"])
def test_what_is_there_already_counts_as_stored(archive, tmp_path, duplicates):
    files = [tmp_path / f"{index}.dcm" for index in range(3)]
    for index, file in enumerate(files):
        file.write_bytes(slice_of(1, index))
    archive.hold(files[1].read_bytes())
    archive.duplicates = duplicates
    client = Archive(web(archive))
    client.send(files)
    client.send(files)
    assert len(archive.held) == 3
    # Asked only where the answer does not say it.
    assert ("GET" in {method for method, _, _ in archive.requests}) == (duplicates == "409 without a word")


def test_what_is_refused_is_told_by_its_kind(archive, tmp_path):
    file = tmp_path / "a.dcm"
    file.write_bytes(slice_of(1, 0))
    archive.refuses = {"CT Image Storage": 0x0122}
    with pytest.raises(RefusedError, match=r"did not store 1 of our objects \(reason 0122; CT Image Storage\)"):
        Archive(web(archive)).send([file])
    archive.refuses = {"CT Image Storage": 0xA700}
    with pytest.raises(UnavailableError, match="no room"):
        Archive(web(archive)).send([file])


def test_who_asks(archive, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("first\n")
    client = Archive(web(archive, token=Secret(file=tmp_path / "token")))
    list(client.find())
    (tmp_path / "token").write_text("second\n")
    list(client.find())
    assert {each[2] for each in archive.requests} == {"Bearer first", "Bearer second"}
    (tmp_path / "token").unlink()  # while it is changed
    with pytest.raises(UnavailableError, match="no password or token to read in the file"):
        list(client.find())
    archive.requests.clear()
    monkeypatch.setenv("PACS", "pässword")
    list(Archive(web(archive, user="edge", password=Secret(env="PACS"))).find())
    assert archive.requests[0][2] == "Basic ZWRnZTpww6Rzc3dvcmQ="
    with pytest.raises(EdgeError, match="the environment variable NONE"):
        Archive(web(archive, user="edge", password=Secret(env="NONE")))


@pytest.mark.parametrize("url", ["", "archive/dicom-web", "ftp://archive", "https://edge:secret@archive/dicom-web"])
def test_an_address_that_is_none(url):
    with pytest.raises(EdgeError, match="without a user or password") as caught:
        Archive(Web(url=url))
    assert "secret" not in str(caught.value)


def test_a_study_is_searched_for_by_its_date_unless_it_is_told_of(archive):
    archive.hold(slice_of(1, 0))
    client = Archive(web(archive, days=7))
    (found,) = client.find(f"{UID}.1")
    assert (found.name, found.instances, found.header["Modality"]) == (name_of(f"{UID}.1.1"), 1, "CT")
    list(client.find())
    assert "StudyDate" not in archive.queries[0]
    assert "StudyDate" in archive.queries[-1]


def test_only_a_certificate_that_is_trusted_is_spoken_to(tmp_path):
    certificate = make_certificate(tmp_path)
    with fake_archive(certificate) as archive:
        archive.hold(slice_of(1, 0))
        assert len(list(Archive(web(archive, tls=Tls(ca=certificate[0]))).find())) == 1
        with pytest.raises(UnavailableError, match="certificate is not trusted"):
            list(Archive(web(archive)).find())
