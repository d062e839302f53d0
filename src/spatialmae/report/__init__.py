"""The report: one page that says what was asked, what was found, and how sure."""
