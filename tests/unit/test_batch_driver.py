"""The driver with workers that only pretend: states, tries, a full disk, ^C, thousands of jobs."""

import json
import platform
import threading
import time
from pathlib import Path

import psutil
import pytest

from liveditor.batch import driver as drivers
from liveditor.batch import living
from liveditor.batch.driver import Driver
from liveditor.batch.errors import (
    BatchError,
    DiskFull,
    Interrupted,
    JobFailed,
    PromptRefused,
    ServerDidNotStart,
    ServerDied,
    WorkerDied,
)
from liveditor.batch.graph import DEFAULT, read_graph
from liveditor.batch.jobs import Job
from liveditor.batch.journal import DONE, FAILED, QUEUED, RUNNING, Journal
from liveditor.batch.worker import Result, Worker


class Silent:
    """Shows nothing, and remembers what was said."""

    def __init__(self):
        self.lines = []

    def begin(self, *_):
        pass

    def step(self, *_):
        pass

    def end(self, worker, name, message, ended):
        self.lines.append((name, message, ended))

    def say(self, line):
        self.lines.append(line)


class Pretender:
    """A worker that answers as it is told, by the stem of the clip's name; what it does not know succeeds."""

    def __init__(self, name="w", answers=(), seconds=0.0):
        self.name, self.answers, self.seconds, self.ran = name, dict(answers), seconds, []
        self.interrupted, self.place = threading.Event(), None

    def is_ready(self):
        return self.place is None or self.place()

    def run(self, task, on_progress):
        stem = task.result.rpartition("/")[2].partition("--")[0]
        self.ran.append(stem)
        answer = self.answers.get(stem)
        if callable(answer):
            answer = answer(self)
        if answer is not None:
            raise answer
        time.sleep(self.seconds)
        with open(f"{task.result}.mp4", "w") as file:
            file.write("edited")
        return Result(f"{task.result}.mp4", 6, 0.01, "time: 1.50 s per step")

    def interrupt(self):
        self.interrupted.set()

    def close(self, now=False):
        pass


@pytest.fixture
def batch(tmp_path):
    """A function that makes a driver for jobs with clips of these names, and plans them."""
    opened = []

    def end():
        while opened:
            opened.pop().close()

    def batch(names="abc", left_free=0, contents={}):  # noqa: B006
        end()
        clips = tmp_path / "clips"
        clips.mkdir(exist_ok=True)
        jobs = []
        for name in names:
            (clips / f"{name}.mp4").write_text(contents.get(name, name))
            jobs.append(Job(clips / f"{name}.mp4", "snow", {}))
        made = Driver(tmp_path / "out", read_graph(DEFAULT), [], left_free=left_free, silence=60, see=Silent())
        opened.append(made)
        made.plan(jobs)
        return made

    batch.end = end
    batch.another = lambda: Driver(tmp_path / "out", read_graph(DEFAULT), [], left_free=0, silence=60, see=Silent())
    yield batch
    end()


def states(driver):
    return {row["name"].partition("--")[0]: row["state"] for row in driver.journal.all()}


def test_all_are_done_once_and_never_again(batch):
    driver, workers = batch("abcdef"), [Pretender("1"), Pretender("2")]
    assert driver.run(workers) == "" and set(states(driver).values()) == {DONE}
    assert sorted(workers[0].ran + workers[1].ran) == list("abcdef")
    again = Pretender()
    assert batch("abcdefg").run([again]) == "" and again.ran == ["g"]


def test_a_result_that_is_gone_or_changed_is_made_anew(batch):
    driver = batch()
    driver.run([Pretender()])
    first, second, _ = (driver.out / row["result"] for row in driver.journal.all())
    first.unlink()
    second.write_text("half")
    worker = Pretender()
    batch().run([worker])
    assert worker.ran == ["a", "b"]


def test_a_failed_job_is_reported_and_the_others_are_done(batch):
    driver = batch()
    driver.run([Pretender(answers={"b": JobFailed("LoadVideo: no video")})])
    assert states(driver) == {"a": DONE, "b": FAILED, "c": DONE}
    (row,) = [row for row in driver.journal.all() if row["state"] == FAILED]
    assert row["message"] == "LoadVideo: no video" and row["attempts"] == 1
    worker = Pretender()
    batch().run([worker])
    assert worker.ran == [], "it would fail again"


def test_a_failed_job_goes_when_its_clip_is_another_one(batch):
    driver = batch()
    driver.run([Pretender(answers={"b": JobFailed("LoadVideo: no video")})])
    driver = batch(contents={"b": "a good clip", "c": "another clip"})
    assert driver.run([Pretender()]) == ""
    rows = [(row["name"].partition("--")[0], row["state"]) for row in driver.journal.all()]
    assert sorted(rows) == [("a", DONE), ("b", DONE), ("c", DONE), ("c", DONE)], "what is done stays"


@pytest.mark.parametrize("error", [ServerDied, WorkerDied])
def test_a_job_that_kills_workers_is_given_up_after_three(batch, error):
    driver, worker = batch(), Pretender(answers={"a": error("the server ended")})
    assert driver.run([worker]) == ""
    assert worker.ran.count("a") == 3 and states(driver) == {"a": FAILED, "b": DONE, "c": DONE}
    assert "given up after 3 workers or servers ended with it; the last: the server ended" in [
        row["message"] for row in driver.journal.all()
    ]
    driver.journal.retry(next(row["key"] for row in driver.journal.all() if row["state"] == FAILED))
    worker = Pretender()
    batch().run([worker])
    assert worker.ran == ["a"]


def test_a_worker_whose_server_does_not_start_gives_its_jobs_to_the_others(batch):
    def fails(worker):
        return ServerDidNotStart("no GPU") if worker.name == "broken" else None

    answers = dict.fromkeys("abc", fails)
    broken, sound = Pretender("broken", answers), Pretender("sound", answers, seconds=0.05)
    driver = batch()
    assert driver.run([broken, sound]) == "" and set(states(driver).values()) == {DONE}
    assert len(broken.ran) == 2
    driver = batch("xyz")
    assert driver.run([Pretender("broken", dict.fromkeys("xyz", fails))]) == "no worker is left"
    assert [states(driver)[name] for name in "xyz"] == [QUEUED] * 3


def test_a_worker_without_a_place_takes_no_job(batch, monkeypatch):
    monkeypatch.setattr(drivers, "SAY_AFTER", 0.0)
    driver, sound, homeless = batch("abcdef"), Pretender("1", seconds=0.02), Pretender("2")
    homeless.place = lambda: False
    assert driver.run([homeless, sound]) == "" and len(sound.ran) == 6 and homeless.ran == []
    driver, late = batch("uvwxyz"), Pretender("2")
    late.place = lambda: len(sound.ran) > 7
    driver.run([late, sound])
    assert late.ran and len(late.ran) + len(sound.ran) == 12
    assert "2 waits for a place" in driver._see.lines


def test_a_worker_whose_place_never_comes_holds_nobody_up(batch):
    def gives_up():
        raise ServerDidNotStart("no place")

    asked, sound, homeless = threading.Event(), Pretender("1"), Pretender("2")
    homeless.place = lambda: asked.wait(5)
    threading.Thread(target=lambda: time.sleep(1) or asked.set(), daemon=True).start()
    driver = batch()
    sound.answers = dict.fromkeys("abc", lambda _: RuntimeError("it had to wait") if asked.is_set() else None)
    assert driver.run([homeless, sound]) == "" and sound.ran == list("abc")
    homeless.place, driver = gives_up, batch("xyz")
    assert driver.run([homeless, sound]) == "" and "2 is given up: no place" in driver._see.lines
    assert batch("uvw").run([homeless]) == "no worker is left"


@pytest.mark.parametrize("where", ["at a job", "without a place"])
def test_a_lost_cluster_ends_the_batch_and_loses_nothing(batch, where):
    def lost(*_):
        raise BatchError("the cluster is lost")

    driver, worker = batch(), Pretender(answers={"b": lost} if where == "at a job" else {})
    worker.place = (lambda: True) if where == "at a job" else lambda: lost() if worker.ran else True
    assert driver.run([worker]) == "the cluster is lost"
    assert states(driver) == {"a": DONE, "b": QUEUED, "c": QUEUED}
    assert not any(row["deaths"] for row in driver.journal.all())


def test_a_full_disk_stops_the_batch_and_loses_nothing(batch, monkeypatch):
    driver = batch()
    why = driver.run([Pretender(answers={"b": DiskFull("the disk is full: [Errno 28]")})])
    assert why == "the disk is full: [Errno 28]. Make room and start again: it goes on."
    assert states(driver) == {"a": DONE, "b": QUEUED, "c": QUEUED}
    driver = batch(left_free=1 << 60)
    worker = Pretender()
    assert "are free on the disk" in driver.run([worker]) and worker.ran == []
    driver = batch()
    assert driver.run([worker]) == "" and worker.ran == ["b", "c"]


@pytest.mark.parametrize(
    "said",
    [
        "SaveVideo: [Errno 28] No space left on device",
        "Decode Video: needs 1.2 GB in /temp for 9 frames on their way, got 0.3 GB free.",
    ],
)
def test_words_for_a_full_disk_from_a_node_are_understood(tmp_path, said):
    class Server:
        folder = input = tmp_path

        def start(self):
            pass

        def nodes(self):
            return {}

        def run(self, *_):
            raise JobFailed(said)

    (tmp_path / "clip.mp4").write_text("clip")
    task = drivers.Task("key", str(tmp_path / "clip.mp4"), read_graph(DEFAULT), (), str(tmp_path / "result"), 60)
    with pytest.raises(DiskFull):
        Worker(Server()).run(task, None)
    said = said.replace("1.2 GB", "1e+09 GB")
    with pytest.raises(JobFailed if "1e+09" in said else DiskFull):  # no disk holds that: the others are done
        Worker(Server()).run(task, None)
    with pytest.raises(JobFailed, match="FileNotFoundError"):
        Worker(Server()).run(task._replace(clip=str(tmp_path / "gone.mp4")), None)


def test_a_folder_of_results_that_is_renamed_meanwhile(batch):
    driver = batch()

    def fails(worker):
        driver.out.rename(driver.out.with_name("renamed"))
        return JobFailed("FileNotFoundError: no such folder")

    why = driver.run([Pretender(answers={"b": fails})])
    assert why.startswith(f"{driver.out}: the folder of the results is gone")
    driver.out.with_name("renamed").rename(driver.out)
    assert states(driver) == {"a": DONE, "b": QUEUED, "c": QUEUED}


def test_what_an_ended_driver_had_begun_is_queued_again(batch):
    driver = batch()
    row = driver.journal.take("w", driver.keys)
    assert driver.journal.of(row["key"])["state"] == RUNNING
    part, other = driver.out / f"{row['name']}.mp4.part", driver.out / "somebody's.mp4.part"
    part.write_text("half")
    other.write_text("half")
    worker, driver = Pretender(), batch()
    assert not part.exists() and other.exists()
    driver.run([worker])
    assert worker.ran == ["a", "b", "c"]


def test_stopping_interrupts_what_is_at_work_and_keeps_its_place(batch, monkeypatch):
    def waits(worker):
        assert worker.interrupted.wait(10)
        return Interrupted()

    driver, worker = batch(), Pretender(answers={"a": waits})
    sleep, calls = time.sleep, []

    def once(seconds):
        calls.append(seconds)
        if len(calls) == 3:
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(drivers.time, "sleep", once)
    assert driver.run([worker]) == "stopped"
    assert set(states(driver).values()) == {QUEUED} and worker.ran == ["a"]


def test_one_folder_has_one_driver(batch, tmp_path):
    batch()
    with pytest.raises(BatchError, match="another batch is at work"):
        Driver(tmp_path / "out", read_graph(DEFAULT), [], left_free=0, silence=60, see=Silent())


def test_the_same_job_twice_is_one(batch):
    driver = batch("a")
    job = Job(driver.out.parent / "clips" / "a.mp4", "snow", {})
    ((clip, name),) = driver.plan([job, job])
    assert clip == "a.mp4" and [row["name"] for row in driver.journal.all()] == [name]


def test_an_error_that_nobody_thought_of_ends_the_batch_and_loses_nothing(batch):
    driver = batch("abcd")
    why = driver.run(
        [Pretender("1", {"a": RuntimeError("odd"), "b": RuntimeError("odd")}), Pretender("2", seconds=0.2)]
    )
    assert why == "1: RuntimeError: odd" and RUNNING not in states(driver).values()
    worker = Pretender()
    again = batch("abcd")
    assert again.run([worker]) == "" and set(states(again).values()) == {DONE}
    assert {"a", "b"} & set(worker.ran), "whichever of them the first worker had"


def test_results_are_found_again_behind_a_link(batch, tmp_path):
    deep = tmp_path / "far" / "away" / "and" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "out").symlink_to(deep)
    batch().run([Pretender()])
    worker = Pretender()
    batch().run([worker])
    assert worker.ran == [] and len(list(deep.glob("*.mp4"))) == 3


def test_a_page_that_cannot_be_written_stops_nothing(batch, monkeypatch):
    def fails(*_):
        raise PermissionError("open in another program")

    monkeypatch.setattr(drivers, "write_table", fails)
    monkeypatch.setattr(drivers, "PAGE_EVERY", 0.0)
    driver = batch()
    assert driver.run([Pretender(seconds=0.2)]) == "" and set(states(driver).values()) == {DONE}
    batch.end()
    assert [line for line in driver._see.lines if "open in another program" in line] == [
        "open in another program; tried again until it can be written"
    ]


@pytest.mark.parametrize("boot", [None, "/nowhere/boot_id"])  # some containers have none
def test_a_driver_that_lives_is_known_whatever_the_clock_says(batch, monkeypatch, boot):
    monkeypatch.setattr(living, "BOOT", Path(boot) if boot else living.BOOT)
    batch()
    later = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: later(process) + 60)
    with pytest.raises(BatchError, match="another batch is at work"):
        batch.another()


def test_a_lock_of_another_machine_is_left_alone(batch, tmp_path):
    batch()
    batch.end()
    (tmp_path / "out" / ".batch" / "driver.lock").write_text('{"machine": "another", "pid": 1, "created": 0}')
    with pytest.raises(BatchError, match="another batch is at work"):
        batch()
    (tmp_path / "out" / ".batch" / "driver.lock").write_text("half")
    batch()
    batch.end()
    me = psutil.Process()
    earlier = {"machine": platform.node(), "pid": me.pid, "created": me.create_time()}  # as versions of before wrote it
    (tmp_path / "out" / ".batch" / "driver.lock").write_text(json.dumps(earlier))
    with pytest.raises(BatchError, match="another batch is at work"):
        batch()
    (tmp_path / "out" / ".batch" / "driver.lock").write_text(json.dumps(earlier | {"created": 5}))
    batch()


def test_another_program_may_read_the_journal(batch, tmp_path):
    driver = batch()
    other = Journal(tmp_path / "out" / ".batch")
    driver.run([Pretender()])
    assert other.counts()[DONE] == 3
    other.close()


def test_two_thousand_jobs_are_quick_and_need_no_more_memory(batch):
    names, worker, memory = [f"clip{i:04}" for i in range(2000)], Pretender(seconds=0.01), []
    driver = batch(names)
    run = worker.run

    def measured(*arguments):
        if len(worker.ran) in (200, 1999):
            memory.append(psutil.Process().memory_info().rss)
        return run(*arguments)

    worker.run = measured
    started = time.perf_counter()
    driver.run([worker])
    each = (time.perf_counter() - started) / len(names)
    assert set(states(driver).values()) == {DONE}
    assert each - worker.seconds < 0.015, f"{each:.4f} s a job"  # 0.002 on an idle machine
    assert memory[1] - memory[0] < 32 << 20
    batch.end()
    table = (driver.out / "results.csv").read_text(encoding="utf-8")
    assert table.startswith("\ufeffname,") and table.count(",done,") == len(names)


def refused(kind, name):
    return PromptRefused(f"{kind}: Value not in list: {name}", [("models", kind, name)])


def test_what_no_job_can_be_done_without_ends_the_batch(batch):
    driver = batch("abc")
    worker = Pretender(answers={"a": refused("LoadLIVEditor", "checkpoint")})
    assert driver.run([worker]) == "no job can be done: LoadLIVEditor: Value not in list: checkpoint"
    assert worker.ran == ["a"] and set(states(driver).values()) == {QUEUED}


def test_what_only_a_job_is_refused_for_is_its_own_fault(batch, tmp_path):
    driver = batch("ab")
    clips, seeds = tmp_path / "clips", {"LIVEditSampler.seed": -1}
    driver.plan([Job(clips / "a.mp4", "snow", {}), Job(clips / "b.mp4", "snow", seeds)])
    answers = {"a": refused("LoadVideo", "file"), "b": refused("LIVEditSampler", "seed")}
    assert driver.run([Pretender(answers=answers)]) == ""
    assert {row["state"] for row in driver.journal.all() if row["key"] in driver.keys} == {FAILED}
