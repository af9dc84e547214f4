"""Files that are replaced in one step, folders with one writer."""

import logging
import threading

import pytest

from slowfast.utils.files import locked, read_text, replacing


def test_a_file_changes_only_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "list.csv"
    for mode, content in (("w", "Ä,1\n"), ("wb", b"\x00\xff")):
        path.write_text("before")
        with pytest.raises(KeyboardInterrupt), replacing(path, mode) as file:
            file.write(content)
            raise KeyboardInterrupt
        assert path.read_text() == "before"
        with replacing(path, mode) as file:
            file.write(content)
            assert path.read_text() == "before"
        assert path.read_bytes() == (content.encode() if mode == "w" else content)
        assert list(tmp_path.iterdir()) == [path]


def test_text_of_other_systems_is_read_and_other_bytes_are_named(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbf\xc3\x84,1\r\nb,2\r\n")
    assert read_text(path) == "Ä,1\nb,2\n"
    path.write_bytes("Ä,1".encode("utf-16"))
    with pytest.raises(ValueError, match=r"list\.csv is not UTF-8 text"):
        read_text(path)


def test_a_second_writer_waits_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "slowfast")
    order, is_waiting = [], threading.Event()

    class Waiting(logging.Handler):
        def emit(self, record):
            is_waiting.set()

    handler = Waiting()
    logging.getLogger("slowfast.utils.files").addHandler(handler)

    def write():
        with locked(tmp_path):
            order.append("second")

    second = threading.Thread(target=write)
    try:
        with locked(tmp_path):
            second.start()
            assert is_waiting.wait(10)
            order.append("first")
        second.join(10)
    finally:
        logging.getLogger("slowfast.utils.files").removeHandler(handler)
    assert order == ["first", "second"]
    assert f"another process is writing to {tmp_path}: waiting for it" in caplog.text
