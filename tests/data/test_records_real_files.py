"""Every row of files that nobody here wrote is read, with quoting as its writer meant it."""

import pytest

from support.paths import ROOT
from tunelab.data.readers import read_records

SHARED = (ROOT / "../shared/data").resolve()

ROWS = {
    "banking77/train.csv": 9000,
    "banking77/val.csv": 1003,
    "banking77/test.csv": 3080,
    "complex_words/train.tsv": 7662,
    "complex_words/val.tsv": 421,
    "complex_words/test.tsv": 917,
    "emobank/train.csv": 8062,
    "emobank/val.csv": 1000,
    "emobank/test.csv": 1000,
    "sib200/eng_Latn/train.tsv": 701,
    "sib200/eng_Latn/dev.tsv": 99,
    "sib200/eng_Latn/test.tsv": 204,
    "sib200/zho_Hans/train.tsv": 701,
    "sib200/zho_Hans/dev.tsv": 99,
    "sib200/zho_Hans/test.tsv": 204,
    "sms_spam/sms.tsv": 5574,
    "sms_spam/train.csv": 3612,
    "sms_spam/val.csv": 516,
    "sms_spam/test.csv": 1032,
    "goemotions/train.jsonl": 12000,
    "goemotions/dev.jsonl": 5426,
    "goemotions/test.jsonl": 5427,
    "gsm8k/train.jsonl": 2000,
    "gsm8k/val.jsonl": 300,
    "gsm8k/test.jsonl": 1319,
    "seed_tasks/seed_tasks.jsonl": 175,
    "seed_tasks/alpaca.json": 175,
    "gpteacher/codegen.json": 1500,
    "gpteacher/roleplay.json": 800,
    "toolcall/glaive_toolcall_en.json": 300,
    "toolcall/glaive_toolcall_zh.json": 300,
    "identity/identity.json": 91,
    "identity/dummy_conversation.json": 500,
    "oasst/messages.jsonl": 100,
    "crosswoz/messages.jsonl": 500,
}


def real(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"needs the real data beside the checkout: {name}")
    return str(SHARED / name)


@pytest.mark.parametrize(("name", "count"), ROWS.items(), ids=ROWS)
def test_every_row_of_the_real_files_is_read(name: str, count: int) -> None:
    header = ["label", "text"] if name.endswith("sms.tsv") else None

    records = read_records(real(name), header=header)

    assert len(records.rows) == count
    assert {len(row) for row in records.rows} == {len(records.columns())} or not name.endswith(("csv", "tsv"))
    assert records.skipped == []


def test_quotes_of_an_unquoted_table_stay_and_the_choice_is_noted() -> None:
    records = read_records(real("complex_words/train.tsv"))

    assert sum(row["sentence"].startswith('"') for row in records.rows) > 50
    assert {"null", "None"} & {row["token"] for row in records.rows}
    assert "quotes are read as plain characters" in records.notes[0]


def test_quotes_around_cells_of_a_quoted_table_go() -> None:
    records = read_records(real("sib200/eng_Latn/dev.tsv"))

    assert not any('""' in row["text"] for row in records.rows)
    assert any('said, "Deep down I think women' in row["text"] for row in records.rows)
    assert records.notes == []
