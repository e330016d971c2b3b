"""The check of the restricted Pod Security Standard finds what the standard forbids, each field of it."""

import copy
from typing import Any

import pytest

from pod_security import APPARMOR, SYSCTLS, violations

CONTAINER: dict[str, Any] = {
    "name": "main",
    "image": "i",
    "ports": [{"containerPort": 9877}],
    "livenessProbe": {"httpGet": {"path": "/", "port": 9877}},
    "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
POD: dict[str, Any] = {
    "metadata": {"annotations": {f"{APPARMOR}main": "runtime/default"}},
    "spec": {
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.tcp_fin_timeout", "value": "9"}],
        },
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "all", "projected": {"sources": []}}],
        "containers": [CONTAINER],
    },
}
NONE = object()

# Each field that the standard restricts, with a value that it does not allow. "context" stands for `securityContext`.
OF_EITHER = [
    ("HostProcess", "context.windowsOptions", {"hostProcess": True}),
    ("AppArmor", "context.appArmorProfile", {"type": "Unconfined"}),
    ("SELinux", "context.seLinuxOptions", {"type": "spc_t"}),
    ("SELinux", "context.seLinuxOptions", {"user": "system_u"}),
    ("SELinux", "context.seLinuxOptions", {"role": "system_r"}),
    ("Seccomp", "context.seccompProfile", {"type": "Unconfined"}),
    ("Running as non-root", "context.runAsNonRoot", False),
    ("Running as non-root user", "context.runAsUser", 0),
]
OF_CONTAINER = [
    ("Privileged Containers", "context.privileged", True),
    ("Capabilities", "context.capabilities.add", ["SYS_ADMIN"]),
    ("Capabilities", "context.capabilities.add", ["CHOWN"]),
    ("Capabilities", "context.capabilities.drop", ["CHOWN"]),
    ("Capabilities", "context.capabilities", NONE),
    ("Host Ports", "ports", [{"containerPort": 1, "hostPort": 1}]),
    ("/proc Mount Type", "context.procMount", "Unmasked"),
    ("Privilege Escalation", "context.allowPrivilegeEscalation", True),
    ("Privilege Escalation", "context.allowPrivilegeEscalation", NONE),
    *(
        ("Host Probes / Lifecycle Hooks", f"{where}.{how}", {"host": "10.0.0.1", "port": 1})
        for where in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle.postStart", "lifecycle.preStop")
        for how in ("httpGet", "tcpSocket")
    ),
]
OF_POD = [
    *(("Host Namespaces", key, True) for key in ("hostNetwork", "hostPID", "hostIPC")),
    ("HostPath Volumes", "volumes", [{"name": "a", "hostPath": {"path": "/"}}]),
    ("Volume Types", "volumes", [{"name": "a", "hostPath": {"path": "/"}}]),
    ("Volume Types", "volumes", [{"name": "a", "nfs": {"server": "s", "path": "/"}}]),
    ("Volume Types", "volumes", [{"name": "a", "iscsi": {"lun": 0}}]),
    ("Sysctls", "context.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
]
# Unsaid for the pod, and not said by its container either.
UNSAID = [("Running as non-root", "context.runAsNonRoot", NONE), ("Seccomp", "context.seccompProfile", NONE)]


def put(one: dict[str, Any], path: str, value: Any) -> None:
    """Set a field, or take it away."""
    *above, last = path.replace("context", "securityContext").split(".")
    for key in above:
        one = one.setdefault(key, {})
    if value is NONE:
        del one[last]
    else:
        one[last] = value


def test_a_pod_that_passes_passes() -> None:
    pod = copy.deepcopy(POD)
    assert violations(pod) == set()
    pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    pod["spec"]["securityContext"]["sysctls"] = [{"name": name, "value": "1"} for name in SYSCTLS]
    assert violations(pod) == set()


@pytest.mark.parametrize(("control", "path", "value"), [*OF_EITHER, *OF_POD])
def test_what_a_pod_may_not(control: str, path: str, value: object) -> None:
    pod = copy.deepcopy(POD)
    put(pod["spec"], path, value)
    assert (control, "") in violations(pod)


@pytest.mark.parametrize("key", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize(("control", "path", "value"), [*OF_EITHER, *OF_CONTAINER])
def test_what_a_container_may_not(key: str, control: str, path: str, value: object) -> None:
    pod, container = copy.deepcopy(POD), {**copy.deepcopy(CONTAINER), "name": "bad"}
    put(container, path, value)
    pod["spec"][key] = [*pod["spec"].get(key, ()), container]
    assert {who for _, who in violations(pod)} == {"bad"}
    assert (control, "bad") in violations(pod)


@pytest.mark.parametrize(("control", "path", "value"), UNSAID)
def test_what_has_to_be_said(control: str, path: str, value: object) -> None:
    pod = copy.deepcopy(POD)
    put(pod["spec"], path, value)
    assert violations(pod) == {(control, "main")}
    put(pod["spec"]["containers"][0], path, {"type": "Localhost"} if control == "Seccomp" else True)
    assert violations(pod) == set()


def test_annotation_of_apparmor() -> None:
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"][f"{APPARMOR}main"] = "unconfined"
    assert violations(pod) == {("AppArmor", "")}
