"""What the machine has and what this process may use of it, from made-up system files too."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from drkun_tui import hardware, llama_build, profiles
from drkun_tui.commands import doctor
from drkun_tui.errors import EXIT_BAD_INPUT, DrkunError
from drkun_tui.hardware import Gpu, GpuUse, Hardware
from drkun_tui.i18n import t
from drkun_tui.profiles import GIB, Profile

CPUINFO = (
    "processor\t: 0\nmodel name\t: Made Up 9000\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nmodel name\t: Other\n"
)


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine of four hardware threads on two cores, 16 GiB, no GPU, no control group."""
    monkeypatch.setattr(hardware, "SYSTEM", "Linux")
    monkeypatch.setattr(hardware, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(hardware, "_nvidia", lambda: ([], "none"))
    put(tmp_path, "proc/cpuinfo", CPUINFO)
    put(tmp_path, "proc/meminfo", f"MemTotal: {16 * 1024**2} kB\nMemAvailable: {12 * 1024**2} kB\nOdd line\n")
    for cpu in range(4):
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/topology/core_id", f"{cpu // 2}\n")
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", "0\n")
    return tmp_path


def test_this_machine() -> None:
    here = hardware.read()
    assert here.cpu
    assert 1 <= here.physical_cores <= here.logical_cores <= (os.cpu_count() or 1)
    assert 0 < here.ram_available <= here.ram_total
    assert here.gpus or here.gpu_note


def test_looking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from drkun_tui import hardware, profiles; from drkun_tui.library import inventory;"
        "hardware.read(); heavy = {'torch', 'transformers', 'llama_cpp', 'numpy', 'gguf', 'textual', 'rich'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_plain_machine(root: Path) -> None:
    seen = hardware.read(root)
    assert seen.cpu == "Made Up 9000"
    assert (seen.physical_cores, seen.logical_cores) == (2, 4)
    assert (seen.ram_total, seen.ram_available) == (16 * GIB, 12 * GIB)
    assert seen.gpus == []
    assert seen.nvidia is None


def test_affinity_counts_cores_not_threads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_affinity", lambda: {0, 1})
    seen = hardware.read(root)
    assert (seen.physical_cores, seen.logical_cores) == (1, 2)


def test_without_topology_threads_count_as_cores(root: Path) -> None:
    for cpu in range(4):
        (root / f"sys/devices/system/cpu/cpu{cpu}/topology/core_id").unlink()
    assert hardware.read(root).physical_cores == 4


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 2), ("", 2)]
)
def test_cpu_quota_of_a_version_2_group(root: Path, quota: str, cores: int) -> None:
    put(root, "proc/self/cgroup", "0::/a/b\n")
    put(root, "sys/fs/cgroup/a/cpu.max", quota)
    assert hardware.read(root).physical_cores == cores


def test_memory_limits_of_a_version_2_group_and_those_above(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/a/b\n")
    put(root, "sys/fs/cgroup/a/b/memory.max", "max\n")
    put(root, "sys/fs/cgroup/a/memory.max", f"{4 * GIB}\n")
    put(root, "sys/fs/cgroup/a/memory.current", f"{3 * GIB}\n")
    put(root, "sys/fs/cgroup/a/memory.stat", f"anon 1\ninactive_file {GIB}\nbroken\n")
    seen = hardware.read(root)
    assert (seen.ram_total, seen.ram_available) == (4 * GIB, 2 * GIB)


def test_limits_of_version_1_groups_seen_from_inside_a_container(root: Path) -> None:
    # The path is the host's; the container's own files are at the mount's root.
    put(root, "proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n3:pids:/y\n\nodd\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{GIB}\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    seen = hardware.read(root)
    assert (seen.ram_total, seen.ram_available, seen.physical_cores) == (2 * GIB, GIB, 1)


def test_unlimited_groups_and_groups_out_of_sight_change_nothing(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/../../x\n1:cpu:/\n0::/\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    seen = hardware.read(root)
    assert (seen.ram_total, seen.ram_available, seen.physical_cores) == (16 * GIB, 12 * GIB, 2)


def test_an_amd_gpu(root: Path) -> None:
    for card, vendor in (("card0", "0x8086"), ("card1", "0x1002")):
        put(root, f"sys/class/drm/{card}/device/vendor", vendor)
        put(root, f"sys/class/drm/{card}/device/device", "0x744c")
        put(root, f"sys/class/drm/{card}/device/mem_info_vram_total", str(8 * GIB))
        put(root, f"sys/class/drm/{card}/device/mem_info_vram_used", str(GIB))
    seen = hardware.read(root)
    assert seen.gpus == [Gpu("AMD GPU 0x744c", 8 * GIB, 7 * GIB, "amdgpu", "amd")]
    usable, reason = profiles.availability(Profile.GPU8, seen)
    assert not usable
    # What works there is said, too.
    for part in ("AMD GPU 0x744c", "CPU", t("profile.remote")):
        assert part in reason
        assert part in profiles.choose(Profile.AUTO, seen, lambda _: 512, gguf=False).reason


def test_an_arm_machine_and_one_without_cpuinfo(root: Path, tmp_path: Path) -> None:
    arm = tmp_path / "arm"
    put(arm, "proc/cpuinfo", "processor: 0\nFeatures: fp asimd\nCPU implementer: 0x41\nCPU part: 0xd0c\n")
    assert "0x41/0xd0c" in hardware.read(arm).cpu
    assert hardware.read(tmp_path / "bare").cpu
    assert hardware.machine_key(arm) != hardware.machine_key(tmp_path / "bare")


def test_the_machine_key_depends_on_the_cpu_only(root: Path, tmp_path: Path) -> None:
    key = hardware.machine_key(root)
    assert len(key) == 16
    same = tmp_path / "same"
    put(same, "proc/cpuinfo", CPUINFO.replace("fpu avx2", "avx2 fpu"))
    assert hardware.machine_key(same) == key
    other = tmp_path / "other"
    put(other, "proc/cpuinfo", CPUINFO.replace("avx2", "amx_tile"))
    assert hardware.machine_key(other) != key


def test_other_systems(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "SYSTEM", "Darwin")
    monkeypatch.setattr(hardware, "_sysctl", lambda _: "Apple M9")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    seen = hardware.read(root / "empty")
    assert seen.cpu == "Apple M9"
    assert [gpu.vendor for gpu in seen.gpus] == ["apple"]
    assert seen.physical_cores >= 1


class FakeNvml:
    """NVML as ctypes sees it: two cards, of which the second is lost."""

    def __init__(self, init: int = 0, cards: int = 2, lost: Sequence[int] = (1,)) -> None:
        self.init, self.cards, self.lost, self.closed = init, cards, lost, False
        self.names: dict[int, bytes] = {}
        self.nvmlErrorString: Any = lambda _: b"Driver Not Loaded"

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.init

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.closed = True
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:  # noqa: N802
        text.value = b"570.1"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.cards
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        if index in self.lost:
            return 15
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 9
        return 0 if uuid == b"MIG-here" else 6

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: int) -> int:  # noqa: N802
        text.value = b"GPU-%d000" % handle.value
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: int) -> int:  # noqa: N802
        text.value = self.names.get(handle.value, b"NVIDIA Made Up")
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total, memory._obj.free = 24 * GIB, 20 * GIB
        memory._obj.used = handle.value * GIB
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, busy: Any) -> int:  # noqa: N802
        busy._obj.gpu = 10 * handle.value
        return 0

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, kind: int, megahertz: Any) -> int:  # noqa: N802
        megahertz._obj.value = 10_501 if kind == 2 else 2520
        return 0

    def nvmlDeviceGetMemoryBusWidth(self, handle: Any, bits: Any) -> int:  # noqa: N802
        bits._obj.value = 384
        return 0


def test_nvidia_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: fake)
    gpus, note = hardware._nvidia()
    # The figures of an RTX 4090, whose data sheet says 1,008 GB/s.
    assert gpus == [
        Gpu("NVIDIA Made Up", 24 * GIB, 20 * GIB, "nvidia 570.1", "nvidia", 1_008_096_000_000, "GPU-1000")
    ]
    assert note == ""
    assert fake.closed


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("2,0", ["GPU-3000", "GPU-1000"]),
        (" 1 ", ["GPU-2000"]),
        ("GPU-3", ["GPU-3000"]),
        ("GPU-2000,GPU-1000", ["GPU-2000", "GPU-1000"]),
        ("MIG-here", ["MIG-here"]),
        ("1,7,0", ["GPU-2000"]),
        ("MIG-gone,0", []),
        ("-1", []),
        ("", []),
        ("all", []),
    ],
)
def test_only_what_cuda_shows_to_this_process_counts(
    monkeypatch: pytest.MonkeyPatch, value: str, seen: list[str]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml(cards=3, lost=()))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    gpus, note = hardware._nvidia()
    assert [gpu.uuid for gpu in gpus] == seen
    assert ("CUDA_VISIBLE_DEVICES" in note) != bool(seen)


def test_numbers_name_no_card_where_cuda_may_count_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number 0 is the fastest card; NVML's the first on the bus."""
    fake = FakeNvml(cards=2, lost=())
    fake.names[1] = b"NVIDIA Slow"
    monkeypatch.setattr(ctypes, "CDLL", lambda _: fake)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert [gpu.uuid for gpu in hardware._nvidia()[0]] == [""]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [(gpu.uuid, gpu.name) for gpu in hardware._nvidia()[0]] == [("GPU-1000", "NVIDIA Slow")]


def test_what_the_card_of_the_model_does_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml(cards=3, lost=()))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert hardware.gpu_use("GPU-2000") == GpuUse(2 * GIB, 24 * GIB, 20)
    # One that is spread over all of them.
    assert hardware.gpu_use() == GpuUse(6 * GIB, 72 * GIB, 30)
    assert hardware.gpu_use("GPU-gone") is None


@pytest.mark.parametrize("fake", [FakeNvml(init=9), FakeNvml(cards=0), object()])
def test_nvml_that_does_not_work_gives_a_reason(monkeypatch: pytest.MonkeyPatch, fake: object) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: fake)
    gpus, note = hardware._nvidia()
    assert gpus == []
    assert note


@pytest.mark.gpu
def test_a_real_nvidia_gpu() -> None:
    card = hardware.read().nvidia
    if card is None:
        pytest.skip("no NVIDIA GPU here")
    assert 0 < card.free_bytes <= card.total_bytes


@pytest.mark.gpu
def test_what_a_real_gpu_does_now() -> None:
    use = hardware.gpu_use()
    if use is None:
        pytest.skip("no NVIDIA GPU here")
    assert 0 < use.used_bytes <= use.total_bytes
    assert 0 <= use.percent <= 100


def machine(*gpus: Gpu, ram: int = 16 * GIB) -> Hardware:
    return Hardware("cpu", 4, 8, ram, ram, list(gpus), "" if gpus else "No NVIDIA GPU.")


CARD = Gpu("NVIDIA Made Up", 24 * GIB, 20 * GIB, "nvidia 570.1", "nvidia")


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that count as installed, PyTorch with CUDA; change it at will."""
    there = {name for names in profiles.PACKAGES.values() for name in names}
    monkeypatch.setattr(profiles, "installed", lambda name: name in there)
    monkeypatch.setattr(profiles, "torch_has_cuda", lambda: True)
    return there


def test_profiles_say_truly_why_they_cannot_be_used(packages: set[str]) -> None:
    assert profiles.availability(Profile.CPU, machine())[0]
    assert profiles.availability(Profile.AUTO, machine(CARD))[0]
    assert profiles.availability(Profile.GPU8, machine()) == (False, "No NVIDIA GPU.")
    for profile in (Profile.GPU8, Profile.GPU16):
        usable, reason = profiles.availability(profile, machine(CARD))
        assert usable
        assert CARD.name in reason
    packages.remove("bitsandbytes")
    usable, reason = profiles.availability(Profile.GPU8, machine(CARD))
    assert not usable
    assert "bitsandbytes" in reason and "drkun[gpu]" in reason
    assert profiles.availability(Profile.GPU16, machine(CARD))[0]
    packages.remove("torch")
    assert "torch" in profiles.availability(Profile.GPU16, machine(CARD))[1]
    assert not profiles.availability(Profile.REMOTE, machine(CARD))[0]


def test_choosing_a_profile(packages: set[str]) -> None:
    def choose(wanted: Profile, *fitting: Profile, card: bool = True) -> Profile:
        own = machine(CARD) if card else machine()
        chosen = profiles.choose(wanted, own, lambda profile: profile in fitting, gguf=False)
        assert chosen.reason
        return chosen.profile

    assert choose(Profile.AUTO, Profile.GPU8, Profile.GPU16) is Profile.GPU16
    assert choose(Profile.AUTO, Profile.GPU8) is Profile.GPU8
    assert choose(Profile.AUTO) is Profile.CPU
    assert choose(Profile.AUTO, Profile.GPU16, card=False) is Profile.CPU
    assert choose(Profile.GPU8) is Profile.GPU8
    packages.remove("torch")
    assert choose(Profile.AUTO, Profile.GPU16) is Profile.CPU
    with pytest.raises(DrkunError) as caught:
        choose(Profile.GPU8, card=False)
    assert (caught.value.kind, caught.value.exit_code) == ("profile_unavailable", EXIT_BAD_INPUT)


@pytest.mark.parametrize(
    ("told", "cuda"),
    [
        ("__version__ = '2.13.0+cu126'\ncuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n", True),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda = None\nhip = '6.4'\n", False),
    ],
)
def test_a_pytorch_for_the_cpu_is_not_chosen_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, cuda: bool
) -> None:
    monkeypatch.setattr(profiles, "installed", lambda _: True)
    put(tmp_path, "torch/__init__.py", "raise ImportError('nobody imports it to find out')")
    put(tmp_path, "torch/version.py", told)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    profiles.torch_has_cuda.cache_clear()
    try:
        chosen = profiles.choose(Profile.AUTO, machine(CARD), lambda _: 512, gguf=False)
        assert chosen.profile is (Profile.GPU16 if cuda else Profile.CPU)
        findings = {finding.name: finding for finding in doctor._torch()}
        assert findings["torch"].state == "ok"
        monkeypatch.setattr(hardware, "read", lambda: machine(CARD))
        findings = {finding.name: finding for finding in (*doctor._torch(), *doctor._profiles())}
        for name in ("torch", "profile gpu8", "profile gpu16"):
            finding = findings[name]
            assert finding.state == ("ok" if cuda else "warning")
            assert ("pytorch.org" in finding.text + finding.hint) != cuda
        assert "pytorch.org" in chosen.reason or cuda
    finally:
        profiles.torch_has_cuda.cache_clear()


def test_a_longer_context_is_worth_more_than_precise_weights(packages: set[str]) -> None:
    def choose(gpu16: int, gpu8: int) -> Profile:
        tokens = {Profile.GPU16: gpu16, Profile.GPU8: gpu8}
        return profiles.choose(
            Profile.AUTO, machine(CARD), lambda profile: tokens[profile], gguf=False
        ).profile

    assert choose(8192, 8192) is Profile.GPU16
    assert choose(768, 8192) is Profile.GPU8
    assert choose(2048, 1024) is Profile.GPU16
    assert choose(0, 512) is Profile.GPU8
    assert choose(0, 0) is Profile.CPU


def test_a_gguf_runs_where_llama_cpp_was_built_for(packages: set[str], built: Callable[[str], None]) -> None:
    def choose(wanted: Profile, *, fits: bool = True, card: bool = True) -> profiles.Choice:
        own = machine(CARD) if card else machine()
        return profiles.choose(wanted, own, lambda _: fits, gguf=True)

    for wanted in (Profile.AUTO, Profile.GPU16, Profile.CPU):
        assert choose(wanted).profile is Profile.CPU
    assert "GGUF" in choose(Profile.GPU16).reason and "doctor" in choose(Profile.GPU16).reason
    built("cuda")
    packages.clear()
    assert choose(Profile.AUTO).profile is Profile.GPU16
    assert choose(Profile.GPU8).profile is Profile.GPU8
    assert choose(Profile.AUTO, fits=False).profile is Profile.CPU
    assert choose(Profile.AUTO, card=False).profile is Profile.CPU
    assert CARD.name in choose(Profile.AUTO).reason
    with pytest.raises(DrkunError):
        choose(Profile.GPU16, card=False)
    with pytest.raises(DrkunError):
        profiles.choose(Profile.GPU16, machine(CARD), lambda _: True, gguf=False)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts another build of llama.cpp in the place of the installed one."""
    lib = tmp_path / "llama_cpp" / "lib"
    lib.mkdir(parents=True)
    (lib.parent / "__init__.py").touch()
    (lib / "libggml-cpu.so").touch()
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda backend: (lib / f"libggml-{backend}.so").touch()


def test_which_llama_cpp_is_installed(built: Callable[[str], None]) -> None:
    assert llama_build.gpu_backend() == ""
    built("vulkan")
    assert llama_build.gpu_backend() == "Vulkan"
    built("cuda")
    assert llama_build.gpu_backend() == "CUDA"


def test_budgets() -> None:
    assert profiles.budget(Profile.CPU, machine(ram=3 * GIB)) == 3 * GIB
    assert profiles.budget(Profile.GPU8, machine()) == 7.5 * GIB
    assert profiles.budget(Profile.GPU16, machine()) == 15 * GIB
    assert profiles.budget(Profile.GPU8, machine(CARD)) == 7.5 * GIB
    assert profiles.budget(Profile.GPU16, machine(CARD)) == 20 * GIB
