"""The store: what goes in comes out bit for bit, and nothing that happens to it loses a run."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import reluflow as rf
from reluflow.experiments import Store, StoreError, export, plan, read_store, read_study
from reluflow.experiments._lock import FileLock
from reluflow.report.study import write_study_reports

HERE = Path(__file__).parent
VOLATILE = ["host", "executor", "threads", "started", "finished"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def spec(**changes):
    return {
        "name": "numbers",
        "experiment": "sweep_experiments:ARITHMETIC",
        "axes": {"x": [0.5, 1.5, 2.5], "k": [1, 2]},
        "replicates": 2,
        **changes,
    }


def run(store, document=None, **options):
    options = {"executor": "threads", "jobs": 2, "progress": False, **options}
    return rf.sweep(document or spec(), store=store, **options)


def steady(frame):
    """The columns that may not differ between two runs of a study."""
    return frame[[c for c in frame if not c.endswith("seconds") and c not in VOLATILE]]


def test_numbers_and_arrays_come_back_bit_for_bit(tmp_path):
    from sweep_experiments import ARITHMETIC

    frame = run(tmp_path / "a.sqlite")
    with Store(tmp_path / "a.sqlite") as store:
        for row in frame.itertuples():
            settings = ARITHMETIC.complete({"x": row.x, "k": row.k, "seed": row.seed})
            record = ARITHMETIC.run(settings, ("noise",))
            assert row.value == record.scalars["value"]
            assert row.infinite == -np.inf
            assert row.positive == record.scalars["positive"]
            assert row.written == f"k{row.k}"
            arrays = store.arrays(row.key)
            np.testing.assert_array_equal(arrays["noise"], record.arrays["noise"])


def test_the_table_is_in_the_order_of_the_study(tmp_path):
    frame = run(tmp_path / "a.sqlite")
    asked = [r.settings for r in read_study(spec()).runs()]
    assert [(r.x, r.k, r.seed) for r in frame.itertuples()] == [
        (s["x"], s["k"], s["seed"]) for s in asked
    ]
    assert list(frame.columns[:9]) == list(asked[0])
    assert (frame.status == "done").all()
    assert (frame.threads == 1).all()
    assert (frame.version == rf.__version__).all()


def test_what_is_stored_is_not_run_again(tmp_path):
    first = run(tmp_path / "a.sqlite")
    pd.testing.assert_frame_equal(run(tmp_path / "a.sqlite"), first)
    again = run(tmp_path / "a.sqlite", resume=False)
    assert (again.started > first.started).all()
    pd.testing.assert_frame_equal(steady(again), steady(first))


def test_an_edited_study_keeps_what_it_shares(tmp_path, capsys):
    path = tmp_path / "a.sqlite"
    first = run(path)
    edited = spec(axes={"x": [1.5, 2.5, 3.5, 4.5], "k": [1, 2]})
    second = run(path, edited)
    assert (
        "the study was edited since it was last run: 8 runs are the same, 8 are new, 4 are no "
        "longer part of it (they stay in the store)"
    ) in capsys.readouterr().err
    assert len(second) == 16
    kept = second[second.key.isin(first.key)]
    assert len(kept) == 8
    assert set(kept.started) <= set(first.started)
    # Back to the study as it was: nothing has to be run.
    assert plan(spec(), store=path).missing == 0
    pd.testing.assert_frame_equal(run(path), first)


def test_a_store_has_several_studies(tmp_path):
    path = tmp_path / "a.sqlite"
    run(path)
    other = run(path, spec(name="others", axes={"x": [0.5]}))
    # Runs that both have are stored once.
    assert set(other.seed) == {0, 1}
    assert len(read_store(path, "numbers")) == 12
    with pytest.raises(ValueError, match=r"study must be named; store .* has numbers, others"):
        read_store(path)
    with pytest.raises(ValueError, match=r"study='nobody' is unknown; store .* has numbers, oth"):
        read_store(path, "nobody")


def test_failed_runs_are_rows_and_can_be_retried(tmp_path):
    path = tmp_path / "a.sqlite"
    document = spec(fixed={"fails_at": 1.5})
    frame = run(path, document)
    failed = frame[frame.status == "failed"]
    assert set(failed.x) == {1.5}
    assert len(failed) == 4
    assert len(frame) == 12
    for reason in failed.reason:
        assert reason.startswith(
            "ArithmeticError: x is 1.5 and that is that (sweep_experiments.py:"
        )
    assert failed.value.isna().all()
    before = plan(document, store=path)
    assert (before.stored, before.failed, before.missing) == (8, 4, 0)
    assert plan(document, store=path, retry_failed=True).missing == 4
    again = run(path, document, retry_failed=True)
    assert (again.started > frame.started).tolist() == (frame.status == "failed").tolist()


def test_a_scalar_cannot_hide_a_setting(tmp_path):
    frame = run(tmp_path / "a.sqlite", spec(fixed={"shadows_at": 1.5}))
    failed = frame[frame.status == "failed"]
    assert set(failed.x) == {1.5}
    assert failed.reason.str.contains("scalar 'k' has the name of a setting or of a column").all()


def test_exports_read_back_exactly(tmp_path):
    frame = run(tmp_path / "a.sqlite")
    export(frame, csv=tmp_path / "a.csv", parquet=tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), frame)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as text:
        lines = list(csv.DictReader(text))
    for name in ("x", "value", "eigenvalue", "infinite"):
        assert [float(line[name]) for line in lines] == frame[name].tolist()
    assert list(tmp_path.glob(".*partial")) == []
    with pytest.raises(OSError, match="cannot be written"):
        export(frame, csv=tmp_path / "none" / "a.csv")


def test_two_studies_of_one_spec_export_the_same(tmp_path):
    names = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for name in names:
        export(steady(run(name.with_suffix(".sqlite"))), csv=name)
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_second_driver_is_refused_and_a_reader_is_not(tmp_path):
    path = tmp_path / "a.sqlite"
    run(path)
    with Store(path, write=True):
        with pytest.raises(StoreError, match=rf"is in use by process {os.getpid()} on .*; wait"):
            run(path)
        code = "import sys, reluflow as rf; rf.experiments.Store(sys.argv[1], write=True)"
        other = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
        )
        assert other.returncode == 1
        assert f"is in use by process {os.getpid()}" in other.stderr
        assert len(read_store(path)) == 12
    assert len(run(path)) == 12


def test_a_store_at_rest_is_one_file(tmp_path):
    path = tmp_path / "a.sqlite"
    frame = run(path)
    assert os.listdir(tmp_path) == ["a.sqlite"]
    export(read_store(path), csv=tmp_path / "a.csv")
    write_study_reports(path)
    assert plan(spec(), store=path).missing == 0
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.sqlite", "numbers-report"]
    # A reader tidies up what a killed driver left, and loses nothing of it.
    killed = tmp_path / "killed"
    killed.mkdir()
    with Store(path, write=True) as store:
        store.begin(read_study(spec()), list(read_study(spec()).runs()), "once more")
        for file in tmp_path.glob("a.sqlite*"):
            shutil.copy(file, killed)
    assert (killed / "a.sqlite-wal").stat().st_size > 0
    (killed / "a.sqlite-driver").unlink()
    pd.testing.assert_frame_equal(read_store(killed / "a.sqlite"), frame)
    assert os.listdir(killed) == ["a.sqlite"]
    with Store(killed / "a.sqlite") as store:
        assert store.study().command == "once more"


def test_a_reader_cannot_write(tmp_path):
    run(tmp_path / "a.sqlite")
    study = read_study(spec())
    with (
        Store(tmp_path / "a.sqlite") as store,
        pytest.raises(StoreError, match="could not be written: attempt to write a readonly"),
    ):
        store.begin(study, list(study.runs()), "a reader")


def test_one_holder_of_a_lock_at_a_time(tmp_path):
    holders, most = [], []

    def hold(_):
        for _ in range(100):
            try:
                lock = FileLock(tmp_path / "lock")
            except BlockingIOError:
                continue
            holders.append(1)
            most.append(len(holders))
            holders.pop()
            lock.release()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(4)))
    assert max(most) == 1
    assert os.listdir(tmp_path) == []


HOLDER = """
import os, sys, time
from pathlib import Path
from reluflow.experiments._lock import FileLock
lock = FileLock(Path(sys.argv[1]))
if not os.fork():
    # Said by the child: it has dropped the lock by then, and its parent has not waited for that.
    print(os.getpid(), flush=True)
    time.sleep(60)
os._exit(0)
"""


def test_a_lock_ends_with_its_process_whoever_was_forked_from_it(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        child = int(holder.stdout.readline())
        try:
            assert holder.wait() == 0
            assert path.exists()
            FileLock(path).release()
            assert not path.exists()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_damaged_store_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sqlite"
    run(path, spec(replicates=40))
    content = bytearray(path.read_bytes())
    assert len(content) > 40000
    content[4096:24000] = bytes(19904)
    path.write_bytes(content)
    for write in (False, True):
        with pytest.raises(StoreError, match=r"is damaged or no store .*; it was left as it is"):
            Store(path, write=write)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"x,y\n1,2\n" * 1000, b"SQLite format 3\x00" + b"\x01" * 500])
def test_what_is_no_store_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged or no store"):
        run(path)
    assert path.read_bytes() == content


def test_a_database_of_others_is_refused(tmp_path):
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE things (a)")
    other.close()
    with pytest.raises(StoreError, match="is a database, but not a store of studies"):
        run(path)


def test_a_missing_store_and_a_missing_folder_are_told(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        read_store(tmp_path / "none.sqlite")
    with pytest.raises(StoreError, match="cannot be written: there is no folder"):
        run(tmp_path / "none" / "a.sqlite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is read-only")
def test_a_read_only_store_is_read_but_not_written(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    run(folder / "a.sqlite")
    (folder / "a.sqlite").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert len(read_store(folder / "a.sqlite")) == 12
        with pytest.raises(StoreError, match="is read-only; make it and its folder writable"):
            run(folder / "a.sqlite")
    finally:
        folder.chmod(0o755)


def test_read_only_is_told_whoever_asks(tmp_path, monkeypatch):
    run(tmp_path / "a.sqlite")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(StoreError, match="is read-only; make it and its folder writable"):
        run(tmp_path / "a.sqlite")
    assert len(read_store(tmp_path / "a.sqlite")) == 12


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import reluflow as rf
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
document = {"name": "numbers", "experiment": "sweep_experiments:ARITHMETIC",
            "axes": {"x": {"linear": [0, 1], "count": 400}}}
try:
    rf.sweep(document, store=sys.argv[2], executor="threads", jobs=1, progress=False)
except OSError as error:
    print(type(error).__name__, error)
else:
    print("finished")
"""


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path):
    path = tmp_path / "a.sqlite"

    def limited(size):
        command = [sys.executable, "-c", FULL, str(HERE), str(path), str(size)]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    # The file may not grow beyond 400 kB, the study takes more.
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    told = limited(400_000)
    assert told.stdout.startswith("StoreError store"), told
    assert "the disk is full or failing" in told.stdout
    assert "every run that was stored is safe" in told.stdout
    assert told.stdout.count("\n") == 1
    stored = read_store(path)
    assert 0 < len(stored) < 400
    assert limited(2**40).stdout == "finished\n"
    resumed = read_store(path)
    assert len(resumed) == 400
    pd.testing.assert_frame_equal(
        resumed[resumed.key.isin(stored.key)].reset_index(drop=True), stored
    )


COMMAND = [sys.executable, "-m", "reluflow", "sweep"]


def told(study, store, **options):
    """What the command says on standard error, and its exit code."""
    ended = subprocess.run(
        [*COMMAND, study, "--store", store, "--jobs", "1", "--executor", "threads"],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return ended.stderr, ended.returncode


def test_what_disturbs_a_sweep_is_one_line_of_the_command(tmp_path):
    study, store = tmp_path / "numbers.toml", tmp_path / "a.sqlite"
    text = 'name = "numbers"\nexperiment = "sweep_experiments:ARITHMETIC"\n[axes]\nx = {}\n'
    study.write_text(text.format(list(range(400))))

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))

    line, code = told(study, store, preexec_fn=small_disk)
    assert code == 2
    assert line.startswith("reluflow: store ")
    assert "every run that was stored is safe" in line
    assert line.count("\n") == 1
    kept = read_store(store)
    assert 0 < len(kept) < 400
    study.write_text(text.format(list(range(10, 20))))
    line, code = told(study, store)
    assert code == 0
    assert line.startswith("the study was edited since it was last run: 10 runs are the same")
    assert line.count("\n") == 1
    content = store.read_bytes()
    store.write_bytes(content[:4096] + bytes(20_000) + content[24_096:])
    line, code = told(study, store)
    assert code == 2
    assert "is damaged or no store" in line
    assert line.count("\n") == 1
