"""Whatever the bytes, the reader gives records or says what is wrong."""

import json
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tunelab.data.readers import READABLE_SUFFIXES, Records, read_records
from tunelab.errors import DataError

FRAGMENTS = [
    b'{"a":',
    b"1",
    b'"',
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\r",
    b"\t",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
]
PIECES = st.one_of(
    st.sampled_from([*FRAGMENTS, b"NaN", b"1e999", b"9" * 30, b"\0", b"\xe9", b"PAR1", b'"a"']), st.binary()
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(PIECES, max_size=12),
    suffix=st.sampled_from(READABLE_SUFFIXES),
    encoding=st.sampled_from(["utf-8", "utf-8", "gb18030", "utf-16", "utf-7", "latin-1", "utf-32"]),
    on_bad=st.sampled_from(["error", "skip"]),
    quoting=st.sampled_from(["auto", "minimal", "none"]),
)
@example(pieces=[b"a,b\n\ta"], suffix=".csv", encoding="utf-7", on_bad="error", quoting="auto")
@example(pieces=[b'{"a": "\\ud800"}'], suffix=".jsonl", encoding="utf-8", on_bad="error", quoting="auto")
def test_any_bytes_give_records_or_a_data_error(
    tmp_path: Path, pieces: list[bytes], suffix: str, encoding: str, on_bad: str, quoting: str
) -> None:
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(b"".join(pieces))

    try:
        records = read_records(str(path), encoding=encoding, on_bad=on_bad, quoting=quoting)
    except DataError as error:
        assert "fuzz" in str(error)
        str(error).encode()  # a message can always be printed
    else:
        assert isinstance(records, Records)
        assert records.rows
        assert len(records.rows) == len(records.lines)
        json.dumps(records.rows, ensure_ascii=False, default=str).encode()  # every text has an encoding
