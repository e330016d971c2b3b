"""The Grafana bundle: dashboards as JSON, and the code that writes them."""
