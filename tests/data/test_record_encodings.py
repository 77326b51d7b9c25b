"""A file in another encoding is read when its encoding is named, and named when it is not."""

import json
from collections.abc import Callable

import pytest

from tunelab.data.readers import read_records
from tunelab.errors import ConfigError, DataError

Write = Callable[[str, str | bytes], str]


CHINESE = '{"text": "今天的天气很好, 我们去公园散步。"}\n'


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_file_in_a_named_encoding_reads_the_same(write: Write, encoding: str) -> None:
    plain = read_records(write("a.jsonl", CHINESE))

    assert read_records(write("b.jsonl", CHINESE.encode(encoding)), encoding=encoding).rows == plain.rows


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (CHINESE.encode("gbk"), "line 1: byte 0xbd at offset 10 .*looks like gb18030; set data.encoding=gb18030"),
        (b'{"a": 1}\n{"a": "caf\xe9 cr\xe8me"}\n', "line 2: byte 0xe9 at offset 19 .*set data.encoding=cp1252"),
        (CHINESE.encode("utf-16"), "looks like utf-16; set data.encoding=utf-16"),
        (('{"text": "hello"}\n' * 3).encode("utf-16-le"), "set data.encoding=utf-16-le"),
        (('{"text": "hello"}\n' * 3).encode("utf-16-be"), "set data.encoding=utf-16-be"),
        (CHINESE.encode("utf-32"), "set data.encoding=utf-32"),
    ],
    ids=["gbk", "latin", "utf-16", "utf-16 without mark", "utf-16 big", "utf-32"],
)
def test_another_encoding_is_named_with_line_byte_and_advice(write: Write, raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"t.jsonl.*{message}"):
        read_records(write("t.jsonl", raw))


def test_the_advised_encoding_reads_the_file(write: Write) -> None:
    source = write("t.jsonl", CHINESE.encode("gbk"))

    assert read_records(source, encoding="gb18030").rows == [json.loads(CHINESE)]


def test_a_utf8_mark_contradicts_another_encoding(write: Write) -> None:
    with pytest.raises(DataError, match="set it to utf-8"):
        read_records(write("t.jsonl", CHINESE.encode("utf-8-sig")), encoding="gb18030")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_one_undecodable_line_can_be_skipped(write: Write, suffix: str) -> None:
    good, bad = (b'{"a": "x"}\n', b'{"a": "\xff"}\n') if suffix == ".jsonl" else (b"x,y\n", b"\xff,y\n")

    records = read_records(write(f"t{suffix}", good * 150 + bad + good), on_bad="skip")

    assert len(records.skipped) == 1
    assert "line 151" in records.skipped[0]


@pytest.mark.parametrize("encoding", ["hex", "rot13", "a\0b", "klingon"])
def test_a_codec_that_is_no_text_encoding_is_refused(write: Write, encoding: str) -> None:
    with pytest.raises(ConfigError, match="no text encoding"):
        read_records(write("t.jsonl", '{"a": 1}'), encoding=encoding)
