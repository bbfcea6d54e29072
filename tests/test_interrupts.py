"""Ctrl-C is not lost where compiled code swallows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from zoo import interrupts
from zoo.store import reading


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # Python looks for signals between instructions
        pass


def test_a_swallowed_interrupt_is_remembered_until_the_end():
    with interrupts.remembered():
        interrupts.require_none()
        with pytest.raises(KeyboardInterrupt):
            press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.require_none()
        swallowed = ValueError("could not determine the shape")
        meant = interrupts.meant(swallowed)
        assert isinstance(meant, KeyboardInterrupt)
        assert meant.__cause__ is swallowed
        told = KeyboardInterrupt()
        assert interrupts.meant(told) is told
        with interrupts.remembered(), pytest.raises(KeyboardInterrupt):
            interrupts.require_none()  # the inner one does not forget what the outer one knows
    interrupts.require_none()
    assert interrupts.meant(swallowed) is swallowed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handlers_of_others_and_other_threads_are_left_alone():
    def other(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGINT, other)
    try:
        with interrupts.remembered():
            assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, before)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with interrupts.remembered():
                interrupts.require_none()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize("answer", ["raise ValueError('no shape')", "pass"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_training_ends_as_interrupted_whatever_became_of_ctrl_c(answer: str, replicas: int, tmp_path: Path) -> None:
    """The loss stands for compiled code that asks Python something and takes any exception for an answer."""
    training = f"""
        import os, signal, sys
        from zoo.engine import replicas, training
        from zoo.launch import command

        def swallowing(compute):
            def computed(*given):
                count.append(1)
                if len(count) == 5:
                    try:
                        os.kill(os.getpid(), signal.SIGINT)
                        for _ in range(1000):
                            pass
                    except KeyboardInterrupt:
                        {answer}
                return compute(*given)
            return computed

        count = []
        training.loss_of, replicas._losses = swallowing(training.loss_of), swallowing(replicas._losses)
        sys.exit(command(sys.argv[1:]))
    """
    words = ["model=mlp", "dropout=0", "task=image_classification", "dataset=digits", "epochs=50", "patience=null"]
    words += [f"replicas={replicas}"] if replicas > 1 else []
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(training), *words], cwd=tmp_path,
        env={**os.environ, "ZOO_CACHE": str(tmp_path / "cache")}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == "Interrupted.\n"
    assert done.returncode in (130, -signal.SIGINT)
    runs = list(reading.runs(tmp_path / "runs"))
    assert len(runs) == replicas
    for run in runs:
        assert (run.status, run.record["interrupted"]) == ("failed", True)
        assert run.record["error"]["type"] == "KeyboardInterrupt"
