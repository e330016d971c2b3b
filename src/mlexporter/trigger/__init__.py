"""The receiver of Alertmanager's webhook, which starts what a team has for retraining or rollback.

A program of its own beside the exporter: it shares the strict configuration, the logs and the command line with it, and
none of its state.
"""
