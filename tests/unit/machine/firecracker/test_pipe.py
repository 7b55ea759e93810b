from firebrick.machine.firecracker.driver import processor
from firebrick.machine.firecracker.pipe import LastRecord


def test_the_last_whole_record_counts():
    record = LastRecord()
    assert record.value() == {}
    for piece in (b'{"a": 1}\n{"a"', b": 2}", b'\n{"a": 3'):
        record.write(piece)
    assert record.value() == {"a": 2}


def test_a_line_without_an_end_does_not_grow_for_ever():
    record = LastRecord()
    for _ in range(64):
        record.write(b"x" * (1 << 16))
    assert len(record._begun) <= 1 << 20
    record.write(b'\n{"a": 4}\n')
    assert record.value() == {"a": 4}


def test_what_is_no_record_is_none():
    record = LastRecord()
    record.write(b"[1]\n")
    assert record.value() == {}
    record.write(b"\xff{\n")
    assert record.value() == {}


def test_the_processor_a_snapshot_depends_on():
    cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nmodel name\t: X\nstepping\t: 2\n\nmodel: 9\n"
    assert processor(cpuinfo) == "vendor AuthenticAMD family 23 model 1 stepping 2"
    assert processor("") == "unknown"
