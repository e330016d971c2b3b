"""A study of the drift alarm: false alarms, delays and the ends of alarms, with other tools' rules on the same streams."""
