"""What is wrong in the values of the application chart is refused, with an error that says what to do."""

import pytest

from charts import GROUP, NEEDS, OPERATOR, each_helm, refused

BAD = {
    # a section that is there, with nothing in it
    "podMonitor=null": "missing property 'podMonitor'",
    "persistence=null": "missing property 'persistence'",
    "webConfig.scheme=null": "at '/webConfig': missing property 'scheme'",
    "podMonitr.enabled=true": "additional properties 'podMonitr' not allowed",
    "podMonitor.enable=true": "at '/podMonitor': additional properties 'enable' not allowed",
    "extraArgs=x": "at '': additional properties 'extraArgs' not allowed",
    "config.inline.models=x": "at '/config/inline': got object, want string",
    "persistence.size=10GB": "at '/persistence/size': '10GB' does not match pattern",
    "service.port=0": "at '/service/port': minimum: got 0, want 1",
    "fullnameOverride=Big": "at '/fullnameOverride': 'Big' does not match pattern",
    "baselines.files.a/b=x": "invalid propertyName 'a/b'",
    "persistence.accessModes={x}": "at '/persistence/accessModes/0': value must be one of 'ReadWriteOnce'",
    "alertmanagerConfig.receivers[0].nam=x": "at '/alertmanagerConfig/receivers/0': missing property 'name'",
    "replicas=0": "at '/replicas': minimum: got 0, want 1",
    "replicas=two": "at '/replicas': got string, want integer",
    "log.level=verbose": "at '/log/level': value must be one of 'debug', 'info', 'warning', 'error'",
    "image.digest=sha256:1": "at '/image/digest'",
    "resources.limits.memory=1GB": "at '/resources/limits/memory'",
    "config.key=a/b": "at '/config/key'",
    "webConfig.scheme=HTTPS": "at '/webConfig/scheme': value must be one of 'http', 'https'",
    "podMonitor.interval=15": "at '/podMonitor/interval': got number, want string",
    "podLabels.tier=1": "at '/podLabels/tier': got number, want string",
    "config.inline=x,config.existingSecret=y": "config.inline, config.existingSecret: give one of them",
    "config.inline=x,baselines.existingClaim=y,baselines.download.image=z": (
        "baselines.existingClaim, baselines.download.image: give one of them"
    ),
    "baselines.existingClaim=x": "baselines: without a configuration nobody reads them",
    "webConfig.inline=tls_server_config:": "webConfig.scheme: webConfig.inline has tls_server_config",
    "webConfig.scheme=https": "webConfig: scheme https, tlsSecret and clientCertificates do nothing without",
    "webConfig.inline=RequireAndVerifyClientCert": "webConfig.clientCertificates: webConfig.inline asks for",
    "persistence.existingClaim=x": "persistence.existingClaim: set persistence.enabled to true, too",
    "persistence.enabled=true,persistence.existingClaim=x,replicas=2": "one volume is for one pod",
    "podMonitor.enabled=true,serviceMonitor.enabled=true": "each pod is scraped twice",
    "podDisruptionBudget.enabled=true,podDisruptionBudget.maxUnavailable=0": "0 keeps its node from ever being drained",
    **{
        f"{key}.enabled=true": (
            f"{key}.enabled: this cluster has no monitoring.coreos.com/{api}. Install the CRDs of the Prometheus "
            "Operator first (kube-prometheus-stack has them); for `helm template`, say "
            f"--api-versions=monitoring.coreos.com/{api}"
        )
        for key, api in NEEDS.items()
    },
}


@each_helm
@pytest.mark.parametrize("settings", BAD)
def test_what_is_wrong_is_refused_with_the_reason(settings: str, program: str) -> None:
    assert BAD[settings] in refused("--set", settings, program=program)


@pytest.mark.parametrize("key", NEEDS)
def test_a_cluster_with_other_kinds_of_the_operator_is_refused(key: str) -> None:
    others = [one for one in OPERATOR if not one.endswith(NEEDS[key])]
    assert BAD[f"{key}.enabled=true"] in refused(f"--set={key}.enabled=true", *GROUP, *others)


def test_a_receiver_that_is_not_there_is_refused() -> None:
    options = ["--set", "alertmanagerConfig.enabled=true,alertmanagerConfig.receivers[0].name=y", *OPERATOR]
    assert '"x" is none of alertmanagerConfig.receivers (y)' in refused(*options, "--set=alertmanagerConfig.receiver=x")
    assert "alertmanagerConfig.receiver: name one of alertmanagerConfig.receivers (y)" in refused(*options)


def test_an_older_kubernetes_is_refused() -> None:
    assert "requires kubeVersion: >=1.29.0-0" in refused("--kube-version=1.28")
