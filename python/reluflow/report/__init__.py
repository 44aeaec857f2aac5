"""The report of an experiment: a page, figures, tables, and what the terminal shows."""

from reluflow.report.write import check_writable, write_report

__all__ = ["check_writable", "write_report"]
