"""Ctrl-C, SIGTERM and SIGHUP: one line, the code that shells expect, nothing left behind."""

import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from ultralytics.utils import callbacks

from tests.engine.test_engine import RUN, TINY
from tests.support.kills import CONTEXT
from tinyyolo import Model, cli
from tinyyolo.engine import checkpoint
from tinyyolo.engine.stopping import stoppable

LIMIT = 60  # s


def command(words, workers, stderr):
    """`tinyyolo WORDS` in a session of its own, as a terminal starts it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup without this
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(2, 1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    callbacks.default_callbacks["on_pretrain_routine_start"].append(lambda t: setattr(t.args, "workers", workers))
    sys.exit(cli.main(words))


def of_session(leader):
    """Processes of a session that run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass  # it has ended meanwhile
    return found


def until(ready, what):
    start = time.monotonic()
    while not ready():
        assert time.monotonic() - start < LIMIT, what
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "workers", "whole_group"),
    [
        pytest.param(signal.SIGINT, 130, 2, True, marks=pytest.mark.slow),
        (signal.SIGTERM, 143, 2, False),
        pytest.param(signal.SIGHUP, 129, 0, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, 2, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_command_in_the_line_that_resumes(
    tiny_set, tmp_path, request, number, code, workers, whole_group
):
    words = [f"{key}={value}" for key, value in {**RUN, **TINY, "epochs": 500, "save_every": 1}.items()]
    words = ["train", f"data={tiny_set}", f"project={tmp_path / 'my-runs'}", *words]
    log, last = tmp_path / "log", tmp_path / "my-runs" / "train" / "weights" / "last.pt"
    process = CONTEXT.Process(target=command, args=([word.replace(" ", "") for word in words], workers, log))
    process.start()
    request.addfinalizer(process.kill)  # or a failed test would wait for it at the end
    until(last.exists, "no checkpoint")
    assert len(of_session(process.pid)) == 1 + workers or workers, "the processes that load images"
    (os.killpg if whole_group else os.kill)(process.pid, number)
    process.join(LIMIT)
    assert process.exitcode == code
    text = log.read_text(errors="replace")
    line = text.strip().splitlines()[-1]
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert line == f"tinyyolo: stopped by {name}; go on with: tinyyolo train {shlex.quote(f'resume={last}')}"
    assert "Traceback" not in text and "Exception" not in text
    until(lambda: not of_session(process.pid), "processes are left")
    assert not [path for path in tmp_path.rglob(".*")]
    assert checkpoint.load(last)["resume"]


def during(number, handler, work):
    before = signal.signal(number, handler)
    try:
        return work()
    finally:
        signal.signal(number, before)


@pytest.fixture(autouse=True)
def ctrl_c():
    """As at a terminal: a shell starts what it puts into the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestHandlers:
    def test_ctrl_c_stays_a_keyboard_interrupt(self, tiny_set):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.add_callback("on_train_batch_start", lambda t: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match=r"^stopped by Ctrl-C; nothing has been saved yet$"):
            model.train(data=tiny_set, **RUN)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before

    def test_a_loader_that_lost_its_training_says_nothing(self, monkeypatch):
        """multiprocessing gives what its threads meet to sys.excepthook, in the processes that load images too."""
        heard, before = [], sys.excepthook
        monkeypatch.setattr(sys, "excepthook", lambda kind, *_: heard.append(kind))
        with stoppable(lambda: "never"):
            sys.excepthook(ConnectionResetError, ConnectionResetError(), None)
            monkeypatch.setattr(os, "getpid", lambda: -1)
            sys.excepthook(ConnectionResetError, ConnectionResetError(), None)
            sys.excepthook(OSError, OSError(9, "Bad file descriptor"), None)
            monkeypatch.undo()
        assert heard == [ConnectionResetError]
        sys.excepthook = before

    def test_what_somebody_ignores_or_handles_is_left_alone(self):
        heard = []

        def work():
            with stoppable(lambda: "never"):
                os.kill(os.getpid(), signal.SIGHUP)
                return True

        assert during(signal.SIGHUP, signal.SIG_IGN, work), "as nohup asks for"
        assert during(signal.SIGHUP, lambda *_: heard.append(1), work) and heard == [1]

    def test_a_second_signal_does_not_disturb_the_tidying_up(self):
        tidied = []

        def work():
            with stoppable(lambda: "so"):
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(1)
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)
                    tidied.append(True)

        with pytest.raises(SystemExit) as caught:
            during(signal.SIGTERM, signal.SIG_DFL, work)
        assert caught.value.code == 143 and tidied

    def test_nothing_is_installed_in_another_thread(self):
        seen = []

        def work():
            with stoppable(lambda: "never"):
                seen.append(signal.getsignal(signal.SIGTERM))

        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [before]


def test_the_command_of_a_path_with_blanks(tmp_path):
    from tinyyolo.engine.stopping import command as words

    path = Path("my runs/it's/last.pt")
    assert shlex.split(words(path)) == ["tinyyolo", "train", f"resume={path}"]
