"""Builds the cluster's Go programs, each once per version, sources and flags.

Invariants: a folder under `bin` is complete or absent (a build happens in a folder of its own and
is renamed into place); a changed go.mod, go.sum or flag gives another folder.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.paths import ARGO, GO_MODULES, HELM, KUBERNETES, Cache
from tools.cluster.report import Trouble, say, step

ARGO_MODULE = "github.com/argoproj/argo-workflows/v4"
_KUBE_VERSION = "k8s.io/component-base/version"
_KUBE_CLIENT_VERSION = "k8s.io/client-go/pkg/version"


def _kubernetes_flags() -> str:
    major, minor = KUBERNETES.removeprefix("v").split(".")[:2]
    values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    return " ".join(
        f"-X {package}.{name}={value}"
        for package in (_KUBE_VERSION, _KUBE_CLIENT_VERSION)
        for name, value in values.items()
    )


def _helm_flags() -> str:
    """What `helm template` believes about the cluster when it asks none."""
    major, minor = KUBERNETES.removeprefix("v").split(".")[:2]
    defaults = ("pkg/chartutil.k8sVersion", "pkg/lint/rules.k8sVersion")
    flags = [f"-X helm.sh/helm/v3/internal/version.version={HELM}"]
    for name in defaults:
        flags += [
            f"-X helm.sh/helm/v3/{name}Major={major}",
            f"-X helm.sh/helm/v3/{name}Minor={minor}",
        ]
    return " ".join(flags)


@dataclass(frozen=True)
class Program:
    """One binary: its Go module's folder here, its package, and what it is linked with."""

    name: str
    module: str
    package: str
    version: str
    link: str = ""


def _kubernetes(name: str) -> Program:
    return Program(
        name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", KUBERNETES, _kubernetes_flags()
    )


def _argo(name: str) -> Program:
    link = f"-X {ARGO_MODULE}.version={ARGO}"
    return Program(name, "argo", f"{ARGO_MODULE}/cmd/{name}", ARGO, link)


PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", "v3.6.5"),
        *map(
            _kubernetes,
            (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            ),
        ),
        *map(_argo, ("workflow-controller", "argoexec")),
        # Its own plugins only: all of them would fetch the libraries of three clouds.
        Program("coredns", "coredns", "tiphys.test/coredns", "v1.12.4"),
        Program("pause", "pause", "tiphys.test/pause", "v1"),
        Program("helm", "helm", "helm.sh/helm/v3/cmd/helm", HELM, _helm_flags()),
        Program(
            "kube-state-metrics",
            "kube-state-metrics",
            "k8s.io/kube-state-metrics/v2",
            "v2.18.0",
        ),
    )
}


def go_command() -> str:
    """Return the Go tool's path; Trouble when there is none."""
    found = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if found is None:
        raise Trouble("the Go toolchain (1.25 or newer) is missing; see https://go.dev/doc/install")
    return found


def _key(program: Program, go_version: str) -> str:
    folder = GO_MODULES / program.module
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".mod", ".sum", ".go"}):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(f"{program}\0{go_version}\0{_REPAIRED}".encode())
    return digest.hexdigest()[:12]


def place(cache: Cache, program: Program, go_version: str) -> Path:
    """Return where the program is once it is built."""
    folder = f"{program.name}-{program.version}-{_key(program, go_version)}"
    return cache.bin / folder / program.name


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}


def _go(folder: Path, *argv: str, seconds: float = 1800) -> str:
    try:
        done = subprocess.run(
            [go_command(), *argv],
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as slow:
        raise Trouble(f"go {argv[0]} in {folder} did not end within {seconds:.0f} s") from slow
    if done.returncode:
        raise Trouble(f"go {' '.join(argv[:2])} in {folder} failed:\n{done.stderr[-3000:]}")
    return done.stdout


# The file that upstream keeps as a symbolic link; module archives carry no links.
_REPAIRED = "workflow/executor/osspecific/signal_linux.go"
_REPAIRED_FROM = "workflow/executor/osspecific/signal_darwin.go"
_NOT_GO = ("ui", "docs", "examples", "test", "sdks", "hack", "community")


def module_folder(name: str, module: str) -> Path:
    """Return where the sources of a Go module are, as our go.mod of that name pins it."""
    folder = GO_MODULES / name
    _go(folder, "mod", "download", module)
    return Path(_go(folder, "list", "-m", "-f", "{{.Dir}}", module).strip())


def argo_source(cache: Cache) -> Path:
    """Return Argo's sources, complete: a copy of its module with the lost link put back."""
    target = cache.root / "src" / f"argo-workflows-{ARGO}"
    if target.is_dir():
        return target
    original = module_folder("argo", ARGO_MODULE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        copy = Path(scratch) / "copy"

        def skip(folder: str, _names: list[str]) -> set[str]:
            return set(_NOT_GO) if Path(folder) == original else set()

        shutil.copytree(original, copy, ignore=skip, copy_function=shutil.copyfile)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.copyfile(copy / _REPAIRED_FROM, copy / _REPAIRED)
        copy.rename(target)
    return target


def _argo_modfile(cache: Cache, scratch: Path) -> str:
    """Write a go.mod that takes Argo from the repaired copy; return the flag that names it."""
    source = argo_source(cache)
    text = (GO_MODULES / "argo" / "go.mod").read_text()
    (scratch / "argo.mod").write_text(f"{text}\nreplace {ARGO_MODULE} => {source}\n")
    shutil.copyfile(GO_MODULES / "argo" / "go.sum", scratch / "argo.sum")
    return f"-modfile={scratch / 'argo.mod'}"


def go_version() -> str:
    """Return what `go env GOVERSION` says, which is part of each binary's key."""
    return _go(GO_MODULES, "env", "GOVERSION").strip()


def build(cache: Cache, program: Program, version: str) -> Path:
    """Build one program unless it is there, and return its path."""
    target = place(cache, program, version)
    if target.exists():
        return target
    cache.bin.mkdir(parents=True, exist_ok=True)
    with (
        step(f"built {program.name} {program.version}"),
        tempfile.TemporaryDirectory(dir=cache.bin, prefix=".building-") as scratch,
    ):
        out = Path(scratch) / "out"
        out.mkdir()
        flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {program.link}".strip()]
        if program.module == "argo":
            flags.append(_argo_modfile(cache, Path(scratch)))
        folder = GO_MODULES / program.module
        _go(folder, "build", *flags, "-o", str(out / program.name), program.package)
        out.rename(target.parent)
    return target


def ensure(cache: Cache, names: Iterable[str]) -> dict[str, Path]:
    """Build what is missing of `names`; the order of `names` is the order of building."""
    version = go_version()
    wanted = [PROGRAMS[name] for name in names]
    missing = [p.name for p in wanted if not place(cache, p, version).exists()]
    for leftover in cache.bin.glob(".building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if missing:
        say(f"to build with {version}: {', '.join(missing)}")
    return {program.name: build(cache, program, version) for program in wanted}
