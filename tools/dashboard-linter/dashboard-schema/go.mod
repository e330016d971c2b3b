// In place of github.com/grafana/grafana/apps/dashboard: see ../go.mod.
module github.com/grafana/grafana/apps/dashboard

go 1.26.3
