"""Figures: functions from tidy tables to matplotlib figures, one module for each stage.

The figures only draw what the tables hold, with means and intervals over seeds; no analysis is done here.
"""
