"""Writes `grafana/dashboards/*.json`: `python -m grafana.generate`, from the top of the repository.

One module for each dashboard, which lists its panels row by row; what they share is written once:

    alerts      numbers of the alerts' thresholds, read from the rules
    style       colours, states, thresholds
    queries     selectors and forms of PromQL that recur
    panels      kinds of panels
    shared      panels that several dashboards have
    variables   template variables
    links       from dashboard to dashboard, annotations
    layout      rows to positions, all of it to one dashboard
"""
