"""What this machine has: cores, memory, GPUs; what this process may use of them.

Nothing heavy is imported: NVIDIA's management library is asked through ctypes, everything else is read
from the system's own files. Free memory is read anew each time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from drkun_tui.i18n import t

ROOT = Path("/")

VISIBLE = "CUDA_VISIBLE_DEVICES"

SYSTEM = platform.system()
"""``"Linux"``, ``"Darwin"`` or ``"Windows"``."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator; memory in bytes, `free_bytes` as of when it was read."""

    name: str
    total_bytes: int
    free_bytes: int
    driver: str
    """E.g. ``"nvidia 570.86"``, ``"amdgpu"``, ``"metal"``."""
    vendor: Literal["nvidia", "amd", "apple"]
    bandwidth: int = 0
    """Of its memory, nominal, bytes a second; 0 is unknown."""
    uuid: str = ""
    """By which ``CUDA_VISIBLE_DEVICES`` names it; "" is unknown."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """This machine as this process may use it; memory in bytes."""

    cpu: str
    physical_cores: int
    """Cores that this process may use at once: by affinity and by the CPU quota of its control group."""
    logical_cores: int
    """Hardware threads that this process may run on."""
    ram_total: int
    """Of the machine, or of the control group's limit where that is lower."""
    ram_available: int
    """What can be taken now without swapping."""
    gpus: list[Gpu] = field(default_factory=list)
    """NVIDIA's first, of which only those that CUDA shows to this process."""
    gpu_note: str = ""
    """Why no NVIDIA GPU is listed, one sentence; "" when one is."""

    @property
    def nvidia(self) -> Gpu | None:
        """The NVIDIA GPU with the most free memory."""
        cards = [gpu for gpu in self.gpus if gpu.vendor == "nvidia"]
        return max(cards, key=lambda gpu: gpu.free_bytes, default=None)


def read(root: Path = ROOT) -> Hardware:
    """Look at this machine, in some milliseconds.

    Args:
        root: where ``proc`` and ``sys`` are; a test's own tree, else "/".
    """
    total, available = _memory(root)
    for limit, free in _memory_limits(root):
        total, available = min(total, limit), min(available, free)
    logical = len(_affinity())
    physical = _physical_cores(root) or logical
    quota = min(_cpu_quotas(root), default=float(logical))
    gpus, note = _nvidia()
    return Hardware(
        cpu=_cpu(root)[0],
        # Rounded down: a thread more than the quota spends its time being throttled.
        physical_cores=max(1, min(physical, logical, int(quota))),
        logical_cores=logical,
        ram_total=total,
        ram_available=available,
        gpus=[*gpus, *_amd(root), *_apple(total, available)],
        gpu_note=note,
    )


def machine_key(root: Path = ROOT) -> str:
    """Names this kind of machine, the same at every start: sixteen hexadecimal digits from the CPU's
    name and features, the operating system and the architecture. No serial number goes in."""
    name, features = _cpu(root)
    told = "\n".join((name, " ".join(sorted(features.split())), SYSTEM, platform.machine()))
    return hashlib.sha256(told.encode("utf8", "replace")).hexdigest()[:16]


def _memory(root: Path) -> tuple[int, int]:
    """The machine's memory: all of it, and what is available."""
    told = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    total, available = (told.get(key, "").split()[:1] for key in ("MemTotal", "MemAvailable"))
    if total and available:
        return int(total[0]) * 1024, int(available[0]) * 1024
    # Other systems than Linux. psutil is imported late, it takes longer than all the rest here.
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


@functools.cache
def _cpu(root: Path) -> tuple[str, str]:
    """The CPU's name and its feature flags."""
    told: dict[str, str] = {}
    with (
        contextlib.suppress(OSError),
        (root / "proc/cpuinfo").open(encoding="utf8", errors="replace") as file,
    ):
        for line in file:
            if not line.strip():  # the other processors say the same
                break
            key, _, value = line.partition(":")
            told[key.strip()] = value.strip()
    name = (
        told.get("model name")
        or told.get("Model")
        or told.get("uarch")
        or _sysctl("machdep.cpu.brand_string")
    )
    if not name and told.get("CPU part"):  # ARM gives numbers
        name = f"{platform.machine()} {told.get('CPU implementer', '')}/{told['CPU part']}"
    features = told.get("flags") or told.get("Features") or told.get("isa") or ""
    # platform.processor() would start a process on Linux, and learn nothing there.
    return name or (SYSTEM == "Windows" and platform.processor()) or platform.machine(), features


def _sysctl(name: str) -> str:
    """A text from macOS's sysctl, "" anywhere else."""
    if SYSTEM != "Darwin":
        return ""
    text = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t(len(text))
    failed = ctypes.CDLL(None).sysctlbyname(name.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else text.value.decode("utf8", "replace")


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(root: Path) -> int:
    """Different cores among the hardware threads that this process may run on; 0 when unknown."""
    if SYSTEM != "Linux":
        import psutil

        return int(psutil.cpu_count(logical=False) or 0)
    cores = {
        (package, core)
        for cpu in _affinity()
        for topology in (root / f"sys/devices/system/cpu/cpu{cpu}/topology",)
        if (core := _text(topology / "core_id")) and (package := _text(topology / "physical_package_id"))
    }
    return len(cores)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf8", "replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


# Control groups. A process is limited by its own group and by every group above it. In a container the
# path that /proc tells may be the host's, and the files at the root are the container's own: going up
# from the path to the root finds them either way.


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of this process's control groups, and whether they are of version 2."""
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        names = controllers.split(",")
        if controllers and controller not in names:
            continue
        relative = Path(path.lstrip("/"))
        if ".." in relative.parts:  # the group is outside this container's view
            relative = Path()
        mount = (
            base if not controllers else base / (controllers if (base / controllers).is_dir() else controller)
        )
        for part in (relative, *relative.parents):
            yield mount / part, not controllers


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and free bytes of each control group that has a limit."""
    for group, version2 in _groups(root, "memory"):
        limit = _number(group / ("memory.max" if version2 else "memory.limit_in_bytes"))
        used = _number(group / ("memory.current" if version2 else "memory.usage_in_bytes"))
        if limit is None:  # no such file, or "max"
            continue
        statistics = dict(
            line.split()[:2] for line in _text(group / "memory.stat").splitlines() if " " in line
        )
        # The page cache counts as used, and is given back when someone needs the memory.
        cache = statistics.get("inactive_file") or statistics.get("total_inactive_file") or "0"
        free = limit - (used or 0) + (int(cache) if cache.isdecimal() else 0)
        yield limit, max(0, min(free, limit))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """CPUs' worth of time that each control group with a quota may use."""
    for group, version2 in _groups(root, "cpu"):
        if version2:
            quota, period = [*_text(group / "cpu.max").split(), "", ""][:2]
        else:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):  # "max" and -1 are no quota
            yield int(quota) / int(period)


# GPUs.


class _NvmlMemory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _nvidia() -> tuple[list[Gpu], str]:
    """NVIDIA GPUs by NVML (nvmlInit_v2 and the calls after it), or why there are none."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if SYSTEM == "Windows" else "libnvidia-ml.so.1")
    except OSError:
        return [], t("hardware.no_nvidia")
    try:
        return _ask_nvml(nvml)
    except (OSError, AttributeError, ValueError) as error:  # a library without these functions
        return [], t("hardware.nvml_failed", reason=str(error)[:100])


def _ask_nvml(nvml: ctypes.CDLL) -> tuple[list[Gpu], str]:
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    if code := nvml.nvmlInit_v2():
        reason = (nvml.nvmlErrorString(code) or b"").decode("utf8", "replace") or str(code)
        return [], t("hardware.nvml_failed", reason=reason)
    try:
        driver = ctypes.create_string_buffer(96)
        nvml.nvmlSystemGetDriverVersion(driver, len(driver))
        version = f"nvidia {driver.value.decode('utf8', 'replace')}".strip()
        gpus: list[Gpu] = []
        for handle, uuid in _visible(nvml):
            name = ctypes.create_string_buffer(96)
            memory = _NvmlMemory()
            nvml.nvmlDeviceGetName(handle, name, len(name))
            if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                continue
            shown = name.value.decode("utf8", "replace") or "NVIDIA GPU"
            bandwidth = _bandwidth(nvml, handle)
            gpus.append(Gpu(shown, memory.total, memory.free, version, "nvidia", bandwidth, uuid))
    finally:
        nvml.nvmlShutdown()
    if not gpus and VISIBLE in os.environ:
        return [], t("hardware.none_visible", value=os.environ[VISIBLE][:100])
    return gpus, "" if gpus else t("hardware.no_nvidia")


def _visible(nvml: ctypes.CDLL) -> Iterator[tuple[ctypes.c_void_p, str]]:
    """NVML's handles and UUIDs of the cards that CUDA would show to this process.

    ``CUDA_VISIBLE_DEVICES`` lists numbers, UUIDs or beginnings of them, and ends at the first that names
    nothing (CUDA C++ Programming Guide, "CUDA Environment Variables"). Its numbers are NVML's, by the bus,
    only with ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` or where all cards are of one kind: otherwise the fastest is
    number 0, and a number's UUID is not told. A card that is lost, or that this user may not touch, is left
    out.
    """
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    cards: dict[int, tuple[ctypes.c_void_p, str]] = {}
    kinds = set()
    for index in range(min(count.value, 64)):
        handle, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(96)
        kind = ctypes.create_string_buffer(96)
        if not nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            nvml.nvmlDeviceGetUUID(handle, uuid, len(uuid))
            nvml.nvmlDeviceGetName(handle, kind, len(kind))
            kinds.add(kind.value)
            cards[index] = handle, uuid.value.decode("utf8", "replace")
    if VISIBLE not in os.environ:
        yield from cards.values()
        return
    by_bus = len(kinds) == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    for name in os.environ[VISIBLE].split(","):
        wanted = name.strip()
        if wanted.startswith("MIG-"):
            part = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByUUID(wanted.encode(), ctypes.byref(part)):
                return
            yield part, wanted
        elif wanted.startswith("GPU-") and (
            found := [card for card in cards.values() if card[1].startswith(wanted)]
        ):
            yield found[0]
        elif wanted.isdecimal() and int(wanted) in cards:
            card, known = cards[int(wanted)]
            yield card, known if by_bus else ""
        else:
            return


@dataclass(frozen=True, slots=True)
class GpuUse:
    """NVIDIA GPUs, now: bytes taken of all that were asked for, and per cent of the busiest's time."""

    used_bytes: int
    total_bytes: int
    percent: int


class _NvmlUtilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def gpu_use(card: str = "") -> GpuUse | None:
    """Ask NVML, some milliseconds; None where there is no such NVIDIA GPU.

    Args:
        card: its UUID; "" is all that this process sees.
    """
    try:
        nvml = ctypes.CDLL("nvml.dll" if SYSTEM == "Windows" else "libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return None
    except (OSError, AttributeError):
        return None
    try:
        used = total = percent = 0
        for handle, uuid in _visible(nvml):
            if card not in ("", uuid):
                continue
            memory, busy = _NvmlMemory(), _NvmlUtilization()
            if not nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                used, total = used + memory.used, total + memory.total
            if not nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(busy)):
                percent = max(percent, busy.gpu)
    except AttributeError:
        return None
    finally:
        nvml.nvmlShutdown()
    return GpuUse(used, total, percent) if total else None


def _bandwidth(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> int:
    """Memory clock × bus width × 2 transfers a clock, bytes a second; 0 where the card does not tell."""
    megahertz, bits = ctypes.c_uint(), ctypes.c_uint()
    memory_clock = 2  # NVML_CLOCK_MEM
    with contextlib.suppress(AttributeError):  # an older library
        if not nvml.nvmlDeviceGetMaxClockInfo(handle, memory_clock, ctypes.byref(megahertz)):
            nvml.nvmlDeviceGetMemoryBusWidth(handle, ctypes.byref(bits))
    return megahertz.value * 1_000_000 * bits.value * 2 // 8


def _amd(root: Path) -> Iterator[Gpu]:
    """AMD GPUs, as the amdgpu driver shows them in sysfs."""
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*/device")):
        total, used = _number(card / "mem_info_vram_total"), _number(card / "mem_info_vram_used")
        if _text(card / "vendor") == "0x1002" and total:
            name = _text(card / "product_name") or f"AMD GPU {_text(card / 'device')}".strip()
            yield Gpu(name, total, max(0, total - (used or 0)), "amdgpu", "amd")


def _apple(total: int, available: int) -> Iterator[Gpu]:
    """Apple Silicon's GPU, which shares the machine's memory."""
    if SYSTEM == "Darwin" and platform.machine() == "arm64":
        yield Gpu(_sysctl("machdep.cpu.brand_string") or "Apple GPU", total, available, "metal", "apple")
