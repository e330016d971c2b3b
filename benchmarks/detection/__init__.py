"""A study of the drift alarm: false alarms, delays and the ends of alarms, with other tools' rules beside it."""
