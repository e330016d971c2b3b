// Package v2 has the names that the linter takes from Grafana's package for dashboards of schema version 2, and no more.
//
// The dashboards here are of the classic schema, which never comes this way. One of version 2 would be read without
// panels, so the linter is told not to take it at all: unmarshalling fails.
package v2

import "errors"

// DashboardSpec is refused: what follows is there for the linter to compile.
type DashboardSpec struct {
	Title       string
	Editable    *bool
	Elements    map[string]DashboardElement
	Variables   []DashboardVariableKind
	Annotations []DashboardAnnotationQueryKind
}

// UnmarshalJSON refuses every dashboard.
func (*DashboardSpec) UnmarshalJSON([]byte) error {
	return errors.New("this linter is built for dashboards of the classic schema only")
}

type DashboardElement struct {
	PanelKind *struct{ Spec DashboardPanelSpec }
}

type DashboardPanelSpec struct {
	Id          float64
	Title       string
	Description string
	VizConfig   struct {
		Group string
		Spec  struct{ FieldConfig, Options any }
	}
	Data struct {
		Spec struct{ Queries []DashboardPanelQueryKind }
	}
}

type DashboardPanelQueryKind struct {
	Spec struct {
		RefId  string
		Hidden bool
		Query  DashboardDataQueryKind
	}
}

type DashboardDataQueryKind struct {
	Group      string
	Datasource *struct{ Name *string }
	Spec       map[string]any
}

type DashboardAnnotationQueryKind struct {
	Spec struct {
		Name  string
		Query DashboardDataQueryKind
	}
}

type DashboardVariableRefresh string

const (
	DashboardVariableRefreshOnTimeRangeChanged DashboardVariableRefresh = "onTimeRangeChanged"
	DashboardVariableRefreshOnDashboardLoad    DashboardVariableRefresh = "onDashboardLoad"
)

// Variable has the fields of all kinds of variables.
type Variable struct {
	Spec struct {
		Name     string
		Label    *string
		Multi    bool
		AllValue *string
		Refresh  DashboardVariableRefresh
		PluginId string
	}
}

type QueryVariable struct {
	Spec struct {
		Name     string
		Label    *string
		Multi    bool
		AllValue *string
		Refresh  DashboardVariableRefresh
		Query    DashboardDataQueryKind
	}
}

type TextVariable struct {
	Spec struct {
		Name     string
		Label    *string
		Multi    bool
		AllValue *string
		Query    string
	}
}

type DashboardVariableKind struct {
	QueryVariableKind      *QueryVariable
	DatasourceVariableKind *Variable
	CustomVariableKind     *TextVariable
	IntervalVariableKind   *TextVariable
	ConstantVariableKind   *TextVariable
	TextVariableKind       *TextVariable
	AdhocVariableKind      *Variable
	GroupByVariableKind    *Variable
	SwitchVariableKind     *Variable
}
