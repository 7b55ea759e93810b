"""KVM is believed only when it has proved itself, and the reason is said in words."""

from types import SimpleNamespace

import pytest

from firebrick.machine import accel
from firebrick.machine.accel import Acceleration, Accelerator, judge


def test_fast_as_hardware_is_kvm_still_to_be_proven():
    choice = judge(0.3)
    assert choice.accelerator is Accelerator.KVM
    assert not choice.proven


def test_an_emulating_kvm_is_not_used():
    choice = judge(54.0)
    assert choice.accelerator is Accelerator.TCG
    assert "took 54 ms" in choice.reason
    assert "emulates each instruction" in choice.reason


@pytest.fixture
def fast(monkeypatch):
    async def probe():
        return judge(0.3)

    monkeypatch.setattr(accel, "probe", probe)


async def test_a_machine_that_answers_proves_kvm_and_the_answer_is_kept(tmp_path, fast):
    first = Acceleration(tmp_path, "7.2")
    assert (await first.choose()).accelerator is Accelerator.KVM
    first.started()
    again = Acceleration(tmp_path, "7.2")
    assert (await again.choose()).proven
    assert not again.stayed_silent(60), "a machine that is silent under a proven accelerator has another cause"
    assert (await again.choose()).accelerator is Accelerator.KVM


async def test_a_silent_first_machine_falls_back_once(tmp_path, fast):
    first = Acceleration(tmp_path, "7.2")
    await first.choose()
    assert first.patience(60) == 15
    assert first.stayed_silent(15)
    assert first.patience(60) == 60
    assert not first.stayed_silent(15)
    again = await Acceleration(tmp_path, "7.2").choose()
    assert again.accelerator is Accelerator.TCG
    assert "did not come up in 15 s" in again.reason


async def test_another_qemu_is_asked_afresh(tmp_path, fast):
    first = Acceleration(tmp_path, "7.2")
    await first.choose()
    first.stayed_silent(15)
    assert (await Acceleration(tmp_path, "9.1").choose()).accelerator is Accelerator.KVM


async def test_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr(accel, "KVM", tmp_path / "kvm")
    choice = await accel.probe()
    assert choice.accelerator is Accelerator.TCG
    assert "/dev/kvm does not exist" in choice.reason


async def test_no_permission(tmp_path, monkeypatch):
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "KVM", device)
    monkeypatch.setattr(accel.os, "access", lambda *_: False)
    choice = await accel.probe()
    assert "may not open /dev/kvm (permission denied)" in choice.reason


@pytest.mark.parametrize(
    ("times", "accelerator", "asked"),
    [
        ([300.0], Accelerator.KVM, 1),
        ([7000.0, 400.0], Accelerator.KVM, 2),
        ([54000.0, 60000.0, 53000.0, 1.0], Accelerator.TCG, 3),
    ],
)
async def test_a_busy_host_is_asked_again(monkeypatch, times, accelerator, asked):
    left = list(times)

    async def run(argv, *, timeout):
        return SimpleNamespace(text=f"{left.pop(0)}\n")

    monkeypatch.setattr(accel, "_obstacle", lambda: "")
    monkeypatch.setattr(accel, "run", run)
    choice = await accel.probe()
    assert (choice.accelerator, len(times) - len(left)) == (accelerator, asked)
