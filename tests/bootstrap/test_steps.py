"""Which machine gets which steps: tables, nothing is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.bootstrap import Step, environment_python, steps
from cloudtrain.bootstrap.packages import distribution
from cloudtrain.catalog.nvidia import driver_plan, from_pci
from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config, Cuda, Dataset, Environment, Mirrors, Train
from cloudtrain.models.machine import Facts
from tests.bootstrap.cases import CONFIGS, LAYOUT, MACHINES

BARE_DEBIAN = replace(MACHINES["ubuntu-24.04-bare"], os_id="debian", os_version="12")


def of(machine: str | Facts, config: str | Config = "default") -> dict[str, Step]:
    chosen = CONFIGS[config] if isinstance(config, str) else config
    facts = MACHINES[machine] if isinstance(machine, str) else machine
    return {step.name: step for step in steps(chosen, facts, LAYOUT)}


CONDA = ["base", "miniconda", "environment", "torch", "trainer", "opencv"]


@pytest.mark.parametrize(
    ("machine", "config", "names"),
    [
        ("ubuntu-22.04-no-gpu", "default", ["cloud-init", *CONDA]),
        ("ubuntu-24.04-bare", "default", ["cloud-init", "base", "driver", *CONDA[1:], "gpu"]),
        ("ubuntu-24.04-bare", "no driver", ["cloud-init", *CONDA, "gpu"]),
        ("ubuntu-24.04-bare", "cpu", ["cloud-init", *CONDA]),
        ("t4", "default", ["cloud-init", *CONDA, "gpu"]),
        ("old-driver", "default", ["cloud-init", "base", "driver", *CONDA[1:], "gpu"]),
        ("driver-library-mismatch", "default", ["cloud-init", "base", "driver", *CONDA[1:], "gpu"]),
        ("wsl", "default", [*CONDA, "gpu"]),
        ("container-without-toolkit", "default", [*CONDA, "gpu"]),
        ("debian-12-no-root", "uv", ["base", "uv", "environment", "torch", "trainer", "packages", "opencv"]),
        ("debian-12-no-root", "venv", ["base", "environment", "torch", "requirements", "opencv"]),
        ("debian-12-no-root", "no torch", ["base", "uv", "environment", "opencv"]),
        ("debian-12-no-root", "yolov5", ["base", "miniconda", "environment", "torch", "trainer", "requirements", "opencv"]),
        ("t4", "existing", ["cloud-init", "base", "environment", "torch", "trainer", "gpu"]),
        ("t4", "own host", ["cloud-init", "base", "environment", "gpu"]),
        ("t4", "cuda", ["cloud-init", "base", "cuda", "uv", *CONDA[2:], "gpu"]),
        ("t4", "docker image", ["cloud-init", "base", "docker", "toolkit", "image", "gpu"]),
        ("ubuntu-24.04-bare", "docker image", ["cloud-init", "base", "driver", "docker", "toolkit", "image", "gpu"]),
        ("ubuntu-22.04-no-gpu", "docker build", ["cloud-init", "base", "docker", "image"]),
        ("wsl", "docker image", ["base", "docker", "toolkit", "image", "gpu"]),
        ("container-without-toolkit", "docker image", ["base", "docker", "image", "gpu"]),
        ("v100-no-driver", "default", ["cloud-init", "base", "driver", *CONDA[1:], "gpu"]),
        ("v100", "default", ["cloud-init", *CONDA, "gpu"]),
        ("a10g", "default", ["cloud-init", *CONDA, "gpu"]),
        ("t4-four", "default", ["cloud-init", *CONDA, "gpu"]),
        ("t4", "mirrors", ["cloud-init", "apt-mirror", *CONDA, "gpu"]),
    ],
)  # fmt: skip
def test_which_steps(machine: str, config: str, names: list[str]) -> None:
    assert list(of(machine, config)) == names


def test_docker_is_the_distribution_s_and_sees_the_gpu_by_nvidias_toolkit() -> None:
    found = of("t4", "docker image")
    assert "install -y --no-install-recommends docker.io" in found["docker"].apply
    assert found["docker"].root
    assert "nvidia-ctk runtime configure --runtime=docker" in found["toolkit"].apply
    assert set(found["toolkit"].needs) == {"base", "driver", "docker"}
    assert {"docker", "toolkit"} <= set(found["image"].needs)
    inside = of("container-without-toolkit", "docker image")["docker"]
    assert "is a container itself" in inside.apply
    assert "apt-get" not in inside.apply
    assert of("debian-12-no-root", "docker image")["docker"].required


@pytest.mark.parametrize(
    ("programs", "runtimes", "said"),
    [
        (("nvidia-container-runtime-hook",), "runc", ""),
        ((), "nvidia", ""),
        (("nvidia-ctk",), "runc", "Docker has no means to hand in a GPU"),
        (("nvidia-container-runtime-hook", "untold"), "nvidia", "Docker is not told of it"),
    ],
)
def test_an_engine_that_hands_in_gpus_is_left_as_it_is(
    programs: tuple[str, ...], runtimes: str, said: str, tmp_path: Path
) -> None:
    step = of("t4", "docker image")["toolkit"]
    assert not step.required
    for name in ("docker", *programs):
        (tmp_path / name).write_text(f"""#!/bin/sh\necho '{{"{runtimes}":{{"path":"nvidia"}}}}'\n""")
        (tmp_path / name).chmod(0o755)
    check = step.check.replace("/run/cloudtrain-docker-untold", str(tmp_path / "untold"))
    done = subprocess.run(
        ["/bin/bash", "-c", check],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/bin"},
    )
    assert (done.stdout.strip(), done.returncode) == (said, 1 if said else 0)


def test_the_cuda_toolkit_brings_no_driver_and_is_found_by_every_shell() -> None:
    step = of("ubuntu-24.04-bare", "cuda")["cuda"]
    assert "repos/ubuntu2404/x86_64/cuda-keyring_1.1-1_all.deb" in step.apply
    assert "install -y --no-install-recommends cuda-toolkit-12-8" in step.apply
    assert "Pin-Priority: -1" in step.apply
    assert "driver" in step.needs
    assert "/etc/environment" in step.apply
    other = of("debian-12-no-root", "cuda")["cuda"].apply
    assert "no CUDA packages are known for debian 12" in other


def test_the_driver_is_of_the_right_kind() -> None:
    turing = of("ubuntu-24.04-bare")["driver"]
    assert "linux-modules-nvidia-580-server-open-" in turing.apply
    assert "apt-mark hold" in turing.apply
    assert turing.root
    volta = of("v100-no-driver")["driver"]
    assert "nvidia-headless-no-dkms-580-server " in volta.apply
    assert "open" not in volta.apply


def test_without_prebuilt_modules_it_is_compiled_from_nvidias_archive() -> None:
    ubuntu = of("ubuntu-24.04-bare")["driver"].apply
    assert ubuntu.index("Ubuntu has no NVIDIA modules") < ubuntu.index("packages=(nvidia-headless")
    debian = of(BARE_DEBIAN)["driver"].apply
    assert "repos/debian12/x86_64/cuda-keyring" in debian
    assert debian.index("nvidia-driver-pinning-580") < debian.index("packages=(nvidia-open)")
    assert "packages=(cuda-drivers)" in of("v100-no-driver", "driver from NVIDIA")["driver"].apply
    assert "nvidia-headless" not in debian
    only = Config(cuda=Cuda(driver="ubuntu"))
    assert "no driver packages are known for debian 12" in of(BARE_DEBIAN, only)["driver"].apply
    assert "developer.download" not in of("ubuntu-24.04-bare", only)["driver"].apply
    unknown = replace(BARE_DEBIAN, os_version="9")
    assert "no driver packages are known for debian 9" in of(unknown)["driver"].apply


def test_the_runfile_is_on_request_checked_and_never_beside_apts_driver() -> None:
    apply = of("ubuntu-24.04-bare", "driver by runfile")["driver"].apply
    assert "tesla/580.95.05/NVIDIA-Linux-x86_64-580.95.05.run" in apply
    assert apply.index("a driver of apt already") < apply.index("sha256sum -c") < apply.index("--silent")
    assert "--kernel-module-type=open" in apply
    assert "nvidia-headless-no-dkms" not in apply
    volta = of("v100-no-driver", "driver by runfile")["driver"].apply
    assert "--kernel-module-type=proprietary" in volta
    for name in ("default", "driver from NVIDIA"):
        assert ".run" not in of("ubuntu-24.04-bare", name)["driver"].apply


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("ii  nvidia-utils-580-server", True),
        ("hi  nvidia-headless-no-dkms-580-server-open", True),
        ("rc  libnvidia-compute-535", False),
        ("un  nvidia-driver", False),
        ("ii  nvidia-container-toolkit", False),
    ],
)
def test_a_driver_of_apt_is_seen_as_dpkg_lists_it(listed: str, there: bool) -> None:
    apply = of("ubuntu-24.04-bare", "driver by runfile")["driver"].apply
    (line,) = [line for line in apply.splitlines() if line.startswith("if grep -E '^.i +")]
    done = subprocess.run(["bash", "-c", f"known=$1; {line} exit 5; fi", "_", listed], check=False)
    assert done.returncode == (5 if there else 0)


def test_opencv_that_was_interrupted_between_its_two_halves_goes_on(tmp_path: Path) -> None:
    step = of("debian-12-no-root", "uv")["opencv"]
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    (site / "opencv_python-4.12.0.88.dist-info").mkdir(parents=True)
    (env,) = {line.split("=", 1)[1] for line in step.apply.splitlines() if line.startswith("pending=")}
    place = env.strip("'").removesuffix("/opencv-pending")

    def run(script: str, broken: str) -> int:
        """Run it in another environment; its `uv` removes, and installs unless it is `broken`."""
        uv = (
            f"uv() {{ case $* in *uninstall*) rm -rf {site}/opencv_python-*;; "
            f"*4.12.0.88*) [ -z '{broken}' ] && echo yes >{tmp_path}/installed;; *) return 9;; esac; }}\n"
        )
        lines = [line for line in script.splitlines() if line != "set -euo pipefail"]
        text = "\n".join(lines).replace(place, str(tmp_path))
        for word in sorted({word for word in text.split() if word.endswith("/uv")}, key=len, reverse=True):
            text = text.replace(word, "uv")
        return subprocess.run(["bash", "-euo", "pipefail", "-c", uv + text], check=False).returncode

    assert run(step.apply, "broken") != 0
    assert not list(site.iterdir())
    assert run(step.check, "") != 0
    assert run(step.apply, "") == 0
    assert (tmp_path / "installed").read_text() == "yes\n"
    assert not (tmp_path / "opencv-pending").exists()


def test_a_kepler_gets_no_driver_that_cannot_drive_it() -> None:
    assert driver_plan((from_pci("102d"),)) is None
    assert driver_plan((from_pci("13f2"),)) is not None


def test_what_nvidia_serves_has_a_mirror() -> None:
    for step in of("ubuntu-24.04-bare", "mirrored software").values():
        for host in ("developer.download.nvidia.com/compute", "us.download.nvidia.com", "nvidia.github.io"):
            assert host not in step.apply, step.name
    cuda = of("ubuntu-24.04-bare", "mirrored software")["cuda"].apply
    assert "https://nvidia.example.org:8443/cuda/repos/ubuntu2404/x86_64" in cuda
    assert "Pin: origin nvidia.example.org\n" in cuda


def test_a_mismatch_is_a_reboot_not_an_installation() -> None:
    step = of("driver-library-mismatch")["driver"]
    assert "exit 194" in step.apply
    assert "apt-get" not in step.apply
    assert "reboot the machine" in step.by_hand
    assert "apt-get" not in step.by_hand


OWN = replace(CONFIGS["default"], provider="ssh")
DESKTOP = "another driver of apt's is here, and ours would remove it: nvidia-driver-470 nvidia-dkms-470;"


@pytest.mark.parametrize(
    ("machine", "listed", "said"),
    [
        (
            MACHINES["ubuntu-24.04-bare"],
            "ii  nvidia-driver-470 470.256\\nii  nvidia-dkms-470 470.256",
            DESKTOP,
        ),
        (
            MACHINES["ubuntu-24.04-bare"],
            "ii  nvidia-driver-580-open 580.95",
            "remove it: nvidia-driver-580-open;",
        ),
        (MACHINES["ubuntu-24.04-bare"], "hi  nvidia-headless-no-dkms-580-server-open 580.95", ""),
        (MACHINES["ubuntu-24.04-bare"], "ii  nvidia-kernel-common-580-server 580.95", ""),
        (MACHINES["ubuntu-24.04-bare"], "rc  nvidia-driver-470 470.256\\nii  nvidia-opencl-common 1", ""),
        (MACHINES["ubuntu-24.04-bare"], "", ""),
        (BARE_DEBIAN, "ii  nvidia-driver 470.256", "remove it: nvidia-driver;"),
        (BARE_DEBIAN, "ii  nvidia-driver-pinning-580 580-1\\nii  nvidia-kernel-open-dkms 580.95", ""),
    ],
)
def test_a_driver_of_another_kind_is_left_to_its_owner(
    machine: Facts, listed: str, said: str, tmp_path: Path
) -> None:
    apply = of(machine, OWN)["driver"].apply
    function = apply[apply.index("spare() {") : apply.index("# The distribution's own driver")]
    (call,) = [line for line in apply.splitlines() if line.lstrip().startswith("spare '")][-1:]
    if machine is BARE_DEBIAN:
        assert apply.index(call) < apply.index("cuda-keyring")
    else:
        assert apply.index(call) < apply.index("packages=(nvidia-headless")
    (tmp_path / "dpkg-query").write_text(f"#!/bin/sh\nprintf '{listed}\\n'\n[ -n '{listed}' ]\n")
    (tmp_path / "dpkg-query").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{function}\n{call}\necho installs"],
        capture_output=True, text=True, check=False, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == (1 if said else 0)
    assert said in done.stdout
    assert ("installs" in done.stdout) == (not said)
    assert "spare" not in of(machine)["driver"].apply


REJECTED = "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"


@pytest.mark.parametrize(
    ("modprobe", "built", "code", "said"),
    [
        (REJECTED, ["6.8.0-31-generic"], 1, "Secure Boot"),
        (
            "modprobe: ERROR: could not insert 'nvidia': No such device",
            ["6.8.0-31-generic"],
            194,
            "No such device",
        ),
        ("modprobe: FATAL: Module nvidia not found", [], 1, "the compiler is of another version"),
        (
            "modprobe: FATAL: Module nvidia not found",
            ["6.8.0-9-generic"],
            1,
            "built for kernel 6.8.0-31-generic",
        ),
        ("modprobe: FATAL: Module nvidia not found", ["6.8.0-41-generic"], 194, "not found"),
    ],
)
def test_a_reboot_is_asked_for_only_where_it_can_help(
    modprobe: str, built: list[str], code: int, said: str, tmp_path: Path
) -> None:
    log = tmp_path / "dkms" / "nvidia" / "580.95.05" / "build" / "make.log"
    log.parent.mkdir(parents=True)
    log.write_text("the compiler is of another version\n")
    for kernel in built:
        (tmp_path / "modules" / kernel / "updates" / "dkms").mkdir(parents=True)
        (tmp_path / "modules" / kernel / "updates" / "dkms" / "nvidia.ko.zst").touch()
    apply = of("ubuntu-24.04-bare")["driver"].apply
    functions = apply[apply.index("unloaded() {") : apply.index("# Compiled here")]
    for theirs, here in (("/var/lib/dkms", "dkms"), ("/lib/modules", "modules")):
        functions = functions.replace(theirs, here)
    functions = functions.replace("-f4", "-f2")
    stand_in = (
        f'kernel=6.8.0-31-generic\nfree_gpu() {{ :; }}\nmodprobe() {{ echo "{modprobe}" >&2; return 1; }}\n'
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{stand_in}{functions}\nload"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout


def test_torch_waits_for_no_driver_but_counts_on_it() -> None:
    bare = of("ubuntu-24.04-bare")["torch"]
    assert "2.15.0" in bare.apply
    assert "driver" not in bare.needs
    assert "driver" in of("ubuntu-24.04-bare")["gpu"].needs


def test_an_older_driver_gets_an_older_cuda() -> None:
    a10g = of("a10g", "mirrors")["torch"]
    assert "https://torch.example.org/whl/cu126" in a10g.apply
    assert "driver 535 does not run CUDA 13" in a10g.reason


def test_base_asks_only_for_what_is_used() -> None:
    assert "base" in of("debian-12-no-root", "uv")
    packages = of("debian-12-no-root", "uv")["base"].by_hand
    assert packages == "sudo apt-get update && sudo apt-get install -y screen rsync"
    assert "git" in of("t4", "venv")["base"].by_hand
    assert "python3-venv" in of("t4", "venv")["base"].by_hand
    assert of("t4", "venv")["base"].root


@pytest.mark.parametrize(
    ("archive", "package"),
    [("a.7z", "libarchive-tools"), ("A.RAR", "libarchive-tools"), ("a.tar.zst", "libarchive-tools"),
     ("a.tar.xz", "xz-utils"), ("a.tbz2", "bzip2"), ("a.zip", ""), ("a.tar.gz", ""), ("data.yaml", "")],
)  # fmt: skip
def test_what_unpacks_the_dataset_is_a_base_package(archive: str, package: str) -> None:
    for dataset in (Dataset(path=f"sub/{archive}"), Dataset(source=f"https://example.org/{archive}")):
        config = Config(dataset=dataset, environment=Environment(manager="existing"))
        found = of("t4", config)["base"].by_hand.split()[6:]
        assert (package in found) if package else not {"libarchive-tools", "xz-utils", "bzip2"} & set(found)


@pytest.mark.parametrize(
    ("machine", "config", "required"),
    [
        # It has no screen, which setsid and a log stand in for, and no git, which nothing does.
        ("debian-12-no-root", "uv", False),
        ("debian-12-no-root", "venv", True),
        ("t4", "uv", False),
        ("t4", "venv", False),
    ],
)
def test_base_is_required_only_for_what_is_truly_missing(machine: str, config: str, required: bool) -> None:
    assert (MACHINES[machine].screen is None) == (machine == "debian-12-no-root")
    assert of(machine, config)["base"].required == required


def test_only_the_project_s_own_files_wait_for_the_project() -> None:
    waiting = {name for name, step in of("t4", "venv").items() if step.waits_for_project}
    assert waiting == {"requirements"}


def test_miniconda_is_pinned() -> None:
    step = of("t4")["miniconda"]
    assert "sha256sum -c" in step.apply
    assert "-b -u -p" in step.apply
    assert "--override-channels -c conda-forge python=3.12 pip" in of("t4")["environment"].apply
    assert "https://conda.example.org/installers/Miniconda3-" in of("t4", "mirrors")["miniconda"].apply


def test_an_architecture_without_a_pin_is_refused() -> None:
    graviton = replace(MACHINES["t4"], arch="aarch64")
    with pytest.raises(UsageError, match="aarch64") as caught:
        steps(CONFIGS["default"], graviton, LAYOUT)
    assert "uv" in caught.value.hint
    assert steps(CONFIGS["uv"], graviton, LAYOUT)
    assert steps(CONFIGS["default"], replace(graviton, conda="/opt/conda/bin/conda"), LAYOUT)


def test_an_address_with_a_password_is_only_in_the_environment() -> None:
    for step in of("t4", "mirrors").values():
        for line in step.apply.splitlines():
            assert "s3cret" not in line or line.startswith("export PIP_INDEX_URL=")


def test_an_index_without_tls_is_used_as_it_was_named() -> None:
    plain = Mirrors(package_index="http://me:s3cret@10.0.0.1:81/simple", torch_index="http://10.0.0.2/whl")
    config = Config(mirrors=plain)
    assert "export PIP_TRUSTED_HOST=10.0.0.1:81\n" in of("t4", config)["trainer"].apply
    assert "export PIP_TRUSTED_HOST='10.0.0.1:81 10.0.0.2'\n" in of("a10g", config)["torch"].apply
    assert "TRUSTED" not in of("t4", "mirrors")["torch"].apply


@pytest.mark.parametrize(
    ("environment", "python"),
    [
        (Environment(), f"{LAYOUT.env}/bin/python"),
        (Environment(manager="uv", python="3"), f"{LAYOUT.env}/bin/python"),
        (Environment(manager="existing"), "/usr/bin/python3"),
        (Environment(manager="existing", python="python3.11"), "python3.11"),
        (Environment(manager="existing", python="/opt/pytorch/bin/python"), "/opt/pytorch/bin/python"),
    ],
)
def test_environment_python(environment: Environment, python: str) -> None:
    config = Config(environment=environment, train=Train(kind="script"))
    assert environment_python(config, MACHINES["t4"], LAYOUT) == python


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("six", "six"),
        ("ultralytics>=8.3", "ultralytics"),
        ("ruamel.yaml[jinja2]~=0.18 ; python_version > '3'", "ruamel.yaml"),
        ("git+https://example.org/x.git", None),
        ("https://example.org/x.whl", None),
        ("./local", None),
        ("-e .", None),
        ("x @ https://example.org/x.whl", "x"),
    ],
)
def test_distribution(spec: str, name: str | None) -> None:
    assert distribution(spec) == name


def test_kernel_and_driver_are_held_where_the_machine_is_ours_alone() -> None:
    ours = of("ubuntu-24.04-bare")["driver"].apply
    theirs = of("ubuntu-24.04-bare", replace(CONFIGS["default"], provider="ssh"))["driver"].apply
    assert 'apt-mark hold "${packages[@]}" "${newest[@]}"' in ours
    assert "nvidia-uninstall --silent" in ours
    assert "apt-mark" not in theirs
    assert "linux-modules-nvidia-580-server-open-${name#linux-image-}" in theirs
    assert "sudo nvidia-uninstall" in theirs
    for text in (ours, theirs):
        assert "--allow-change-held-packages" in text  # else what one run held, no other could mend


TORCH = """
__version__ = "2.9.0"
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 4)
    get_device_name = staticmethod(lambda number: "RTX A5000")
    get_device_capability = staticmethod(lambda number: (8, 6))
class Ones:
    def __matmul__(self, other): return self
    def __getitem__(self, place): return 64.0
def ones(*size, device):
    print("used", device)
    if device in {full}: raise RuntimeError("CUDA out of memory. Tried to allocate 2 MiB")
    if device in {wrong}: raise RuntimeError("CUDA error: no kernel image is available for execution")
    return Ones()
"""


@pytest.mark.parametrize(
    ("gpus", "full", "wrong", "code", "said"),
    [
        ("[1, 2]", [], [], 0, ""),
        ("[1]", ["cuda:0"], [], 0, ""),
        ("all", ["cuda:0"], [], 0, "@note cuda:0 (RTX A5000) is full of somebody else's work"),
        ("[3]", ["cuda:3"], [], 1, "choose others with train.gpus"),
        ("2", [], ["cuda:1"], 1, "RTX A5000 (sm_86) cannot run this build of PyTorch 2.9.0"),
    ],
)
def test_only_the_gpus_that_are_meant_are_proven(
    gpus: str, full: list[str], wrong: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(TORCH.replace("{full}", repr(full)).replace("{wrong}", repr(wrong)))
    chosen = Config(
        environment=Environment(manager="existing", python=sys.executable), train=Train(gpus=gpus)
    )
    text = of("t4-four", chosen)["gpu"].apply.replace(LAYOUT.root, str(tmp_path))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    if gpus.startswith("["):
        assert {f"cuda:{number}" for number in range(4) if f"used cuda:{number}" in done.stdout} == {
            f"cuda:{number}" for number in json.loads(gpus)
        }


def test_no_step_that_installs_takes_the_users_own_packages_for_ours() -> None:
    """PyTorch's is the one that has an index of its own besides."""
    for config in ("default", "mirrors", "yolov5"):
        found = of("v100", config)
        for name in {"torch", "trainer", "requirements", "packages", "opencv"} & found.keys():
            assert "export PYTHONNOUSERSITE=1" in found[name].apply, (config, name)
    assert "PYTHONNOUSERSITE" not in of("t4", "existing")["torch"].apply
