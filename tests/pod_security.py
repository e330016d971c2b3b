"""The restricted Pod Security Standard of Kubernetes 1.37, control by control.

https://kubernetes.io/docs/concepts/security/pod-security-standards/: what it allows is what is not found here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def context(one: Spec) -> Spec:
    """The security context of a pod's specification, or of a container."""
    return one.get("securityContext") or {}


def of_either(one: Spec) -> Iterator[str]:
    """What neither a pod's context nor a container's may say."""
    own = context(one)
    if (own.get("windowsOptions") or {}).get("hostProcess"):
        yield "HostProcess"
    if (own.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield "AppArmor"
    linux = own.get("seLinuxOptions") or {}
    if linux.get("type", "") not in SELINUX or linux.get("user") or linux.get("role"):
        yield "SELinux"
    if (own.get("seccompProfile") or {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield "Seccomp"
    if own.get("runAsNonRoot") is False:
        yield "Running as non-root"
    if own.get("runAsUser") == 0:
        yield "Running as non-root user"


def hosts(container: Spec) -> Iterator[Any]:
    """The hosts that probes and lifecycle hooks of a container name."""
    handlers = [container.get(f"{name}Probe") or {} for name in ("startup", "readiness", "liveness")]
    handlers += (container.get("lifecycle") or {}).values()
    for handler in handlers:
        for how in ("httpGet", "tcpSocket"):
            yield (handler.get(how) or {}).get("host")


def of_container(container: Spec, pod: Spec) -> Iterator[str]:
    """What a container says, or leaves unsaid, that the standard does not allow."""
    own = context(container)
    capabilities = own.get("capabilities") or {}
    either = {**context(pod), **own}
    if own.get("privileged"):
        yield "Privileged Containers"
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "Capabilities"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield "Host Ports"
    if any(hosts(container)):
        yield "Host Probes / Lifecycle Hooks"
    if own.get("procMount", "Default") != "Default":
        yield "/proc Mount Type"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "Privilege Escalation"
    if either.get("runAsNonRoot") is not True:
        yield "Running as non-root"
    if "seccompProfile" not in either:
        yield "Seccomp"


def of_pod(metadata: Spec, spec: Spec) -> Iterator[str]:
    """What the pod itself says that the standard does not allow."""
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "Host Namespaces"
    for volume in spec.get("volumes") or ():
        if "hostPath" in volume:
            yield "HostPath Volumes"
        if not volume.keys() - {"name"} <= VOLUMES:
            yield "Volume Types"
    if any(one["name"] not in SYSCTLS for one in context(spec).get("sysctls") or ()):
        yield "Sysctls"
    for key, profile in (metadata.get("annotations") or {}).items():
        if key.startswith(APPARMOR) and not (profile in {"", "runtime/default"} or profile.startswith("localhost/")):
            yield "AppArmor"


def violations(pod: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What is violated, by whom: controls as the standard names them, with a container's name or "" for the pod.

    `pod` has `metadata` and `spec`, as a pod or a template of pods.
    """
    spec = pod["spec"]
    found = {(control, "") for control in (*of_pod(pod.get("metadata") or {}, spec), *of_either(spec))}
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for one in spec.get(key) or ():
            found |= {(control, one["name"]) for control in (*of_either(one), *of_container(one, spec))}
    return found
