"""Many runs side by side: tables, tests, figures, a report."""
